// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device's configuration: read whole, and kept until it changes. What asks
 * and tells is called with the device's lock held.
 */
#include <linux/bitmap.h>
#include <linux/slab.h>

#include "vmsg.h"

#define CONFIG_TRIES	8

static u32 bytes_of_a_message(struct vmsg_device *device)
{
	return device->bus->message_size - sizeof(struct vmsg_header) -
	       sizeof(struct vmsg_config);
}

static int ask_config_part(struct vmsg_device *device, u32 epoch, u32 at,
			   u32 size, u32 *generation)
{
	struct vmsg_config_request request = { cpu_to_le32(at),
					       cpu_to_le32(size) };
	u8 response[VMSG_MAX_MESSAGE];
	struct vmsg_config *part = (void *)response;
	int got = vmsg_device_call(device, epoch, VMSG_GET_CONFIG, &request,
				   sizeof(request), response,
				   sizeof(*part) + size);

	if (got < 0)
		return got;
	if (le32_to_cpu(part->offset) != at || le32_to_cpu(part->length) != size)
		return -EBADMSG;
	memcpy(device->config + at, part->data, size);
	*generation = le32_to_cpu(part->generation);
	return 0;
}

static int ask_config(struct vmsg_device *device, u32 epoch)
{
	u32 changes, generation, first, at, size;
	unsigned int tries;
	int error;

	for (tries = 0; tries < CONFIG_TRIES; tries++) {
		changes = READ_ONCE(device->config_changes);
		first = 0;
		generation = 0;
		for (at = 0; at < device->config_size; at += size) {
			size = min(bytes_of_a_message(device),
				   device->config_size - at);
			error = ask_config_part(device, epoch, at, size,
						&generation);
			if (error)
				return error;
			if (!at)
				first = generation;
			if (generation != first)
				break;
		}
		if (generation != first)
			continue;
		device->generation = generation;
		WRITE_ONCE(device->config_valid, true);
		smp_mb(); /* vmsg_config_event counts, then clears */
		if (changes == READ_ONCE(device->config_changes))
			return 0;
		WRITE_ONCE(device->config_valid, false);
	}
	/* One that changes all the time: what was read last. */
	return 0;
}

static int tell_config(struct vmsg_device *device, u32 epoch, u32 offset,
		       const void *bytes, u32 size)
{
	u8 request[VMSG_MAX_MESSAGE], response[VMSG_MAX_MESSAGE];
	struct vmsg_config *part = (void *)request, *done = (void *)response;
	unsigned int tries;
	int got;

	part->offset = cpu_to_le32(offset);
	part->length = cpu_to_le32(size);
	memcpy(part->data, bytes, size);
	for (tries = 0; tries < CONFIG_TRIES; tries++) {
		part->generation = cpu_to_le32(device->generation);
		got = vmsg_device_call(device, epoch, VMSG_SET_CONFIG, part,
				       sizeof(*part) + size, done,
				       sizeof(*done));
		if (got < 0)
			return got;
		if (done->length)
			return 0;
		if (device->generation == le32_to_cpu(done->generation))
			break;
		device->generation = le32_to_cpu(done->generation);
	}
	dev_warn(&device->dev,
		 "the device has refused %u bytes of configuration at %u\n",
		 size, offset);
	return -EINVAL;
}

static int tell_written(struct vmsg_device *device, u32 epoch, const u8 *bytes)
{
	unsigned long at = 0, end;
	u32 size;
	int error = 0;

	while (!error) {
		at = find_next_bit(device->config_written, device->config_size,
				   at);
		if (at >= device->config_size)
			break;
		end = find_next_zero_bit(device->config_written,
					 device->config_size, at);
		size = min_t(u32, end - at, bytes_of_a_message(device));
		error = tell_config(device, epoch, at, bytes + at, size);
		at += size;
	}
	/* A value that it does not allow any more is not worth the device. */
	return error == -EINVAL ? 0 : error;
}

