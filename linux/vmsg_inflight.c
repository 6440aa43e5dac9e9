// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is in flight, found from below the drivers: a head that is in the
 * available ring and not in the used ring. The rings are looked at before
 * each of their entries can be written again, that is at each mapping (the
 * driver maps before it makes available) and at each EVENT_USED.
 *
 * With it a queue goes on with the next connection (docs/binding.md, section
 * 7), and the requests of a device that is gone end.
 */
#include <linux/blk_types.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include "vmsg.h"

/* Once: the backend may write all of it. */
static u16 read16(const __virtio16 *at)
{
	return le16_to_cpu((__force __le16)READ_ONCE(*at));
}

static u32 read32(const __virtio32 *at)
{
	return le32_to_cpu((__force __le32)READ_ONCE(*at));
}

static u64 read64(const __virtio64 *at)
{
	return le64_to_cpu((__force __le64)READ_ONCE(*at));
}

int vmsg_inflight_start(struct vmsg_queue *queue)
{
	unsigned int size = queue->vring.num;

	queue->since = kvcalloc(size, sizeof(*queue->since), GFP_KERNEL);
	queue->order = kvcalloc(size, sizeof(*queue->order), GFP_KERNEL);
	queue->seen_avail = 0;
	queue->seen_used = 0;
	queue->in_flight = 0;
	queue->next_since = 1;
	queue->contradiction = false;
	if (queue->since && queue->order)
		return 0;
	vmsg_inflight_end(queue);
	return -ENOMEM;
}

void vmsg_inflight_end(struct vmsg_queue *queue)
{
	u64 *since;
	u16 *order;

	spin_lock_irq(&queue->look);
	WRITE_ONCE(queue->vq, NULL);
	since = queue->since;
	order = queue->order;
	queue->since = NULL;
	queue->order = NULL;
	spin_unlock_irq(&queue->look);
	kvfree(since);
	kvfree(order);
}

/* --- queue->look is held */

static void distrust(struct vmsg_queue *queue, const char *what, u32 value)
{
	if (!queue->contradiction)
		dev_err(&queue->device->dev,
			"queue %u: the rings contradict each other: %s %u\n",
			queue->index, what, value);
	queue->contradiction = true;
}

static void see_avail(struct vmsg_queue *queue, u16 until)
{
	const struct vring *vring = &queue->vring;
	u16 head;

	if ((u16)(until - queue->seen_avail) > vring->num) {
		distrust(queue, "available index", until);
		return;
	}
	for (; queue->seen_avail != until; queue->seen_avail++) {
		head = read16(&vring->avail->ring[queue->seen_avail &
						  (vring->num - 1)]);
		if (head >= vring->num || queue->since[head]) {
			distrust(queue, "available head", head);
			return;
		}
		queue->since[head] = queue->next_since++;
		queue->in_flight++;
	}
}

static void see_used(struct vmsg_queue *queue, u16 until)
{
	const struct vring *vring = &queue->vring;
	u32 head;

	if ((u16)(until - queue->seen_used) > vring->num) {
		distrust(queue, "used index", until);
		return;
	}
	for (; queue->seen_used != until; queue->seen_used++) {
		head = read32(&vring->used->ring[queue->seen_used &
						 (vring->num - 1)].id);
		if (head >= vring->num || !queue->since[head]) {
			distrust(queue, "used head", head);
			return;
		}
		queue->since[head] = 0;
		queue->in_flight--;
	}
}

static void look(struct vmsg_queue *queue)
{
	const struct vring *vring = &queue->vring;
	u16 used, avail;

	if (!queue->since || queue->contradiction)
		return;
	/* In this order: what is used was made available before. */
	used = read16(&vring->used->idx);
	virt_rmb(); /* the indexes in this order, then the entries */
	avail = read16(&vring->avail->idx);
	virt_rmb(); /* see above */
	see_avail(queue, avail);
	if (!queue->contradiction)
		see_used(queue, used);
}

void vmsg_inflight_look(struct vmsg_queue *queue)
{
	unsigned long flags;

	spin_lock_irqsave(&queue->look, flags);
	look(queue);
	spin_unlock_irqrestore(&queue->look, flags);
}

static int by_since(const void *a, const void *b, const void *since)
{
	u64 first = ((const u64 *)since)[*(const u16 *)a];
	u64 second = ((const u64 *)since)[*(const u16 *)b];

	return first < second ? -1 : first > second;
}

/* The heads in flight, in the order in which they were made available. */
static u16 put_in_order(struct vmsg_queue *queue)
{
	unsigned int head;
	u16 count = 0;

	for (head = 0; head < queue->vring.num; head++)
		if (queue->since[head])
			queue->order[count++] = head;
	sort_r(queue->order, count, sizeof(*queue->order), by_since, NULL,
	       queue->since);
	return count;
}

/* --- the next connection */

