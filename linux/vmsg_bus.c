// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bus: a device of xenbus, its states, and how a connection begins and
 * ends (docs/binding.md, section 1).
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/xen.h>

#include "vmsg.h"

#define RING_ORDER	2	/* four pages, two for each direction */
#define MIN_PAGES	512
#define MAX_PAGES	16384
#define MAX_REFUSALS	8	/* in a row */
#define END_SECONDS	10	/* that a removal waits for the backend */

static unsigned int window_pages = 1024;
module_param(window_pages, uint, 0444);
MODULE_PARM_DESC(window_pages,
		 "pages of a bus's window, 512 to 16384 (1024); the backend may allow fewer");

static void vmsg_bus_release(struct kref *ref)
{
	struct vmsg_bus *bus = container_of(ref, struct vmsg_bus, ref);

	if (bus->devices_wq)
		destroy_workqueue(bus->devices_wq);
	if (bus->link_wq)
		destroy_workqueue(bus->link_wq);
	vmsg_ring_free(bus);
	vmsg_window_free(&bus->window);
	vfree(bus->ready);
	vfree(bus->asked);
	xa_destroy(&bus->devices);
	kfree(bus);
}

void vmsg_bus_put(struct vmsg_bus *bus)
{
	kref_put(&bus->ref, vmsg_bus_release);
}

/* --- a connection begins; link_mutex is held */

static bool knows_version(struct vmsg_bus *bus)
{
	char *versions = xenbus_read(XBT_NIL, bus->xdev->otherend, "versions",
				     NULL);
	char *rest = versions, *word;
	unsigned int version;
	bool found = false;

	if (IS_ERR(versions))
		return false;
	while (!found && (word = strsep(&rest, ",")))
		found = !kstrtouint(word, 10, &version) &&
			version == VMSG_BINDING_VERSION;
	kfree(versions);
	return found;
}

static unsigned int offer(struct vmsg_bus *bus, const char *node)
{
	return xenbus_read_unsigned(bus->xdev->otherend, node, 0);
}

/* Memory is there once, and stays: what a later backend allows must do. */
static int take_memory(struct vmsg_bus *bus, unsigned int max_pages,
		       unsigned int max_order)
{
	int error;

	if (!bus->window.used) {
		unsigned int pages = clamp_t(unsigned int, window_pages,
					     MIN_PAGES, MAX_PAGES);

		error = vmsg_window_alloc(&bus->window,
					  min(pages, max_pages));
		if (error)
			return error;
	}
	if (!bus->ring_data.base) {
		error = vmsg_ring_alloc(bus, min_t(u32, RING_ORDER, max_order));
		if (error)
			return error;
	}
	if (bus->window.pages.pages > max_pages || bus->ring_order > max_order)
		return -E2BIG;
	return 0;
}

static int write_nodes(struct vmsg_bus *bus, struct xenbus_transaction t)
{
	const struct {
		const char *node;
		unsigned int value;
	} nodes[] = {
		{ "version", VMSG_BINDING_VERSION },
		{ "message-size", bus->message_size },
		{ "ring-ref", bus->ring_page.refs[0] },
		{ "event-channel", bus->port },
		{ "directory-ref", bus->window.directory.refs[0] },
		{ "directory-pages", bus->window.pages.pages },
		{ "feature-ring-event-idx", bus->event_idx },
		{ "feature-queue-resume", bus->resumable },
		{ "state", XenbusStateInitialised },
	};
	unsigned int i;
	int error = 0;

	for (i = 0; i < ARRAY_SIZE(nodes) && !error; i++)
		error = xenbus_printf(t, bus->xdev->nodename, nodes[i].node,
				      "%u", nodes[i].value);
	return error;
}

static int publish(struct vmsg_bus *bus)
{
	struct xenbus_transaction t;
	int error;

	do {
		error = xenbus_transaction_start(&t);
		if (error)
			return error;
		error = write_nodes(bus, t);
		if (error) {
			xenbus_transaction_end(t, 1);
			return error;
		}
		error = xenbus_transaction_end(t, 0);
	} while (error == -EAGAIN);
	if (!error)
		bus->xdev->state = XenbusStateInitialised;
	return error;
}

void vmsg_bus_end_grants(struct vmsg_bus *bus)
{
	vmsg_ring_end(bus);
	if (bus->window.used)
		vmsg_window_end(&bus->window);
}

