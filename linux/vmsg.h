/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the driver, from below: pages that are granted (vmsg_share.c),
 * the window of all buffers (vmsg_window.c, vmsg_dma.c), the ring and its
 * requests (vmsg_ring.c), the connection (vmsg_bus.c, vmsg_suspend.c), the
 * devices on it (vmsg_hotplug.c, vmsg_transport.c, vmsg_config.c,
 * vmsg_queues.c, vmsg_inflight.c, vmsg_resume.c).
 *
 * Nothing that the backend can write is used before it was copied and bounded.
 */
#ifndef VMSG_H
#define VMSG_H

#include <linux/completion.h>
#include <linux/device.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <xen/grant_table.h>
#include <xen/xenbus.h>

#include "vmsg_compat.h"
#include "vmsg_wire.h"

#define VMSG_MAX_QUEUES		256	/* of a device */
#define VMSG_MAX_QUEUE_SIZE	1024
#define VMSG_MAX_CONFIG		4096
#define VMSG_DEVICE_NUMBERS	65536

/* Pages that are, or can be, granted to the backend. */
struct vmsg_share {
	void *base;
	unsigned int pages;
	grant_ref_t *refs;
	bool granted;
};

int vmsg_share_alloc(struct vmsg_share *share, unsigned int pages);
void vmsg_share_free(struct vmsg_share *share);
int vmsg_share_grant(struct vmsg_share *share, domid_t domain);
void vmsg_share_end(struct vmsg_share *share);
bool vmsg_share_try_end(struct vmsg_share *share);

/* Where all rings and buffers lie; addresses of devices are offsets into it. */
struct vmsg_window {
	struct vmsg_share pages, directory;
	spinlock_t lock;	/* of all below */
	unsigned long *used;	/* a bit for each unit */
	unsigned long units;
	unsigned long large_hint;
	phys_addr_t *origin;	/* of each unit: what is bounced there */
};

int vmsg_window_alloc(struct vmsg_window *window, unsigned int pages);
void vmsg_window_free(struct vmsg_window *window);
int vmsg_window_grant(struct vmsg_window *window, domid_t domain);
void vmsg_window_end(struct vmsg_window *window);
bool vmsg_window_try_end(struct vmsg_window *window);
/* An offset into the window, DMA_MAPPING_ERROR when there is no room. */
dma_addr_t vmsg_window_take(struct vmsg_window *window, size_t size,
			    phys_addr_t origin);
void vmsg_window_give(struct vmsg_window *window, dma_addr_t at, size_t size);
/* What is bounced at this offset, and where; NULL: nothing is. */
void *vmsg_window_bounced(struct vmsg_window *window, dma_addr_t at,
			  size_t size, phys_addr_t *origin);
/* size bytes at an offset that may be a lie; NULL: not in the window. */
void *vmsg_window_bytes(struct vmsg_window *window, u64 at, u64 size);

struct vmsg_bus {
	struct kref ref;
	struct xenbus_device *xdev;
	struct vmsg_window window;
	struct vmsg_share ring_page, ring_data;
	struct workqueue_struct *devices_wq;	/* adds and removes devices */
	struct workqueue_struct *link_wq;	/* what must not wait for them */

	/* The connection: written by the holder of link_mutex. */
	struct mutex link_mutex;
	enum vmsg_phase {
		VMSG_IDLE,		/* waits for an offer */
		VMSG_ASKING,		/* state 3 */
		VMSG_CONNECTED,		/* state 4 */
		VMSG_ENDING,		/* waits until nothing is mapped */
		VMSG_GIVEN_UP,		/* there will be none */
	} phase;
	bool removing;
	bool suspended;		/* until the guest runs on, or was restored */
	unsigned int refusals;	/* since it was connected */
	bool resumable;		/* queues go on with the next connection */
	struct device *link;	/* vmsg_suspend.c */
	struct xenbus_watch backend_watch;
	struct delayed_work find_backend;
	evtchn_port_t port;
	int irq;
	u32 message_size;
	u32 ring_order;

