// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which devices there are. They are added and removed by one ordered
 * workqueue, because a probe reads from the disk; what a probe may wait for,
 * the next connection or the end of its device, is done by another.
 */
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "vmsg.h"

#define MAX_FEATURE_BITS	4096
#define MAX_DEVICES		256	/* of a bus */

void vmsg_look_at_devices(struct vmsg_bus *bus)
{
	queue_work(bus->link_wq, &bus->link_work); /* then devices_work */
}

/* EVENT_DEVICE, in the interrupt handler. */
void vmsg_device_event(struct vmsg_bus *bus, u16 number, u16 state)
{
	struct vmsg_device *device = xa_load(&bus->devices, number);

	switch (state) {
	case VMSG_DEVICE_READY:
		set_bit(number, bus->ready);
		break;
	case VMSG_DEVICE_REMOVED:
		if (device)
			WRITE_ONCE(device->removed, true);
		break;
	case VMSG_DEVICE_REMOVAL_ASKED:
		set_bit(number, bus->asked);
		break;
	default:
		return;
	}
	vmsg_look_at_devices(bus);
}

/* --- a device comes */

static void release_device(struct device *dev)
{
	struct vmsg_device *device = container_of(dev, struct vmsg_device, dev);

	kvfree(device->queues);
	kfree(device->config);
	bitmap_free(device->config_written);
	vmsg_bus_put(device->bus);
	kfree(device);
	module_put(THIS_MODULE);
}

static void release_vdev(struct device *dev)
{
	put_device(&to_vmsg(dev_to_virtio(dev))->dev);
}

static struct vmsg_device *new_device(struct vmsg_bus *bus, u16 number,
				      const struct vmsg_device_info *info,
				      u32 epoch)
{
	struct vmsg_device *device = kzalloc(sizeof(*device), GFP_KERNEL);
	unsigned int i;

	if (!device)
		return NULL;
	__module_get(THIS_MODULE);
	kref_get(&bus->ref);
	device->bus = bus;
	device->number = number;
	device->epoch = epoch;
	device->config_size = le32_to_cpu(info->config_size);
	device->max_queues = min_t(u32, le32_to_cpu(info->max_virtqueues),
				   VMSG_MAX_QUEUES);
	mutex_init(&device->lock);
	INIT_WORK(&device->stand_in, vmsg_stand_in);

	device_initialize(&device->dev);
	device->dev.parent = &bus->xdev->dev;
	device->dev.release = release_device;
	device->queues = kvcalloc(max(device->max_queues, 1u),
				  sizeof(*device->queues), GFP_KERNEL);
	device->config = kzalloc(max(device->config_size, 1u), GFP_KERNEL);
	device->config_written = bitmap_zalloc(max(device->config_size, 1u),
					       GFP_KERNEL);
	if (!device->queues || !device->config || !device->config_written ||
	    dev_set_name(&device->dev, "%s-device-%u",
			 dev_name(&bus->xdev->dev), number)) {
		put_device(&device->dev);
		return NULL;
	}
	for (i = 0; i < device->max_queues; i++) {
		device->queues[i].device = device;
		device->queues[i].index = i;
		spin_lock_init(&device->queues[i].look);
	}
	vmsg_dma_start(device);
	device->vdev.id.device = le32_to_cpu(info->device_id);
	device->vdev.id.vendor = le32_to_cpu(info->vendor_id);
	device->vdev.config = &vmsg_config_ops;
	device->vdev.dev.parent = &device->dev;
	device->vdev.dev.release = release_vdev;
	return device;
}

static void delete_device(struct vmsg_device *device)
{
	struct vmsg_bus *bus = device->bus;

	if (device->registered)
		unregister_virtio_device(&device->vdev);
	if (cancel_work_sync(&device->stand_in))
		put_device(&device->dev);
	xa_erase(&bus->devices, device->number);
	synchronize_rcu();
	bus->ndevices--;
	device_del(&device->dev);
	put_device(&device->dev);
	wake_up_all(&bus->changed);
}

