// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages: requests that wait for their responses, notifications that never
 * wait, and what becomes of a record that came in.
 */
#include <linux/slab.h>

#include "vmsg.h"

/* --- requests */

struct waiting_call {
	struct list_head list;
	const struct vmsg_call *call;
	u16 token;
	int result;
	struct completion done;
};

static struct waiting_call *find_call(struct vmsg_bus *bus, u16 token)
{
	struct waiting_call *waiting;

	list_for_each_entry(waiting, &bus->calls, list)
		if (waiting->token == token)
			return waiting;
	return NULL;
}

static int begin_call(struct vmsg_bus *bus, u32 epoch,
		      struct waiting_call *waiting)
{
	const struct vmsg_call *call = waiting->call;
	u32 size = sizeof(struct vmsg_header) + call->request_size;
	u8 message[VMSG_MAX_MESSAGE];
	struct vmsg_header header = {
		.type = call->type,
		.msg_id = call->msg_id,
		.dev_num = cpu_to_le16(call->device),
		.msg_size = cpu_to_le16(size),
	};
	unsigned long flags;
	int error = -ENOTCONN;

	if (WARN_ON_ONCE(size > sizeof(message)))
		return -EINVAL;
	memcpy(message + sizeof(header), call->request, call->request_size);
	spin_lock_irqsave(&bus->lock, flags);
	if (epoch == bus->epoch) {
		while (find_call(bus, bus->next_token))
			bus->next_token++;
		waiting->token = bus->next_token;
		header.token = cpu_to_le16(waiting->token);
		memcpy(message, &header, sizeof(header));
		error = size > bus->message_size ? -EMSGSIZE :
			vmsg_push(bus, message, size);
		if (!error) {
			bus->next_token++;
			list_add_tail(&waiting->list, &bus->calls);
		}
	}
	spin_unlock_irqrestore(&bus->lock, flags);
	return error;
}

int vmsg_call(struct vmsg_bus *bus, u32 epoch, const struct vmsg_call *call)
{
	struct waiting_call waiting = { .call = call };
	int error;

	init_completion(&waiting.done);
	/* A token is free: there are fewer tasks than tokens. */
	wait_event(bus->space,
		   (error = begin_call(bus, epoch, &waiting)) != -EAGAIN);
	if (error)
		return error;
	/*
	 * As long as it takes: a reset's answer waits for the storage. It
	 * ends with the device, and with the connection.
	 */
	wait_for_completion(&waiting.done);
	return waiting.result;
}

static void end_call(struct waiting_call *waiting, int result)
{
	list_del(&waiting->list);
	waiting->result = result;
	complete(&waiting->done);
}

/* bus->lock is held. */
void vmsg_end_calls(struct vmsg_bus *bus, int result)
{
	struct waiting_call *waiting, *next;

	list_for_each_entry_safe(waiting, next, &bus->calls, list)
		end_call(waiting, result);
}

void vmsg_abort_calls(struct vmsg_bus *bus, u16 device)
{
	struct waiting_call *waiting, *next;
	unsigned long flags;

	spin_lock_irqsave(&bus->lock, flags);
	list_for_each_entry_safe(waiting, next, &bus->calls, list)
		if (!(waiting->call->type & VMSG_BUS) &&
		    waiting->call->device == device)
			end_call(waiting, -ENODEV);
	spin_unlock_irqrestore(&bus->lock, flags);
}

static void take_response(struct vmsg_bus *bus, const struct vmsg_header *header,
			  const void *payload, u32 size)
{
	struct waiting_call *waiting;
	const struct vmsg_call *call;

	spin_lock(&bus->lock);
	waiting = find_call(bus, le16_to_cpu(header->token));
	call = waiting ? waiting->call : NULL;
	if (call && call->msg_id == header->msg_id &&
	    call->type == (header->type & VMSG_BUS) &&
	    call->device == le16_to_cpu(header->dev_num)) {
		size = min_t(u32, size, call->response_max);
		memcpy(call->response, payload, size);
		end_call(waiting, size < call->response_min ? -EBADMSG : size);
	}
	spin_unlock(&bus->lock);
}