	spinlock_t lock;	/* of the ring's out half, calls, up, epoch */
	bool up;		/* messages may be sent */
	u32 epoch;		/* counts connections */
	bool event_idx;
	u32 out_prod, out_cons;
	bool want_space, avail_waiting;
	u16 next_token;
	struct list_head calls;
	wait_queue_head_t space, changed;

	/* The ring's in half: the interrupt handler, or `more` in its place. */
	u32 in_prod, in_cons;
	u32 half;		/* bytes of a direction */
	struct work_struct more;
	bool quiet;		/* `more` is not to be queued */
	u8 record[VMSG_MAX_MESSAGE] __aligned(8);
	bool broken;
	struct work_struct broken_work;

	/* Devices, by number. Changed by devices_wq only. */
	struct xarray devices;
	unsigned int ndevices;
	unsigned long *ready, *asked;	/* a bit for each number */
	bool look_at_all;
	struct delayed_work devices_work;
	struct work_struct link_work;
};

void vmsg_bus_put(struct vmsg_bus *bus);
/* The backend broke a rule: any context. */
void vmsg_bus_broken(struct vmsg_bus *bus, const char *what, u32 value,
		     u32 limit);
/* link_mutex is held: what the backend's state asks for. */
void vmsg_bus_follow(struct vmsg_bus *bus, enum xenbus_state state);
void vmsg_bus_end_grants(struct vmsg_bus *bus);
/* Its devices end; only unbinding the bus and binding it again brings them. */
void vmsg_bus_give_up(struct vmsg_bus *bus);

/* vmsg_suspend.c */
enum xenbus_state vmsg_backend_state(struct vmsg_bus *bus);
int vmsg_suspend_init(struct vmsg_bus *bus);
void vmsg_suspend_exit(struct vmsg_bus *bus);

/* vmsg_ring.c */
int vmsg_ring_alloc(struct vmsg_bus *bus, u32 order);
void vmsg_ring_free(struct vmsg_bus *bus);
int vmsg_ring_start(struct vmsg_bus *bus, domid_t domain);
void vmsg_ring_up(struct vmsg_bus *bus);
void vmsg_ring_down(struct vmsg_bus *bus);	/* says and hears nothing */
void vmsg_ring_end(struct vmsg_bus *bus);	/* and is granted to nobody */
void vmsg_ring_init(struct vmsg_bus *bus);
/*
 * bus->lock is held. -EAGAIN: there is no room, and the handler runs when
 * there is; -ENOTCONN.
 */
int vmsg_push(struct vmsg_bus *bus, const void *message, u32 size);

/* vmsg_messages.c */
struct vmsg_call {
	u8 type;	/* 0 or VMSG_BUS */
	u8 msg_id;
	u16 device;
	const void *request;
	size_t request_size;
	void *response;
	size_t response_min, response_max;
};

/*
 * Sends a request and waits for its response: its size, -ENOTCONN when the
 * connection `epoch` is over, -ENODEV when the device is, -EBADMSG when it
 * is too short.
 */
int vmsg_call(struct vmsg_bus *bus, u32 epoch, const struct vmsg_call *call);
void vmsg_abort_calls(struct vmsg_bus *bus, u16 device);
void vmsg_end_calls(struct vmsg_bus *bus, int result);
/* bus->record, of `size` bytes, which were checked to be there. */
void vmsg_take_record(struct vmsg_bus *bus, u32 size);
void vmsg_send_waiting_avails(struct vmsg_bus *bus);

struct vmsg_queue {
	struct vmsg_device *device;
	struct virtqueue *vq;	/* NULL: there is none (RCU) */
	struct vring vring;
	u16 index;
	bool set;		/* the device has it */
	bool avail_waiting;	/* EVENT_AVAIL, under bus->lock */

	/* What is in flight, seen from below (vmsg_inflight.c). */
	spinlock_t look;
	u16 seen_avail, seen_used;
	u16 in_flight;
	u16 used_at_reset;
	bool contradiction;
	u64 *since;		/* of each head: when made available, or 0 */
	u64 next_since;
	u16 *order;
};

