/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lies in memory that is shared with the backend: the ring and the
 * messages of virtio-msg, transport revision 1 (docs/binding.md).
 */
#ifndef VMSG_WIRE_H
#define VMSG_WIRE_H

#include <linux/build_bug.h>
#include <linux/types.h>

#define VMSG_BINDING_VERSION	1
#define VMSG_PAGE		4096
#define VMSG_MIN_MESSAGE	52
#define VMSG_MAX_MESSAGE	264
#define VMSG_RECORD_ALIGN	8

/* One direction of the ring. */
struct vmsg_ring_words {
	u32 cons;	/* bytes consumed, free running */
	u32 prod;	/* bytes produced, free running */
	u32 event;	/* consumer: "send an event when prod passes this" */
	u32 want_space;	/* producer: 1 = "send an event whenever cons moves" */
	u8 pad[48];
};

struct vmsg_ring_page {
	struct vmsg_ring_words in;	/* backend to frontend */
	struct vmsg_ring_words out;	/* frontend to backend */
	u32 ring_order;
	u32 ref[(VMSG_PAGE - 132) / 4];
};

static_assert(sizeof(struct vmsg_ring_page) == VMSG_PAGE);
static_assert(offsetof(struct vmsg_ring_page, out) == 64);
static_assert(offsetof(struct vmsg_ring_page, ring_order) == 128);
static_assert(offsetof(struct vmsg_ring_page, ref) == 132);

/* A page of the window's directory. */
#define VMSG_DIRECTORY_REFS	1023
struct vmsg_directory_page {
	__le32 next;	/* grant of the next one; 0: this is the last */
	__le32 ref[VMSG_DIRECTORY_REFS];
};

static_assert(sizeof(struct vmsg_directory_page) == VMSG_PAGE);

struct vmsg_header {
	u8 type;
#define VMSG_RESPONSE	0x01
#define VMSG_BUS	0x02
	u8 msg_id;
	__le16 dev_num;
	__le16 token;
	__le16 msg_size;
};

static_assert(sizeof(struct vmsg_header) == 8);

enum vmsg_id {
	VMSG_GET_DEVICE_INFO = 0x02,
	VMSG_GET_DEVICE_FEATURES = 0x03,
	VMSG_SET_DRIVER_FEATURES = 0x04,
	VMSG_GET_CONFIG = 0x05,
	VMSG_SET_CONFIG = 0x06,
	VMSG_SET_DEVICE_STATUS = 0x08,
	VMSG_GET_VQUEUE = 0x09,
	VMSG_SET_VQUEUE = 0x0a,
	VMSG_EVENT_CONFIG = 0x40,
	VMSG_EVENT_AVAIL = 0x41,
	VMSG_EVENT_USED = 0x42,
};

enum vmsg_bus_id {
	VMSG_BUS_GET_DEVICES = 0x02,
	VMSG_BUS_PING = 0x03,
	VMSG_BUS_EVENT_DEVICE = 0x40,
};

struct vmsg_device_info {
	__le32 device_id, vendor_id, num_feature_bits, config_size;
	__le32 max_virtqueues;
	__le16 admin_vq_start, admin_vq_count;
};

static_assert(sizeof(struct vmsg_device_info) == 24);

/* Features are two blocks of 32 bits: all that the virtio core knows. */
struct vmsg_features_request {
	__le32 block_index, num_blocks;
};

struct vmsg_features {
	__le32 block_index, num_blocks, blocks[2];
};

static_assert(sizeof(struct vmsg_features) == 16);

struct vmsg_config_request {
	__le32 offset, length;
};

struct vmsg_config {
	__le32 generation, offset, length;
	u8 data[];
};

static_assert(sizeof(struct vmsg_config) == 12);

struct vmsg_status {
	__le32 status;
};

struct vmsg_vqueue_request {
	__le32 index;
};

/* The answer of GET_VQUEUE. */
struct vmsg_vqueue {
	__le32 index, max_size, cur_size, reserved;
	__le64 desc, driver, device;
};

static_assert(sizeof(struct vmsg_vqueue) == 40);

struct vmsg_set_vqueue {
	__le32 index, reserved, size, reserved2;
	__le64 desc, driver, device;
};

static_assert(sizeof(struct vmsg_set_vqueue) == 40);

struct vmsg_event_config {
	__le32 device_status, generation, offset, length;
};

static_assert(sizeof(struct vmsg_event_config) == 16);

struct vmsg_event_avail {
	__le32 index, next_offset;
};

struct vmsg_event_used {
	__le32 index;
};

struct vmsg_get_devices {
	__le16 offset, count;
};

struct vmsg_devices {
	__le16 offset, count, next_offset;
	u8 bitmap[];
};

static_assert(offsetof(struct vmsg_devices, bitmap) == 6);

struct vmsg_event_device {
	__le16 device_number, state;
};

#define VMSG_DEVICE_READY		0x0001
#define VMSG_DEVICE_REMOVED		0x0002
#define VMSG_DEVICE_REMOVAL_ASKED	0x8000

struct vmsg_ping {
	__le32 data;
};

#endif
