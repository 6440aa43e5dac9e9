// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device as the virtio core sees it: status and features. What the driver
 * has set is kept, and set again on the next connection.
 */
#include <linux/bitmap.h>

#include "vmsg.h"

int vmsg_device_call(struct vmsg_device *device, u32 epoch, u8 msg_id,
		     const void *request, size_t request_size, void *response,
		     size_t response_size)
{
	const struct vmsg_call call = {
		.msg_id = msg_id,
		.device = device->number,
		.request = request,
		.request_size = request_size,
		.response = response,
		.response_min = response_size,
		.response_max = response_size,
	};

	return vmsg_call(device->bus, epoch, &call);
}

/* The device is set up on the connection that there is. */
static bool is_usable(struct vmsg_device *device)
{
	struct vmsg_bus *bus = device->bus;
	bool usable;

	spin_lock_irq(&bus->lock);
	usable = bus->up && device->epoch == bus->epoch;
	spin_unlock_irq(&bus->lock);
	return usable;
}

/*
 * What an operation of the driver begins with: it waits for a connection,
 * however long, and takes the lock. An operation that a lost connection
 * interrupts (-ENOTCONN) is begun anew; each may be carried out twice.
 */
int vmsg_enter(struct vmsg_device *device)
{
	for (;;) {
		wait_event(device->bus->changed,
			   READ_ONCE(device->gone) || is_usable(device));
		mutex_lock(&device->lock);
		if (READ_ONCE(device->gone)) {
			mutex_unlock(&device->lock);
			return -ENODEV;
		}
		if (is_usable(device))
			return 0;
		mutex_unlock(&device->lock);
	}
}

void vmsg_leave(struct vmsg_device *device)
{
	mutex_unlock(&device->lock);
}

/* --- status; the lock is held */

int vmsg_tell_status(struct vmsg_device *device, u32 epoch, u32 status)
{
	struct vmsg_status request = { cpu_to_le32(status) }, response;
	int size = vmsg_device_call(device, epoch, VMSG_SET_DEVICE_STATUS,
				    &request, sizeof(request), &response,
				    sizeof(response));

	return size < 0 ? size : le32_to_cpu(response.status) & 0xff;
}

static u8 vmsg_get_status(struct virtio_device *vdev)
{
	return READ_ONCE(to_vmsg(vdev)->status);
}

static void vmsg_set_status(struct virtio_device *vdev, u8 status)
{
	struct vmsg_device *device = to_vmsg(vdev);
	int now;

	do {
		now = vmsg_enter(device);
		if (now)
			break;
		now = vmsg_tell_status(device, device->epoch, status);
		if (now >= 0)
			WRITE_ONCE(device->status, now);
		vmsg_leave(device);
	} while (now == -ENOTCONN);
	/* A device that is gone agrees to everything. */
	if (now < 0)
		WRITE_ONCE(device->status, status);
}

static void vmsg_reset(struct virtio_device *vdev)
{
	struct vmsg_device *device = to_vmsg(vdev);
	unsigned int i;
	int now;

	do {
		now = vmsg_enter(device);
		if (now)
			break;
		/* Not to be set again, whether the answer comes or not. */
		WRITE_ONCE(device->status, 0);
		device->features_set = false;
		for (i = 0; i < device->nqueues; i++)
			device->queues[i].set = false;
		bitmap_zero(device->config_written, device->config_size);
		now = vmsg_tell_status(device, device->epoch, 0);
		/* What was said before this answer is over. */
		WRITE_ONCE(device->wants_reset, false);
		if (now > 0)
			dev_err(&device->dev,
				"status 0x%x is the answer to a reset\n", now);
		vmsg_leave(device);
	} while (now == -ENOTCONN);
	WRITE_ONCE(device->status, 0);
	WRITE_ONCE(device->config_valid, false);
	WRITE_ONCE(device->listening, true);
}

/* --- features; the lock is held */

int vmsg_ask_features(struct vmsg_device *device, u32 epoch, u64 *features)
{
	struct vmsg_features_request request = { .num_blocks = cpu_to_le32(2) };
	struct vmsg_features response = {};
	/* A device of 32 bits or fewer answers with less: zeros stay. */
	const struct vmsg_call call = {
		.msg_id = VMSG_GET_DEVICE_FEATURES,
		.device = device->number,
		.request = &request,
		.request_size = sizeof(request),
		.response = &response,
		.response_min = sizeof(request),
		.response_max = sizeof(response),
	};
	int size = vmsg_call(device->bus, epoch, &call);

	if (size < 0)
		return size;
	*features = (u64)le32_to_cpu(response.blocks[1]) << 32 |
		    le32_to_cpu(response.blocks[0]);
	return 0;
}

int vmsg_tell_features(struct vmsg_device *device, u32 epoch, u64 features)
{
	struct vmsg_features request = {
		.num_blocks = cpu_to_le32(2),
		.blocks = { cpu_to_le32(lower_32_bits(features)),
			    cpu_to_le32(upper_32_bits(features)) },
	};
	int size = vmsg_device_call(device, epoch, VMSG_SET_DRIVER_FEATURES,
				    &request, sizeof(request), NULL, 0);

	return min(size, 0);
}

static u64 vmsg_get_features(struct virtio_device *vdev)
{
	struct vmsg_device *device = to_vmsg(vdev);
	u64 features = 0;
	int error;

	do {
		error = vmsg_enter(device);
		if (error)
			return 0;
		error = vmsg_ask_features(device, device->epoch, &features);
		vmsg_leave(device);
	} while (error == -ENOTCONN);
	return error ? 0 : features;
}

static int vmsg_finalize_features(struct virtio_device *vdev)
{
	struct vmsg_device *device = to_vmsg(vdev);
	int error;

	vring_transport_features(vdev);
	__virtio_clear_bit(vdev, VIRTIO_F_RING_PACKED);
	__virtio_clear_bit(vdev, VIRTIO_F_RING_RESET);
	__virtio_clear_bit(vdev, 38); /* VIRTIO_F_NOTIFICATION_DATA */
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "the device does not offer VERSION_1\n");
		return -EINVAL;
	}
	do {
		error = vmsg_enter(device);
		if (error)
			return error;
		error = vmsg_tell_features(device, device->epoch, vdev->features);
		if (!error) {
			device->features = vdev->features;
			device->features_set = true;
		}
		vmsg_leave(device);
	} while (error == -ENOTCONN);
	return error;
}

/* --- */

static const char *vmsg_bus_name(struct virtio_device *vdev)
{
	return dev_name(&to_vmsg(vdev)->dev);
}

/* Callbacks are called under RCU. */
static void vmsg_synchronize(struct virtio_device *vdev)
{
	synchronize_rcu();
}

const struct virtio_config_ops vmsg_config_ops = {
	.get = vmsg_config_get,
	.set = vmsg_config_set,
	.generation = vmsg_config_generation,
	.get_status = vmsg_get_status,
	.set_status = vmsg_set_status,
	.reset = vmsg_reset,
	.find_vqs = vmsg_find_vqs,
	.del_vqs = vmsg_del_vqs,
	.synchronize_cbs = vmsg_synchronize,
	.get_features = vmsg_get_features,
	.finalize_features = vmsg_finalize_features,
	.bus_name = vmsg_bus_name,
};