static void add_device(struct vmsg_bus *bus, u16 number)
{
	u32 epoch = READ_ONCE(bus->epoch);
	struct vmsg_device_info info;
	struct vmsg_device *device;
	int error;
	const struct vmsg_call call = {
		.msg_id = VMSG_GET_DEVICE_INFO,
		.device = number,
		.response = &info,
		.response_min = sizeof(info),
		.response_max = sizeof(info),
	};

	if (bus->ndevices >= MAX_DEVICES) {
		dev_err_ratelimited(&bus->xdev->dev,
				    "device %u: a bus has %u at most\n", number,
				    MAX_DEVICES);
		return;
	}
	error = vmsg_call(bus, epoch, &call);
	/* No id: it has gone again. A lost connection: the next one lists it. */
	if (error == -ENOTCONN || (error > 0 && !info.device_id))
		return;
	if (error > 0 && (le32_to_cpu(info.config_size) > VMSG_MAX_CONFIG ||
			  le32_to_cpu(info.num_feature_bits) > MAX_FEATURE_BITS))
		error = -E2BIG;
	if (error < 0) {
		dev_err(&bus->xdev->dev, "device %u: refused: %d\n", number,
			error);
		return;
	}
	device = new_device(bus, number, &info, epoch);
	if (!device)
		return;
	error = device_add(&device->dev);
	if (error) {
		put_device(&device->dev);
		return;
	}
	bus->ndevices++;
	error = xa_err(xa_store(&bus->devices, number, device, GFP_KERNEL));
	if (!error) {
		get_device(&device->dev); /* released with the virtio device */
		error = register_virtio_device(&device->vdev);
		device->registered = !error;
		if (error)
			put_device(&device->vdev.dev);
	}
	if (error) {
		dev_err(&bus->xdev->dev, "device %u: not registered: %d\n",
			number, error);
		delete_device(device);
	}
}

/* Sets a bit for each device that the backend has. */
static void list_devices(struct vmsg_bus *bus)
{
	u8 response[VMSG_MAX_MESSAGE];
	struct vmsg_devices *list = (void *)response;
	u32 room = bus->message_size - sizeof(struct vmsg_header) -
		   sizeof(*list);
	u32 at = 0, next, count, i;
	struct vmsg_get_devices request;
	const struct vmsg_call call = {
		.type = VMSG_BUS,
		.msg_id = VMSG_BUS_GET_DEVICES,
		.request = &request,
		.request_size = sizeof(request),
		.response = response,
		.response_min = sizeof(*list),
		.response_max = sizeof(*list) + room,
	};

	while (at < VMSG_DEVICE_NUMBERS) {
		u32 asked = min(room * 8, VMSG_DEVICE_NUMBERS - at);
		int size;

		request.offset = cpu_to_le16(at);
		request.count = cpu_to_le16(asked);
		size = vmsg_call(bus, READ_ONCE(bus->epoch), &call);
		if (size < 0)
			return;
		next = le16_to_cpu(list->next_offset);
		count = le16_to_cpu(list->count);
		if (le16_to_cpu(list->offset) != at || count > asked ||
		    DIV_ROUND_UP(count, 8) > size - sizeof(*list) ||
		    (next && next <= at)) {
			dev_err(&bus->xdev->dev,
				"GET_DEVICES at %u: offset %u, count %u, next %u\n",
				at, le16_to_cpu(list->offset), count, next);
			return;
		}
		for (i = 0; i < count; i++)
			if (list->bitmap[i / 8] & BIT(i % 8))
				set_bit(at + i, bus->ready);
		if (!next)
			return;
		at = next;
	}
}

/* --- a device goes */

static int count_openers(struct device *dev, void *data)
{
	unsigned int *openers = data;

	if (dev->class && !strcmp(dev->class->name, "block") && dev->type &&
	    !strcmp(dev->type->name, "disk"))
		*openers += disk_openers(dev_to_disk(dev));
	return 0;
}

/* Whether the administrator's wish must wait for those who use the disk. */
static bool is_in_use(struct vmsg_device *device)
{
	unsigned int openers = 0;

	if (device->registered)
		device_for_each_child(&device->vdev.dev, &openers,
				      count_openers);
	return openers;
}

