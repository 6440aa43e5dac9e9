// SPDX-License-Identifier: Apache-2.0
// Every message of the transport and of the bus in host form: what a message says, not how it lies
// on the wire. The wire layout is a property of the connection's Profile (message_table.h), so
// these structs are the same for every profile. Sections "Transport Messages" and "Bus Messages" of
// the virtio-msg transport (PATCH v1, January 2026); WindowExtend/WindowWithdraw are this bus's own
// (docs/binding.md). Variable parts are views into the record they were parsed from, or into the
// caller's memory when encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmsg::wire {

// Bit 8 marks a bus message, the low byte is msg_id as on the wire.
enum class MessageId : uint16_t {
  kGetDeviceInfo = 0x002,
  kGetDeviceFeatures = 0x003,
  kSetDriverFeatures = 0x004,
  kGetConfig = 0x005,
  kSetConfig = 0x006,
  kGetDeviceStatus = 0x007,
  kSetDeviceStatus = 0x008,
  kGetVqueue = 0x009,
  kSetVqueue = 0x00a,
  kResetVqueue = 0x00b,
  kGetShm = 0x00c,
  kEventConfig = 0x040,
  kEventAvail = 0x041,
  kEventUsed = 0x042,
  kGetDevices = 0x102,
  kPing = 0x103,
  kEventDevice = 0x140,
  kWindowExtend = 0x180,
  kWindowWithdraw = 0x181,
};

// 32-bit little-endian words, unaligned: feature blocks.
class WordView {
 public:
  WordView() = default;
  explicit WordView(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t size() const { return bytes_.size() / 4; }
  uint32_t operator[](size_t i) const {
    const std::byte* p = bytes_.data() + 4 * i;
    return std::to_integer<uint32_t>(p[0]) | std::to_integer<uint32_t>(p[1]) << 8 |
           std::to_integer<uint32_t>(p[2]) << 16 | std::to_integer<uint32_t>(p[3]) << 24;
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};
using ByteView = std::span<const std::byte>;

struct GetDeviceInfoRequest {};
struct GetDeviceInfoResponse {
  uint32_t device_id, vendor_id, num_feature_bits, config_size, max_virtqueues;
  uint16_t admin_vq_start, admin_vq_count;
};

struct GetDeviceFeaturesRequest {
  uint32_t block_index, num_blocks;
};
struct GetDeviceFeaturesResponse {
  uint32_t block_index, num_blocks;
  WordView features;
};

struct SetDriverFeaturesRequest {
  uint32_t block_index, num_blocks;
  WordView features;
};
struct SetDriverFeaturesResponse {};

struct GetConfigRequest {
  uint32_t offset, length;
};
struct GetConfigResponse {
  uint32_t generation, offset, length;
  ByteView data;
};

struct SetConfigRequest {
  uint32_t generation, offset, length;
  ByteView data;
};
struct SetConfigResponse {
  uint32_t generation, offset, length;
  ByteView data;
};  // length 0: rejected

struct GetDeviceStatusRequest {};
struct GetDeviceStatusResponse {
  uint32_t status;
};

struct SetDeviceStatusRequest {
  uint32_t status;
};
struct SetDeviceStatusResponse {
  uint32_t status;
};

struct GetVqueueRequest {
  uint32_t index;
};
struct GetVqueueResponse {
  uint32_t index, max_size, cur_size;
  uint64_t desc_addr, driver_addr, device_addr;
};

struct SetVqueueRequest {
  uint32_t index, size;
  uint64_t desc_addr, driver_addr, device_addr;
};
struct SetVqueueResponse {};

struct ResetVqueueRequest {
  uint32_t index;
};
struct ResetVqueueResponse {};

struct GetShmRequest {
  uint32_t index;
};
struct GetShmResponse {
  uint32_t index, length, address;
};

struct EventConfig {
  uint32_t device_status, generation, offset, length;
  ByteView data;
};
struct EventAvail {
  uint32_t vq_index, next_offset;
};  // next_offset: bits 0-30 offset, bit 31 wrap
struct EventUsed {
  uint32_t vq_index;
};

struct GetDevicesRequest {
  uint16_t offset, count;
};
struct GetDevicesResponse {
  uint16_t offset, count, next_offset;
  ByteView bitmap;
};

struct PingRequest {
  uint32_t data;
};
struct PingResponse {
  uint32_t data;
};

inline constexpr uint16_t kDeviceReady = 0x0001;
inline constexpr uint16_t kDeviceRemoved = 0x0002;
// Ours: the administrator asked for the removal; the driver quiesces and resets the device, REMOVED
// follows.
inline constexpr uint16_t kDeviceRemovalRequested = 0x8000;
struct EventDevice {
  uint16_t device_number, device_bus_state;
};

// What a window request came to.
enum class WindowResult : uint32_t {
  kOk = 0,
  kInvalid = 1,
  kLimit = 2,
  kMapFailed = 3,
  kInUse = 4,
  kNotFound = 5
};

// 0x80, frontend to backend: add `pages` pages, listed by the directory that starts at
// directory_ref, to the end of the window.
struct WindowExtendRequest {
  uint32_t directory_ref, pages;
};
struct WindowExtendResponse {
  uint32_t result, first_page;
};

// 0x81, frontend to backend: take the extension (or the initial directory) that is exactly
// [first_page, first_page + pages) out of the window. Answered when the pages are unmapped. kInUse:
// a virtqueue area lies in it.
struct WindowWithdrawRequest {
  uint32_t first_page, pages;
};
struct WindowWithdrawResponse {
  uint32_t result;
};

}  // namespace vmsg::wire
