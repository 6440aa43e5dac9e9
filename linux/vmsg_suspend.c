// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest is saved, restored or migrated. Nothing that is shared survives,
 * and the memory does: it must be whole when it is saved, so the connection
 * ends before, and the devices wait for the next one.
 *
 * xenbus itself says nothing of a save that was cancelled, and nobody can
 * refuse one there; a child of its device is told, and can. The child is
 * frozen before its parent, and restored after it.
 */
#include <linux/delay.h>
#include <linux/pm.h>
#include <linux/slab.h>

#include "vmsg.h"

#define SUSPEND_SECONDS	10	/* xl waits 60 */
#define TRIES_A_SECOND	50

enum xenbus_state vmsg_backend_state(struct vmsg_bus *bus)
{
	const char *path = bus->xdev->otherend;

	/*
	 * There is none after a restore, for a while. Kernels differ in
	 * xenbus_read_driver_state().
	 */
	return path ? xenbus_read_unsigned(path, "state", XenbusStateUnknown) :
		      XenbusStateUnknown;
}

/* Nobody can map anything of ours any more; true: nobody has. */
static bool try_end_grants(struct vmsg_bus *bus)
{
	bool page = vmsg_share_try_end(&bus->ring_page);
	bool data = vmsg_share_try_end(&bus->ring_data);

	return vmsg_window_try_end(&bus->window) && page && data;
}

/*
 * What a backend that has a page mapped writes into it is perhaps not in what
 * is saved: a used ring that falls behind its driver. So it has to let go; one
 * that was killed has. xenwatch is our caller, so states are asked for.
 */
static int end_connection(struct vmsg_bus *bus)
{
	unsigned int tries;

	vmsg_ring_down(bus);
	bus->phase = VMSG_ENDING;
	if (bus->xdev->state != XenbusStateClosed)
		xenbus_switch_state(bus->xdev, XenbusStateClosing);
	for (tries = 0; !try_end_grants(bus); tries++) {
		if (tries == SUSPEND_SECONDS * TRIES_A_SECOND) {
			dev_err(&bus->xdev->dev,
				"not suspended: the backend has kept pages mapped for %u s\n",
				SUSPEND_SECONDS);
			return -EBUSY;
		}
		if (vmsg_backend_state(bus) == XenbusStateClosing)
			xenbus_switch_state(bus->xdev, XenbusStateClosed);
		msleep(1000 / TRIES_A_SECOND);
	}
	return 0;
}

static void go_on(struct vmsg_bus *bus)
{
	bus->suspended = false;
	if (bus->xdev->otherend)
		vmsg_bus_follow(bus, vmsg_backend_state(bus));
}

static int vmsg_freeze(struct device *dev)
{
	struct vmsg_bus *bus = dev_get_drvdata(dev);
	int error = 0;

	mutex_lock(&bus->link_mutex);
	bus->suspended = true;
	if (bus->phase == VMSG_ASKING || bus->phase == VMSG_CONNECTED ||
	    bus->phase == VMSG_ENDING)
		error = end_connection(bus);
	/* Nobody calls vmsg_thaw() then. */
	if (error)
		go_on(bus);
	mutex_unlock(&bus->link_mutex);
	return error;
}

/* The save was cancelled, or was a checkpoint: the domain is the same. */
static int vmsg_thaw(struct device *dev)
{
	struct vmsg_bus *bus = dev_get_drvdata(dev);

	mutex_lock(&bus->link_mutex);
	go_on(bus);
	mutex_unlock(&bus->link_mutex);
	return 0;
}

/* xenbus looks for the backend once, when it resumes: this is once more. */
static void vmsg_find_backend(struct work_struct *work)
{
	struct vmsg_bus *bus = container_of(to_delayed_work(work),
					    struct vmsg_bus, find_backend);
	struct device *dev = &bus->xdev->dev;

	if (!xenbus_exists(XBT_NIL, bus->xdev->nodename, "backend"))
		return;
	/* Held by whoever unbinds us, who waits for this work. */
	if (!device_trylock(dev)) {
		queue_delayed_work(bus->link_wq, &bus->find_backend, HZ / 10);
		return;
	}
	if (!bus->xdev->otherend && !READ_ONCE(bus->suspended))
		dev->bus->pm->restore(dev);
	device_unlock(dev);
}

static void backend_node_changed(struct xenbus_watch *watch, const char *path,
				 const char *token)
{
	struct vmsg_bus *bus = container_of(watch, struct vmsg_bus,
					    backend_watch);

	queue_delayed_work(bus->link_wq, &bus->find_backend, 0);
}

/*
 * A new domain, in which nothing is granted. Its directory is perhaps not made
 * yet; devices wait.
 */
static int vmsg_restore(struct device *dev)
{
	struct vmsg_bus *bus = dev_get_drvdata(dev);
	struct xenbus_device *xdev = bus->xdev;
	int error = 0;

	mutex_lock(&bus->link_mutex);
	vmsg_bus_end_grants(bus);
	bus->suspended = false;
	if (bus->phase != VMSG_GIVEN_UP) {
		bus->phase = VMSG_IDLE;
		bus->refusals = 0;
	}
	mutex_unlock(&bus->link_mutex);
	if (!xdev->otherend && !bus->backend_watch.node) {
		dev_info(&xdev->dev, "restored: devices wait for the backend\n");
		error = xenbus_watch_pathfmt(xdev, &bus->backend_watch, NULL,
					     backend_node_changed, "%s/backend",
					     xdev->nodename);
	}
	return error;
}

static const struct dev_pm_ops link_pm = {
	.freeze = vmsg_freeze,
	.thaw = vmsg_thaw,
	.restore = vmsg_restore,
};

static const struct device_type link_type = {
	.name = "virtio-msg-link",
	.pm = &link_pm,
};

static void release_link(struct device *dev)
{
	kfree(dev);
}

int vmsg_suspend_init(struct vmsg_bus *bus)
{
	struct device *link = kzalloc(sizeof(*link), GFP_KERNEL);
	int error;

	if (!link)
		return -ENOMEM;
	INIT_DELAYED_WORK(&bus->find_backend, vmsg_find_backend);
	device_initialize(link);
	link->parent = &bus->xdev->dev;
	link->type = &link_type;
	link->release = release_link;
	dev_set_drvdata(link, bus);
	error = dev_set_name(link, "%s-link", dev_name(&bus->xdev->dev));
	if (!error)
		error = device_add(link);
	if (error) {
		put_device(link);
		return error;
	}
	bus->link = link;
	return 0;
}

/* `removing` is set. */
void vmsg_suspend_exit(struct vmsg_bus *bus)
{
	device_unregister(bus->link);
	if (bus->backend_watch.node) {
		unregister_xenbus_watch(&bus->backend_watch);
		kfree(bus->backend_watch.node);
	}
	cancel_delayed_work_sync(&bus->find_backend);
}
