// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device goes on with the next connection, or with this one when it needs a
 * reset (docs/binding.md, section 7).
 */
#include <linux/bitmap.h>

#include "vmsg.h"

/* All of it with the lock held, so that no operation of the driver is between. */

static int same_device(struct vmsg_device *device, u32 epoch)
{
	struct vmsg_device_info info;
	int size = vmsg_device_call(device, epoch, VMSG_GET_DEVICE_INFO, NULL,
				    0, &info, sizeof(info));

	if (size < 0)
		return size;
	/* Not there yet: EVENT_DEVICE announces it. */
	if (!info.device_id)
		return -EAGAIN;
	if (le32_to_cpu(info.device_id) == device->vdev.id.device &&
	    le32_to_cpu(info.max_virtqueues) >= device->nqueues &&
	    le32_to_cpu(info.config_size) >= device->config_size)
		return 0;
	dev_err(&device->dev, "another device has come back in its place\n");
	return -ENODEV;
}

static int set_status(struct vmsg_device *device, u32 epoch, u32 status)
{
	int now = vmsg_tell_status(device, epoch, status);

	if (now < 0)
		return now;
	if ((now & status) == status)
		return 0;
	dev_err(&device->dev, "status 0x%x was answered with 0x%x\n", status,
		now);
	return -ENODEV;
}

static int set_features(struct vmsg_device *device, u32 epoch)
{
	u64 offered;
	int error = vmsg_ask_features(device, epoch, &offered);

	if (error)
		return error;
	if (device->features & ~offered) {
		dev_err(&device->dev,
			"it has come back without the features 0x%llx\n",
			device->features & ~offered);
		return -ENODEV;
	}
	return vmsg_tell_features(device, epoch, device->features);
}

static int set_up(struct vmsg_device *device, u32 epoch, u32 status,
		  bool *changed)
{
	u32 early = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	unsigned int i;
	int error = 0;

	if (status & early)
		error = set_status(device, epoch, status & early);
	if (!error && device->features_set)
		error = set_features(device, epoch);
	if (!error && status & VIRTIO_CONFIG_S_FEATURES_OK)
		error = set_status(device, epoch,
				   status & (early | VIRTIO_CONFIG_S_FEATURES_OK));
	for (i = 0; i < device->nqueues && !error; i++) {
		if (!device->queues[i].set)
			continue;
		error = vmsg_inflight_again(&device->queues[i]);
		if (!error)
			error = vmsg_queue_set(&device->queues[i], epoch);
		if (error == -EPROTO || error == -EINVAL)
			error = -ENODEV;
	}
	if (!error)
		error = vmsg_config_again(device, epoch);
	if (error < 0)
		return error;
	*changed = error;
	return status & VIRTIO_CONFIG_S_DRIVER_OK ?
		set_status(device, epoch, status) : 0;
}

/* What may have come while nobody told: as after EVENT_AVAIL, EVENT_USED. */
static void look_at_queues(struct vmsg_device *device)
{
	struct virtqueue *vq;
	unsigned long flags;
	unsigned int i;

	for (i = 0; i < device->nqueues; i++) {
		if (!device->queues[i].set)
			continue;
		vmsg_send_avail(&device->queues[i]);
		rcu_read_lock();
		local_irq_save(flags);
		vq = READ_ONCE(device->queues[i].vq);
		if (vq)
			vring_interrupt(0, vq);
		local_irq_restore(flags);
		rcu_read_unlock();
	}
}

/*
 * DEVICE_NEEDS_RESET, and it was reset: it goes on, once. One that wanted it
 * again before anything was used has failed.
 */
static int may_go_on(struct vmsg_device *device)
{
	bool has_worked = !device->was_reset;
	unsigned int i;
	u16 used;

	for (i = 0; i < device->nqueues; i++) {
		struct vmsg_queue *queue = &device->queues[i];

		if (!queue->set)
			continue;
		used = le16_to_cpu((__force __le16)
				   READ_ONCE(queue->vring.used->idx));
		has_worked |= used != queue->used_at_reset;
		queue->used_at_reset = used;
	}
	device->was_reset = true;
	if (has_worked && device->bus->resumable) {
		dev_warn(&device->dev, "it needed a reset, and goes on after it\n");
		return 0;
	}
	dev_err(&device->dev, "it needed a reset%s: given up\n",
		has_worked ? ", and its queues cannot go on" :
			     " again, and has done nothing since the last one");
	return -ENODEV;
}

/* Operations wait, and nothing is announced, until it goes on. */
static void hold(struct vmsg_device *device)
{
	spin_lock_irq(&device->bus->lock);
	WRITE_ONCE(device->epoch, 0); /* which no connection has */
	spin_unlock_irq(&device->bus->lock);
}

/* Also of a device that is to be given up: it must not use its queues. */
static int reset(struct vmsg_device *device, u32 epoch)
{
	bool again = device->epoch == epoch;
	int error;

	if (again)
		hold(device);
	else if (device->epoch)
		device->was_reset = false;
	error = same_device(device, epoch);
	if (!error)
		error = set_status(device, epoch, 0);
	/* What it said before this answer is over. */
	if (!error)
		WRITE_ONCE(device->wants_reset, false);
	return !error && again ? may_go_on(device) : error;
}

/*
 * 0: it goes on. -ENODEV: it cannot. Others: with the next connection, or
 * when it is announced.
 */
int vmsg_device_resume(struct vmsg_device *device, u32 epoch)
{
	struct vmsg_bus *bus = device->bus;
	bool changed = false;
	unsigned int i;
	u32 status;
	int error;

	mutex_lock(&device->lock);
	status = device->status & ~VIRTIO_CONFIG_S_NEEDS_RESET;
	error = reset(device, epoch);
	if (!error && status)
		error = set_up(device, epoch, status, &changed);
	if (!error) {
		WRITE_ONCE(device->status, status);
		spin_lock_irq(&bus->lock);
		WRITE_ONCE(device->epoch, epoch);
		for (i = 0; i < device->nqueues; i++)
			device->queues[i].avail_waiting = false;
		spin_unlock_irq(&bus->lock);
		if (status & VIRTIO_CONFIG_S_DRIVER_OK)
			look_at_queues(device);
	}
	mutex_unlock(&device->lock);
	if (!error)
		wake_up_all(&bus->changed);
	if (!error && changed && READ_ONCE(device->listening))
		virtio_config_changed(&device->vdev);
	return error;
}