/* --- notifications */

static int push_avail(struct vmsg_queue *queue)
{
	struct {
		struct vmsg_header header;
		struct vmsg_event_avail event;
	} message = {
		.header.msg_id = VMSG_EVENT_AVAIL,
		.header.dev_num = cpu_to_le16(queue->device->number),
		.header.msg_size = cpu_to_le16(sizeof(message)),
		.event.index = cpu_to_le32(queue->index),
	};

	return vmsg_push(queue->device->bus, &message, sizeof(message));
}

void vmsg_send_avail(struct vmsg_queue *queue)
{
	struct vmsg_bus *bus = queue->device->bus;
	unsigned long flags;

	spin_lock_irqsave(&bus->lock, flags);
	/* Otherwise it is sent when the device goes on. */
	if (READ_ONCE(queue->device->epoch) == bus->epoch && bus->up &&
	    !queue->avail_waiting && push_avail(queue) == -EAGAIN) {
		queue->avail_waiting = true;
		bus->avail_waiting = true;
	}
	spin_unlock_irqrestore(&bus->lock, flags);
}

void vmsg_send_waiting_avails(struct vmsg_bus *bus)
{
	struct vmsg_device *device;
	unsigned long number;
	unsigned int i;

	spin_lock(&bus->lock);
	bus->avail_waiting = false;
	xa_for_each(&bus->devices, number, device) {
		for (i = 0; i < READ_ONCE(device->nqueues); i++) {
			struct vmsg_queue *queue = &device->queues[i];

			if (!queue->avail_waiting)
				continue;
			if (push_avail(queue) == -EAGAIN) {
				bus->avail_waiting = true;
				goto out;
			}
			queue->avail_waiting = false;
		}
	}
out:
	spin_unlock(&bus->lock);
}

/* --- from the backend: interrupts are off, and RCU is read */

static void answer_ping(struct vmsg_bus *bus, const struct vmsg_header *header,
			const struct vmsg_ping *ping)
{
	struct {
		struct vmsg_header header;
		struct vmsg_ping ping;
	} message = { .header = *header, .ping = *ping };

	message.header.type |= VMSG_RESPONSE;
	message.header.msg_size = cpu_to_le16(sizeof(message));
	/* One that finds no room has no answer. */
	spin_lock(&bus->lock);
	vmsg_push(bus, &message, sizeof(message));
	spin_unlock(&bus->lock);
}

static void take_bus_record(struct vmsg_bus *bus,
			    const struct vmsg_header *header,
			    const void *payload, u32 size)
{
	const struct vmsg_event_device *event = payload;

	if (header->msg_id == VMSG_BUS_EVENT_DEVICE && size >= sizeof(*event))
		vmsg_device_event(bus, le16_to_cpu(event->device_number),
				  le16_to_cpu(event->state));
	else if (header->msg_id == VMSG_BUS_PING &&
		 size >= sizeof(struct vmsg_ping))
		answer_ping(bus, header, payload);
}

void vmsg_take_record(struct vmsg_bus *bus, u32 size)
{
	const struct vmsg_header *header = (const void *)bus->record;
	const void *payload = header + 1;
	struct vmsg_device *device;

	size -= sizeof(*header);
	if (header->type & VMSG_RESPONSE) {
		take_response(bus, header, payload, size);
		return;
	}
	if (header->type & VMSG_BUS) {
		take_bus_record(bus, header, payload, size);
		return;
	}
	device = xa_load(&bus->devices, le16_to_cpu(header->dev_num));
	if (!device)
		return;
	if (header->msg_id == VMSG_EVENT_USED &&
	    size >= sizeof(struct vmsg_event_used))
		vmsg_queue_used(device, le32_to_cpu(*(const __le32 *)payload));
	else if (header->msg_id == VMSG_EVENT_CONFIG &&
		 size >= sizeof(struct vmsg_event_config))
		vmsg_config_event(device, le32_to_cpu(*(const __le32 *)payload));
}