struct vmsg_device {
	struct device dev;	/* parent of the virtio device; does its DMA */
	u64 dma_mask;
	struct virtio_device vdev;
	struct vmsg_bus *bus;
	u16 number;
	u32 config_size, max_queues;
	bool registered, told;	/* devices_wq only */
	bool listening;		/* the virtio core may be called */
	bool gone;		/* the backend has it no more */
	bool removed;		/* EVENT_DEVICE said so */
	bool wants_reset;	/* DEVICE_NEEDS_RESET */

	/* Of what follows, and of requests; held while the device resumes. */
	struct mutex lock;
	u32 epoch;		/* the connection that it is set up on */
	u32 status;		/* what the device was told and has accepted */
	u64 features;
	bool features_set;
	bool was_reset;		/* by its own wish, on this connection */
	u8 *config;
	unsigned long *config_written;
	u32 generation;
	bool config_valid;
	u32 config_changes;	/* counts EVENT_CONFIG */
	struct vmsg_queue *queues;
	unsigned int nqueues;
	struct work_struct stand_in;
};

static inline struct vmsg_device *to_vmsg(struct virtio_device *vdev)
{
	return container_of(vdev, struct vmsg_device, vdev);
}

extern const struct virtio_config_ops vmsg_config_ops;

/* vmsg_dma.c: its buffers are in the bus's window, from now on. */
void vmsg_dma_start(struct vmsg_device *device);

/* vmsg_messages.c: never waits; kept until there is room for it. */
void vmsg_send_avail(struct vmsg_queue *queue);

/* vmsg_transport.c */
int vmsg_device_call(struct vmsg_device *device, u32 epoch, u8 msg_id,
		     const void *request, size_t request_size, void *response,
		     size_t response_size);
int vmsg_enter(struct vmsg_device *device);	/* 0: the lock is held */
void vmsg_leave(struct vmsg_device *device);
/* With the lock held. */
int vmsg_tell_status(struct vmsg_device *device, u32 epoch, u32 status);
int vmsg_ask_features(struct vmsg_device *device, u32 epoch, u64 *features);
int vmsg_tell_features(struct vmsg_device *device, u32 epoch, u64 features);

/* vmsg_config.c */
void vmsg_config_get(struct virtio_device *vdev, unsigned int offset,
		     void *bytes, unsigned int size);
void vmsg_config_set(struct virtio_device *vdev, unsigned int offset,
		     const void *bytes, unsigned int size);
u32 vmsg_config_generation(struct virtio_device *vdev);
void vmsg_config_event(struct vmsg_device *device, u32 status);
int vmsg_config_again(struct vmsg_device *device, u32 epoch);

/* vmsg_resume.c */
int vmsg_device_resume(struct vmsg_device *device, u32 epoch);

/* vmsg_queues.c */
int vmsg_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
		  struct virtqueue *vqs[], VMSG_WANTED,
		  struct irq_affinity *affinity);
void vmsg_del_vqs(struct virtio_device *vdev);
int vmsg_queue_set(struct vmsg_queue *queue, u32 epoch);
/* EVENT_USED. */
void vmsg_queue_used(struct vmsg_device *device, u32 index);

/* vmsg_inflight.c */
int vmsg_inflight_start(struct vmsg_queue *queue);
void vmsg_inflight_end(struct vmsg_queue *queue);
void vmsg_inflight_look(struct vmsg_queue *queue);
int vmsg_inflight_again(struct vmsg_queue *queue);
void vmsg_stand_in(struct work_struct *work);
void vmsg_call_stand_in(struct vmsg_device *device);

/* vmsg_hotplug.c */
void vmsg_devices_work(struct work_struct *work);
void vmsg_link_work(struct work_struct *work);
void vmsg_device_event(struct vmsg_bus *bus, u16 number, u16 state);
void vmsg_look_at_devices(struct vmsg_bus *bus);
void vmsg_device_gone(struct vmsg_device *device);
void vmsg_devices_gone(struct vmsg_bus *bus);

#endif