static void tell_of_wish(struct vmsg_device *device)
{
	char wish[] = "VIRTIO_MSG_REMOVAL=asked";
	char *what[2] = { wish, NULL };

	dev_info(&device->dev,
		 "its removal was asked for: it goes when nobody uses it\n");
	kobject_uevent_env(&device->vdev.dev.kobj, KOBJ_CHANGE, what);
}

/*
 * Ends what is in flight, now and from now on, so that nobody waits for a
 * device that is not there.
 */
void vmsg_device_gone(struct vmsg_device *device)
{
	if (xchg(&device->gone, true))
		return;
	vmsg_abort_calls(device->bus, device->number);
	wake_up_all(&device->bus->changed);
	vmsg_call_stand_in(device);
}

/* --- the two workers */

static bool all_must_go(struct vmsg_bus *bus)
{
	return READ_ONCE(bus->removing) || READ_ONCE(bus->phase) == VMSG_GIVEN_UP;
}

static bool must_go(struct vmsg_device *device)
{
	struct vmsg_bus *bus = device->bus;

	/* While it can be asked, a device that is unbound ends in order. */
	if (READ_ONCE(device->removed) || READ_ONCE(device->gone) ||
	    (all_must_go(bus) && !READ_ONCE(bus->up)))
		vmsg_device_gone(device);
	return READ_ONCE(device->gone) || all_must_go(bus);
}

void vmsg_devices_work(struct work_struct *work)
{
	struct vmsg_bus *bus = container_of(to_delayed_work(work),
					    struct vmsg_bus, devices_work);
	struct vmsg_device *device;
	unsigned long number;
	bool wait = false;

	xa_for_each(&bus->devices, number, device)
		if (must_go(device))
			delete_device(device);
	if (all_must_go(bus))
		return;

	for_each_set_bit(number, bus->asked, VMSG_DEVICE_NUMBERS) {
		device = xa_load(&bus->devices, number);
		if (device && is_in_use(device)) {
			if (!device->told)
				tell_of_wish(device);
			device->told = true;
			wait = true;
			continue;
		}
		clear_bit(number, bus->asked);
		if (device)
			delete_device(device);
	}
	if (xchg(&bus->look_at_all, false))
		list_devices(bus);
	for_each_set_bit(number, bus->ready, VMSG_DEVICE_NUMBERS) {
		clear_bit(number, bus->ready);
		if (!xa_load(&bus->devices, number))
			add_device(bus, number);
	}
	if (wait)
		queue_delayed_work(bus->devices_wq, &bus->devices_work, HZ);
}

static struct vmsg_device *next_device(struct vmsg_bus *bus, unsigned long *at)
{
	struct vmsg_device *device;

	rcu_read_lock();
	device = xa_find(&bus->devices, at, ULONG_MAX, XA_PRESENT);
	while (device && !kobject_get_unless_zero(&device->dev.kobj))
		device = xa_find_after(&bus->devices, at, ULONG_MAX,
				       XA_PRESENT);
	rcu_read_unlock();
	return device;
}

void vmsg_devices_gone(struct vmsg_bus *bus)
{
	struct vmsg_device *device;
	unsigned long number;

	for (number = 0; (device = next_device(bus, &number)); number++) {
		vmsg_device_gone(device);
		put_device(&device->dev);
	}
}

void vmsg_link_work(struct work_struct *work)
{
	struct vmsg_bus *bus = container_of(work, struct vmsg_bus, link_work);
	struct vmsg_device *device;
	unsigned long number;

	for (number = 0; (device = next_device(bus, &number)); number++) {
		u32 epoch = READ_ONCE(bus->epoch);

		if (READ_ONCE(device->removed) ||
		    (all_must_go(bus) && !READ_ONCE(bus->up)))
			vmsg_device_gone(device);
		else if (READ_ONCE(bus->up) &&
			 (READ_ONCE(device->epoch) != epoch ||
			  READ_ONCE(device->wants_reset)) &&
			 vmsg_device_resume(device, epoch) == -ENODEV)
			vmsg_device_gone(device);
		put_device(&device->dev);
	}
	mod_delayed_work(bus->devices_wq, &bus->devices_work, 0);
}