/*
 * The next connection: what the driver had written is written again; 1 when
 * something else is not what it has read.
 */
int vmsg_config_again(struct vmsg_device *device, u32 epoch)
{
	bool known = READ_ONCE(device->config_valid);
	u8 *before;
	int error;

	if (!known && bitmap_empty(device->config_written, device->config_size))
		return 0;
	before = kmemdup(device->config, device->config_size, GFP_KERNEL);
	if (!before)
		return -ENODEV;
	/* For its generation, too. */
	error = ask_config(device, epoch);
	if (!error)
		error = tell_written(device, epoch, before);
	if (!error && known)
		error = ask_config(device, epoch);
	if (!error && known &&
	    memcmp(before, device->config, device->config_size))
		error = 1;
	/* The next try writes the same. */
	if (error < 0)
		memcpy(device->config, before, device->config_size);
	kfree(before);
	return error;
}

/* --- from the driver */

static void read_config(struct vmsg_device *device, unsigned int offset,
			void *bytes, unsigned int size, u32 *generation)
{
	int error;

	do {
		error = vmsg_enter(device);
		if (error)
			break;
		if (!READ_ONCE(device->config_valid))
			error = ask_config(device, device->epoch);
		if (!error) {
			memcpy(bytes, device->config + offset, size);
			*generation = device->generation;
		}
		vmsg_leave(device);
	} while (error == -ENOTCONN);
}

void vmsg_config_get(struct virtio_device *vdev, unsigned int offset,
		     void *bytes, unsigned int size)
{
	struct vmsg_device *device = to_vmsg(vdev);
	u32 generation;

	memset(bytes, 0, size);
	/* Fields that the device does not have are zeros. */
	if (offset < device->config_size)
		read_config(device, offset, bytes,
			    min(size, device->config_size - offset),
			    &generation);
}

u32 vmsg_config_generation(struct virtio_device *vdev)
{
	u32 generation = 0;

	read_config(to_vmsg(vdev), 0, NULL, 0, &generation);
	return generation;
}

void vmsg_config_set(struct virtio_device *vdev, unsigned int offset,
		     const void *bytes, unsigned int size)
{
	struct vmsg_device *device = to_vmsg(vdev);
	int error;

	if (offset > device->config_size ||
	    size > device->config_size - offset ||
	    size > bytes_of_a_message(device)) {
		dev_warn(&device->dev, "no configuration at %u, %u bytes\n",
			 offset, size);
		return;
	}
	do {
		error = vmsg_enter(device);
		if (error)
			return;
		if (!READ_ONCE(device->config_valid))
			error = ask_config(device, device->epoch);
		if (!error)
			error = tell_config(device, device->epoch, offset,
					    bytes, size);
		if (!error) {
			memcpy(device->config + offset, bytes, size);
			bitmap_set(device->config_written, offset, size);
		}
		if (error != -EINVAL)
			WRITE_ONCE(device->config_valid, false);
		vmsg_leave(device);
	} while (error == -ENOTCONN);
}

/* EVENT_CONFIG, in the interrupt handler. */
void vmsg_config_event(struct vmsg_device *device, u32 status)
{
	u32 known = READ_ONCE(device->status);

	/* Of the status only what the device may set by itself. */
	if (status & VIRTIO_CONFIG_S_NEEDS_RESET && known)
		cmpxchg(&device->status, known,
			known | VIRTIO_CONFIG_S_NEEDS_RESET);
	WRITE_ONCE(device->config_changes, device->config_changes + 1);
	smp_mb(); /* ask_config sets, then compares */
	WRITE_ONCE(device->config_valid, false);
	if (READ_ONCE(device->listening))
		virtio_config_changed(&device->vdev);
	if (status & VIRTIO_CONFIG_S_NEEDS_RESET && known) {
		WRITE_ONCE(device->wants_reset, true);
		vmsg_look_at_devices(device->bus);
	}
}
