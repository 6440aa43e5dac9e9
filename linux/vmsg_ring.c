// SPDX-License-Identifier: GPL-2.0-only
/* The ring: records in both directions, and the interrupt handler. */
#include <asm/barrier.h>
#include <linux/interrupt.h>
#include <xen/events.h>

#include "vmsg.h"

#define RECORDS_OF_A_TURN	128	/* with interrupts off */

static void vmsg_more(struct work_struct *work);
static void vmsg_broken_work(struct work_struct *work);

static struct vmsg_ring_page *shared(struct vmsg_bus *bus)
{
	return bus->ring_page.base;
}

void vmsg_ring_init(struct vmsg_bus *bus)
{
	spin_lock_init(&bus->lock);
	INIT_LIST_HEAD(&bus->calls);
	init_waitqueue_head(&bus->space);
	init_waitqueue_head(&bus->changed);
	INIT_WORK(&bus->more, vmsg_more);
	INIT_WORK(&bus->broken_work, vmsg_broken_work);
}

int vmsg_ring_alloc(struct vmsg_bus *bus, u32 order)
{
	int error = vmsg_share_alloc(&bus->ring_page, 1);

	bus->ring_order = order;
	bus->half = VMSG_PAGE << (order - 1);
	if (!error)
		error = vmsg_share_alloc(&bus->ring_data, 1 << order);
	return error;
}

void vmsg_ring_free(struct vmsg_bus *bus)
{
	vmsg_share_free(&bus->ring_page);
	vmsg_share_free(&bus->ring_data);
}

/* --- to the backend; bus->lock is held */

/* Bytes that a record may take; a cursor that lies leaves none. */
static u32 room(struct vmsg_bus *bus)
{
	/* The backend has copied the records out before. */
	u32 cons = virt_load_acquire(&shared(bus)->out.cons);
	u32 in_use = bus->out_prod - cons;

	if (in_use > bus->out_prod - bus->out_cons || cons % VMSG_RECORD_ALIGN) {
		vmsg_bus_broken(bus, "out_cons", cons, bus->out_prod);
		return 0;
	}
	bus->out_cons = cons;
	return bus->half - in_use;
}

static void copy_out(struct vmsg_bus *bus, u32 to, const void *bytes, u32 size)
{
	void *half = bus->ring_data.base + bus->half;
	u32 at = to & (bus->half - 1);
	u32 first = min(size, bus->half - at);

	memcpy(half + at, bytes, first);
	memcpy(half, bytes + first, size - first);
}

int vmsg_push(struct vmsg_bus *bus, const void *message, u32 size)
{
	static const u8 zeros[VMSG_RECORD_ALIGN];
	struct vmsg_ring_words *out = &shared(bus)->out;
	u32 old = bus->out_prod, padded = ALIGN(size, VMSG_RECORD_ALIGN);

	if (!bus->up)
		return -ENOTCONN;
	if (room(bus) < padded) {
		bus->want_space = true;
		WRITE_ONCE(out->want_space, 1);
		virt_mb(); /* the backend writes cons, then reads want_space */
		if (room(bus) < padded)
			return -EAGAIN;
	}
	/*
	 * Who waits looks under this lock after it has joined the queue: it is
	 * seen here, or asks for space again.
	 */
	if (bus->want_space && !bus->avail_waiting &&
	    !waitqueue_active(&bus->space)) {
		bus->want_space = false;
		WRITE_ONCE(out->want_space, 0);
	}
	copy_out(bus, old, message, size);
	copy_out(bus, old + size, zeros, padded - size);
	bus->out_prod = old + padded;
	/* The record before the cursor. */
	virt_store_release(&out->prod, bus->out_prod);
	virt_mb(); /* the backend writes event, then reads prod */
	if (!bus->event_idx ||
	    bus->out_prod - READ_ONCE(out->event) - 1 < bus->out_prod - old)
		notify_remote_via_evtchn(bus->port);
	return 0;
}

/* --- from the backend; only the handler or `more` is here */

static void copy_in(struct vmsg_bus *bus, void *bytes, u32 size)
{
	u32 at = bus->in_cons & (bus->half - 1);
	u32 first = min(size, bus->half - at);

	memcpy(bytes, bus->ring_data.base + at, first);
	memcpy(bytes + first, bus->ring_data.base, size - first);
}

/* The size of the next record, which is in bus->record; 0: there is none. */
static u32 pop(struct vmsg_bus *bus)
{
	/* The cursor before the record. */
	u32 prod = virt_load_acquire(&shared(bus)->in.prod);
	u32 there = prod - bus->in_cons, size;

	if (there > bus->half || there < bus->in_prod - bus->in_cons ||
	    prod % VMSG_RECORD_ALIGN) {
		vmsg_bus_broken(bus, "in_prod", prod, bus->in_cons);
		return 0;
	}
	bus->in_prod = prod;
	if (!there)
		return 0;
	copy_in(bus, bus->record, sizeof(struct vmsg_header));
	size = le16_to_cpu(((struct vmsg_header *)bus->record)->msg_size);
	if (size < sizeof(struct vmsg_header) || size > bus->message_size ||
	    size > there) {
		vmsg_bus_broken(bus, "msg_size", size,
				min(there, bus->message_size));
		return 0;
	}
	copy_in(bus, bus->record, size);
	/* The size that was checked, whatever is there now. */
	((struct vmsg_header *)bus->record)->msg_size = cpu_to_le16(size);
	bus->in_cons += ALIGN(size, VMSG_RECORD_ALIGN);
	return size;
}