static void begin(struct vmsg_bus *bus)
{
	unsigned int message_size = offer(bus, "max-message-size");
	unsigned int max_pages = offer(bus, "max-window-pages");
	unsigned int max_order = offer(bus, "max-ring-order");
	bool resumable = offer(bus, "feature-queue-resume") == 1;
	int error = -EPROTO;

	if (!knows_version(bus) || message_size < VMSG_MIN_MESSAGE ||
	    max_pages < MIN_PAGES || !max_order) {
		xenbus_dev_error(bus->xdev, error,
				 "the offer will not do: messages of %u bytes, %u pages, ring order %u",
				 message_size, max_pages, max_order);
		goto give_up;
	}
	if (!resumable && !xa_empty(&bus->devices)) {
		dev_err(&bus->xdev->dev,
			"this backend offers no feature-queue-resume: the devices end, those that it has are new ones\n");
		vmsg_devices_gone(bus);
	}
	bus->message_size = min_t(u32, message_size, VMSG_MAX_MESSAGE);
	bus->event_idx = offer(bus, "feature-ring-event-idx") == 1;
	bus->resumable = resumable;
	error = take_memory(bus, max_pages, max_order);
	if (!error)
		error = vmsg_window_grant(&bus->window, bus->xdev->otherend_id);
	if (!error)
		error = vmsg_ring_start(bus, bus->xdev->otherend_id);
	if (!error)
		error = publish(bus);
	if (!error) {
		bus->phase = VMSG_ASKING;
		return;
	}
	vmsg_bus_end_grants(bus);
	xenbus_dev_error(bus->xdev, error, "asking for a connection");
give_up:
	bus->phase = VMSG_GIVEN_UP;
	xenbus_switch_state(bus->xdev, XenbusStateClosed);
	vmsg_look_at_devices(bus);
}

static void connected(struct vmsg_bus *bus)
{
	if (xenbus_switch_state(bus->xdev, XenbusStateConnected))
		return;
	bus->phase = VMSG_CONNECTED;
	bus->refusals = 0;
	WRITE_ONCE(bus->look_at_all, true);
	vmsg_ring_up(bus);
	vmsg_look_at_devices(bus);
}

/* --- and ends; link_mutex is held */

static void lose(struct vmsg_bus *bus)
{
	if (bus->phase == VMSG_CONNECTED)
		dev_info(&bus->xdev->dev, "the backend has ended; %s\n",
			 bus->resumable ? "devices wait for the next one" :
					  "so do the devices");
	if (bus->phase == VMSG_ASKING)
		bus->refusals++;
	vmsg_ring_down(bus);
	bus->phase = VMSG_ENDING;
	if (!bus->resumable)
		vmsg_devices_gone(bus);
	if (bus->refusals >= MAX_REFUSALS) {
		bus->phase = VMSG_GIVEN_UP;
		dev_err(&bus->xdev->dev,
			"refused %u times: given up (its backend's hotplug-error says why)\n",
			bus->refusals);
	}
	vmsg_look_at_devices(bus);
}

/* Nothing is mapped any more. */
static void unmapped(struct vmsg_bus *bus)
{
	vmsg_bus_end_grants(bus);
	if (bus->phase == VMSG_GIVEN_UP)
		return;
	bus->phase = VMSG_IDLE;
	xenbus_switch_state(bus->xdev, XenbusStateInitialising);
}

void vmsg_bus_give_up(struct vmsg_bus *bus)
{
	mutex_lock(&bus->link_mutex);
	if (!bus->removing && bus->phase != VMSG_GIVEN_UP) {
		vmsg_ring_down(bus);
		bus->phase = VMSG_GIVEN_UP;
		xenbus_switch_state(bus->xdev, XenbusStateClosed);
		vmsg_look_at_devices(bus);
	}
	mutex_unlock(&bus->link_mutex);
}

void vmsg_bus_follow(struct vmsg_bus *bus, enum xenbus_state state)
{
	if (bus->removing || bus->suspended)
		return;
	switch (state) {
	case XenbusStateInitWait:
		if (bus->phase == VMSG_ASKING)
			break;
		if (bus->phase == VMSG_CONNECTED)
			lose(bus);
		if (bus->phase == VMSG_ENDING)
			vmsg_bus_end_grants(bus);
		if (bus->phase != VMSG_GIVEN_UP)
			begin(bus);
		break;
	case XenbusStateConnected:
		if (bus->phase == VMSG_ASKING)
			connected(bus);
		break;
	case XenbusStateClosing:
		if (bus->phase == VMSG_CONNECTED || bus->phase == VMSG_ASKING)
			lose(bus);
		xenbus_switch_state(bus->xdev, XenbusStateClosed);
		break;
	case XenbusStateUnknown:
	case XenbusStateClosed:
		if (bus->phase == VMSG_CONNECTED || bus->phase == VMSG_ASKING)
			lose(bus);
		unmapped(bus);
		break;
	default:
		break;
	}
}