/*
 * Nobody writes the used ring now. The driver may go on adding: behind the
 * entries that are written here.
 */
int vmsg_inflight_again(struct vmsg_queue *queue)
{
	const struct vring *vring = &queue->vring;
	u16 count, i;
	int error = 0;

	spin_lock_irq(&queue->look);
	look(queue);
	count = put_in_order(queue);
	if (queue->contradiction ||
	    count != (u16)(queue->seen_avail - queue->seen_used)) {
		distrust(queue, "requests in flight", count);
		error = -EPROTO;
	}
	for (i = 0; i < count && !error; i++)
		WRITE_ONCE(vring->avail->ring[(queue->seen_used + i) &
					      (vring->num - 1)],
			   (__force __virtio16)cpu_to_le16(queue->order[i]));
	spin_unlock_irq(&queue->look);
	return error;
}

/* --- in the place of a device that is gone */

/* The table that the chain at `head` is in. */
static struct vring_desc *table_of(struct vmsg_queue *queue, u16 head,
				   u32 *entries, u32 *first)
{
	struct vring_desc *entry = &queue->vring.desc[head];
	u32 size = read32(&entry->len);

	*entries = queue->vring.num;
	*first = head;
	if (!(read16(&entry->flags) &
	      VRING_DESC_F_INDIRECT))
		return queue->vring.desc;
	*entries = size / sizeof(*entry);
	*first = 0;
	return vmsg_window_bytes(&queue->device->bus->window,
				 read64(&entry->addr),
				 size);
}

/* A disk request's status is the last byte that the device may write. */
static void set_status(struct vmsg_queue *queue, u16 head)
{
	u32 entries, at, steps, size = 0;
	struct vring_desc *table = table_of(queue, head, &entries, &at);
	u64 address = 0;
	u16 flags;
	u8 *status;

	if (!table)
		return;
	for (steps = 0; steps < entries && at < entries; steps++) {
		flags = read16(&table[at].flags);
		if (flags & VRING_DESC_F_WRITE) {
			address = read64(&table[at].addr);
			size = read32(&table[at].len);
		}
		if (!(flags & VRING_DESC_F_NEXT))
			break;
		at = read16(&table[at].next);
	}
	status = vmsg_window_bytes(&queue->device->bus->window, address, size);
	if (status)
		status[size - 1] = VIRTIO_BLK_S_IOERR;
}

/* The used entries of all that is in flight: how many. */
static u16 use_all(struct vmsg_queue *queue)
{
	struct vring *vring = &queue->vring;
	u16 count, i, used;

	look(queue);
	if (!queue->since || queue->contradiction)
		return 0;
	count = put_in_order(queue);
	used = queue->seen_used;
	for (i = 0; i < count; i++) {
		struct vring_used_elem *entry =
			&vring->used->ring[(u16)(used + i) & (vring->num - 1)];

		if (queue->device->vdev.id.device == VIRTIO_ID_BLOCK)
			set_status(queue, queue->order[i]);
		entry->id = (__force __virtio32)cpu_to_le32(queue->order[i]);
		entry->len = 0;
	}
	/* The entries before the index. */
	virt_store_release(&vring->used->idx,
			   (__force __virtio16)cpu_to_le16(used + count));
	/* And the next one is to be told of. */
	vring->used->flags = 0;
	vring_avail_event(vring) =
		(__force __virtio16)cpu_to_le16(queue->seen_avail);
	virt_mb(); /* the driver writes the index, then reads avail_event */
	look(queue);
	return count;
}

static void stand_in(struct vmsg_queue *queue)
{
	struct virtqueue *vq;
	unsigned long flags;
	u16 ended;
	bool more;

	do {
		spin_lock_irqsave(&queue->look, flags);
		ended = use_all(queue);
		/* Added before the driver could see that it must tell. */
		more = ended && queue->in_flight;
		spin_unlock_irqrestore(&queue->look, flags);
		rcu_read_lock();
		local_irq_save(flags);
		vq = READ_ONCE(queue->vq);
		if (vq && ended)
			vring_interrupt(0, vq);
		local_irq_restore(flags);
		rcu_read_unlock();
		cond_resched();
	} while (more);
}

void vmsg_stand_in(struct work_struct *work)
{
	struct vmsg_device *device = container_of(work, struct vmsg_device,
						  stand_in);
	unsigned int i;

	/* Not while an operation is under way: they end soon now. */
	mutex_lock(&device->lock);
	for (i = 0; i < device->nqueues; i++)
		stand_in(&device->queues[i]);
	mutex_unlock(&device->lock);
	put_device(&device->dev);
}

/* Any context, of somebody who holds the device. */
void vmsg_call_stand_in(struct vmsg_device *device)
{
	get_device(&device->dev); /* the work's */
	if (!schedule_work(&device->stand_in))
		put_device(&device->dev);
}
