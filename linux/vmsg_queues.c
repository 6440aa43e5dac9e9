// SPDX-License-Identifier: GPL-2.0-only
/* Virtqueues: made in the window, told to the device, notified. */
#include <linux/log2.h>
#include <linux/slab.h>

#include "vmsg.h"

/* Spin locks are held, interrupts are off: never waits. */
static bool vmsg_notify(struct virtqueue *vq)
{
	struct vmsg_queue *queue = vq->priv;

	if (READ_ONCE(queue->device->gone))
		vmsg_call_stand_in(queue->device);
	else
		vmsg_send_avail(queue);
	return true;
}

void vmsg_queue_used(struct vmsg_device *device, u32 index)
{
	struct virtqueue *vq;

	if (index >= READ_ONCE(device->nqueues))
		return;
	vq = READ_ONCE(device->queues[index].vq);
	if (!vq)
		return;
	vmsg_inflight_look(&device->queues[index]);
	vring_interrupt(0, vq);
}

/* --- the lock is held */

static int ask_queue(struct vmsg_queue *queue, u32 epoch,
		     struct vmsg_vqueue *answer)
{
	struct vmsg_vqueue_request request = { cpu_to_le32(queue->index) };
	int size = vmsg_device_call(queue->device, epoch, VMSG_GET_VQUEUE,
				    &request, sizeof(request), answer,
				    sizeof(*answer));

	if (size >= 0 && le32_to_cpu(answer->index) != queue->index)
		return -EBADMSG;
	return min(size, 0);
}

int vmsg_queue_set(struct vmsg_queue *queue, u32 epoch)
{
	struct vmsg_set_vqueue request = {
		.index = cpu_to_le32(queue->index),
		.size = cpu_to_le32(queue->vring.num),
		.desc = cpu_to_le64(virtqueue_get_desc_addr(queue->vq)),
		.driver = cpu_to_le64(virtqueue_get_avail_addr(queue->vq)),
		.device = cpu_to_le64(virtqueue_get_used_addr(queue->vq)),
	};
	struct vmsg_vqueue answer;
	int error = vmsg_device_call(queue->device, epoch, VMSG_SET_VQUEUE,
				     &request, sizeof(request), NULL, 0);

	/* SET_VQUEUE says nothing of its result. */
	if (error >= 0)
		error = ask_queue(queue, epoch, &answer);
	if (!error && le32_to_cpu(answer.cur_size) != queue->vring.num) {
		dev_err(&queue->device->dev,
			"queue %u of size %u was not accepted\n", queue->index,
			queue->vring.num);
		error = -EINVAL;
	}
	return min(error, 0);
}

/* --- from the driver */

static int max_size(struct vmsg_queue *queue)
{
	struct vmsg_device *device = queue->device;
	struct vmsg_vqueue answer;
	u32 size;
	int error;

	do {
		error = vmsg_enter(device);
		if (error)
			return error;
		error = ask_queue(queue, device->epoch, &answer);
		vmsg_leave(device);
	} while (error == -ENOTCONN);
	if (error)
		return error;
	size = min_t(u32, le32_to_cpu(answer.max_size), VMSG_MAX_QUEUE_SIZE);
	return size ? rounddown_pow_of_two(size) : -ENOENT;
}

static void end_queue(struct vmsg_queue *queue)
{
	struct virtqueue *vq = queue->vq;

	mutex_lock(&queue->device->lock);
	queue->set = false;
	vmsg_inflight_end(queue);
	mutex_unlock(&queue->device->lock);
	/* The handler may be in the driver's callback, or look at the ring. */
	synchronize_rcu();
	if (vq)
		vring_del_virtqueue(vq);
}

static int begin_queue(struct vmsg_queue *queue, struct virtqueue *vq)
{
	struct vmsg_device *device = queue->device;
	int error;

	vq->priv = queue;
	vq->num_max = virtqueue_get_vring_size(vq);
	queue->vring = *virtqueue_get_vring(vq);
	error = vmsg_inflight_start(queue);
	if (error) {
		vring_del_virtqueue(vq);
		return error;
	}
	WRITE_ONCE(queue->vq, vq);
	do {
		error = vmsg_enter(device);
		if (error)
			break;
		error = vmsg_queue_set(queue, device->epoch);
		queue->set = !error;
		vmsg_leave(device);
	} while (error == -ENOTCONN);
	if (error)
		end_queue(queue);
	return error;
}

static struct virtqueue *new_queue(struct vmsg_device *device,
				   unsigned int index, vq_callback_t *callback,
				   const char *name, bool context)
{
	struct vmsg_queue *queue = &device->queues[index];
	struct virtqueue *vq;
	int size, error;

	if (index >= device->max_queues)
		return ERR_PTR(-ENOENT);
	size = max_size(queue);
	if (size < 0)
		return ERR_PTR(size);
	vq = vring_create_virtqueue(index, size, SMP_CACHE_BYTES, &device->vdev,
				    true, true, context, vmsg_notify, callback,
				    name);
	if (!vq)
		return ERR_PTR(-ENOMEM);
	WRITE_ONCE(device->nqueues, max(device->nqueues, index + 1));
	error = begin_queue(queue, vq);
	return error ? ERR_PTR(error) : vq;
}

int vmsg_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
		  struct virtqueue *vqs[], VMSG_WANTED,
		  struct irq_affinity *affinity)
{
	struct vmsg_device *device = to_vmsg(vdev);
	unsigned int i, index = 0;

	/* With CONFIG_XEN_VIRTIO the virtio core has put others there. */
	vmsg_dma_start(device);
	for (i = 0; i < nvqs; i++) {
		vqs[i] = NULL;
		if (!VMSG_WANTED_NAME(i))
			continue;
		vqs[i] = new_queue(device, index++, VMSG_WANTED_CALLBACK(i),
				   VMSG_WANTED_NAME(i), VMSG_WANTED_CONTEXT(i));
		if (IS_ERR(vqs[i])) {
			int error = PTR_ERR(vqs[i]);

			vqs[i] = NULL;
			vmsg_del_vqs(vdev);
			return error;
		}
	}
	return 0;
}

/* The driver has reset the device. */
void vmsg_del_vqs(struct virtio_device *vdev)
{
	struct vmsg_device *device = to_vmsg(vdev);
	unsigned int i;

	for (i = 0; i < device->nqueues; i++)
		if (device->queues[i].vq)
			end_queue(&device->queues[i]);
	WRITE_ONCE(device->nqueues, 0);
}