static void backend_changed(struct xenbus_device *xdev, enum xenbus_state state)
{
	struct vmsg_bus *bus = dev_get_drvdata(&xdev->dev);

	mutex_lock(&bus->link_mutex);
	vmsg_bus_follow(bus, state);
	mutex_unlock(&bus->link_mutex);
}

/* --- the device of xenbus */

static int vmsg_probe(struct xenbus_device *xdev,
		      const struct xenbus_device_id *id)
{
	struct vmsg_bus *bus = kzalloc(sizeof(*bus), GFP_KERNEL);
	size_t bits = BITS_TO_LONGS(VMSG_DEVICE_NUMBERS) * sizeof(long);

	if (!bus)
		return -ENOMEM;
	kref_init(&bus->ref);
	bus->xdev = xdev;
	mutex_init(&bus->link_mutex);
	xa_init(&bus->devices);
	INIT_DELAYED_WORK(&bus->devices_work, vmsg_devices_work);
	INIT_WORK(&bus->link_work, vmsg_link_work);
	vmsg_ring_init(bus);
	bus->ready = vzalloc(bits);
	bus->asked = vzalloc(bits);
	/* Frozen before a save: a probe that waits for the backend refuses it. */
	bus->devices_wq = alloc_ordered_workqueue("vmsg_devices", WQ_FREEZABLE);
	bus->link_wq = alloc_ordered_workqueue("vmsg_link", WQ_MEM_RECLAIM);
	if (!bus->ready || !bus->asked || !bus->devices_wq || !bus->link_wq ||
	    vmsg_suspend_init(bus)) {
		vmsg_bus_put(bus);
		return -ENOMEM;
	}
	dev_set_drvdata(&xdev->dev, bus);
	return 0;
}

static bool is_unmapped(struct vmsg_bus *bus)
{
	switch (vmsg_backend_state(bus)) {
	case XenbusStateUnknown:
	case XenbusStateInitWait:
	case XenbusStateClosed:
		return true;
	default:
		return false;
	}
}

/*
 * The bus is unbound, or its directory has gone. Nobody tells us of states
 * any more.
 */
static void vmsg_remove(struct xenbus_device *xdev)
{
	struct vmsg_bus *bus = dev_get_drvdata(&xdev->dev);
	unsigned int tries;

	mutex_lock(&bus->link_mutex);
	bus->removing = true;
	if (bus->phase != VMSG_CONNECTED ||
	    vmsg_backend_state(bus) != XenbusStateConnected)
		vmsg_ring_down(bus);
	mutex_unlock(&bus->link_mutex);
	vmsg_suspend_exit(bus);
	vmsg_look_at_devices(bus);
	wait_event_timeout(bus->changed, xa_empty(&bus->devices),
			   END_SECONDS * HZ);
	vmsg_ring_down(bus);
	vmsg_look_at_devices(bus);
	flush_work(&bus->link_work);
	flush_delayed_work(&bus->devices_work);
	cancel_work_sync(&bus->broken_work);

	xenbus_switch_state(xdev, XenbusStateClosed);
	for (tries = 0; !is_unmapped(bus) && tries < END_SECONDS * 20; tries++)
		msleep(50);
	if (tries == END_SECONDS * 20)
		dev_warn(&xdev->dev,
			 "the backend has not unmapped in %u s: pages are kept until it does\n",
			 END_SECONDS);
	vmsg_bus_end_grants(bus);
	dev_set_drvdata(&xdev->dev, NULL);
	vmsg_bus_put(bus);
}

static const struct xenbus_device_id vmsg_ids[] = { { "virtio-msg" }, { "" } };

static struct xenbus_driver vmsg_driver = {
	.ids = vmsg_ids,
	.not_essential = true,
	.probe = vmsg_probe,
	.remove = vmsg_remove,
	.otherend_changed = backend_changed,
};

static int __init vmsg_init(void)
{
	if (!xen_domain())
		return -ENODEV;
	return xenbus_register_frontend(&vmsg_driver);
}
module_init(vmsg_init);

static void __exit vmsg_exit(void)
{
	xenbus_unregister_driver(&vmsg_driver);
}
module_exit(vmsg_exit);

MODULE_DESCRIPTION("virtio-msg over Xen grants and an event channel");
MODULE_LICENSE("GPL");
MODULE_ALIAS("xen:virtio-msg");