static void release(struct vmsg_bus *bus)
{
	struct vmsg_ring_words *in = &shared(bus)->in;

	/* What was copied out before the cursor. */
	virt_store_release(&in->cons, bus->in_cons);
	virt_mb(); /* the backend writes want_space, then reads cons */
	if (!bus->event_idx || READ_ONCE(in->want_space))
		notify_remote_via_evtchn(bus->port);
}

/* Takes what there is, up to a bound. 1: there is more, 0: there was some. */
static int turn(struct vmsg_bus *bus)
{
	struct vmsg_ring_words *in = &shared(bus)->in;
	unsigned int taken = 0, size;

	rcu_read_lock();
	while (taken < RECORDS_OF_A_TURN && !READ_ONCE(bus->broken)) {
		size = pop(bus);
		if (size) {
			vmsg_take_record(bus, size);
			taken++;
			continue;
		}
		WRITE_ONCE(in->event, bus->in_cons);
		virt_mb(); /* the backend writes prod, then reads event */
		if (READ_ONCE(in->prod) == bus->in_cons)
			break;
	}
	if (taken && !READ_ONCE(bus->broken))
		release(bus);
	if (READ_ONCE(bus->avail_waiting))
		vmsg_send_waiting_avails(bus);
	rcu_read_unlock();
	if (READ_ONCE(bus->want_space))
		wake_up_all(&bus->space);
	if (taken == RECORDS_OF_A_TURN)
		return 1;
	return taken || READ_ONCE(bus->want_space) ? 0 : -EAGAIN;
}

static irqreturn_t vmsg_interrupt(int irq, void *data)
{
	struct vmsg_bus *bus = data;
	int more = turn(bus);

	/* The port stays masked until `more` has taken all that there is. */
	if (more > 0 && !READ_ONCE(bus->quiet))
		queue_work(system_highpri_wq, &bus->more);
	else
		xen_irq_lateeoi(irq, more < 0 ? XEN_EOI_FLAG_SPURIOUS : 0);
	return IRQ_HANDLED;
}

static void vmsg_more(struct work_struct *work)
{
	struct vmsg_bus *bus = container_of(work, struct vmsg_bus, more);
	int more;

	do {
		local_irq_disable();
		more = turn(bus);
		local_irq_enable();
		cond_resched();
	} while (more > 0 && !READ_ONCE(bus->quiet));
	xen_irq_lateeoi(bus->irq, 0);
}

/* --- the connection */

int vmsg_ring_start(struct vmsg_bus *bus, domid_t domain)
{
	struct vmsg_ring_page *page = bus->ring_page.base;
	unsigned int i;
	int error;

	memset(bus->ring_page.base, 0, VMSG_PAGE);
	memset(bus->ring_data.base, 0, bus->half * 2);
	bus->in_cons = 0;
	bus->in_prod = 0;
	bus->broken = false;
	error = vmsg_share_grant(&bus->ring_page, domain);
	if (!error)
		error = vmsg_share_grant(&bus->ring_data, domain);
	if (!error)
		error = xenbus_alloc_evtchn(bus->xdev, &bus->port);
	if (error)
		return error;
	page->ring_order = bus->ring_order;
	for (i = 0; i < bus->ring_data.pages; i++)
		page->ref[i] = bus->ring_data.refs[i];
	bus->quiet = false;
	bus->irq = bind_evtchn_to_irqhandler_lateeoi(bus->port, vmsg_interrupt,
						     0, "virtio-msg", bus);
	if (bus->irq < 0) {
		error = bus->irq;
		bus->irq = 0;
		xenbus_free_evtchn(bus->xdev, bus->port);
	}
	return error;
}

void vmsg_ring_up(struct vmsg_bus *bus)
{
	spin_lock_irq(&bus->lock);
	bus->out_prod = 0;
	bus->out_cons = 0;
	bus->want_space = false;
	bus->avail_waiting = false;
	bus->epoch++;
	bus->up = true;
	spin_unlock_irq(&bus->lock);
	wake_up_all(&bus->changed);
}

void vmsg_ring_down(struct vmsg_bus *bus)
{
	spin_lock_irq(&bus->lock);
	bus->up = false;
	vmsg_end_calls(bus, -ENOTCONN);
	spin_unlock_irq(&bus->lock);
	wake_up_all(&bus->space);
	wake_up_all(&bus->changed);
	if (!bus->irq)
		return;
	WRITE_ONCE(bus->quiet, true);
	synchronize_irq(bus->irq);
	cancel_work_sync(&bus->more);
	unbind_from_irqhandler(bus->irq, bus);
	bus->irq = 0;
}

void vmsg_ring_end(struct vmsg_bus *bus)
{
	vmsg_ring_down(bus);
	vmsg_share_end(&bus->ring_page);
	vmsg_share_end(&bus->ring_data);
}

static void vmsg_broken_work(struct work_struct *work)
{
	struct vmsg_bus *bus = container_of(work, struct vmsg_bus, broken_work);

	vmsg_bus_give_up(bus);
}

/* Any context. The ring is used no more; devices_wq must not be waited for. */
void vmsg_bus_broken(struct vmsg_bus *bus, const char *what, u32 value,
		     u32 limit)
{
	if (xchg(&bus->broken, true))
		return;
	dev_err(&bus->xdev->dev,
		"the backend broke the ring: %s is %u against %u\n", what,
		value, limit);
	queue_work(bus->link_wq, &bus->broken_work);
}
