// SPDX-License-Identifier: Apache-2.0
// The split virtqueue as it lies in memory (virtio 1.4, section "Split Virtqueues"): sizes, offsets
// and flag values only. The device's side and the driver's side are written apart from each other
// and share nothing but these numbers. All fields are little-endian.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vmsg::wire {

// Xen runs on little-endian processors only, so a field in shared memory is read as it is.
static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t kSplitRingMaxSize = 32768;  // entries; a power of two

// Descriptor area: `size` of these.
struct SplitDescriptor {
  uint64_t addr;   // offset into the window
  uint32_t len;    // bytes
  uint16_t flags;  // kDescriptorNext and so on
  uint16_t next;   // index of the next one, if kDescriptorNext is set
};
static_assert(sizeof(SplitDescriptor) == 16 && std::is_standard_layout_v<SplitDescriptor>);
static_assert(offsetof(SplitDescriptor, addr) == 0 && offsetof(SplitDescriptor, len) == 8 &&
              offsetof(SplitDescriptor, flags) == 12 && offsetof(SplitDescriptor, next) == 14);

inline constexpr uint16_t kDescriptorNext = 1;      // the chain goes on at `next`
inline constexpr uint16_t kDescriptorWrite = 2;     // device-writable; otherwise device-readable
inline constexpr uint16_t kDescriptorIndirect = 4;  // the buffer is a table of descriptors

// Driver area (available ring): le16 flags, le16 idx, le16 ring[size], le16 used_event. used_event
// is there only if VIRTIO_F_EVENT_IDX was negotiated.
inline constexpr uint64_t kAvailableFlagsOffset = 0;
inline constexpr uint64_t kAvailableIdxOffset = 2;
inline constexpr uint64_t kAvailableRingOffset = 4;
inline constexpr uint64_t kAvailableEntrySize = 2;
inline constexpr uint16_t kAvailableNoInterrupt = 1;  // flags: the driver wants no EVENT_USED

// Device area (used ring): le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event.
// avail_event is there only if VIRTIO_F_EVENT_IDX was negotiated.
inline constexpr uint64_t kUsedFlagsOffset = 0;
inline constexpr uint64_t kUsedIdxOffset = 2;
inline constexpr uint64_t kUsedRingOffset = 4;
inline constexpr uint16_t kUsedNoNotify = 1;  // flags: the device wants no EVENT_AVAIL

struct SplitUsedEntry {
  uint32_t id;   // head of the chain
  uint32_t len;  // bytes written to its device-writable part
};
inline constexpr uint64_t kUsedEntrySize = sizeof(SplitUsedEntry);
static_assert(kUsedEntrySize == 8 && offsetof(SplitUsedEntry, len) == 4);

inline constexpr uint64_t kDescriptorAreaAlignment = 16;
inline constexpr uint64_t kDriverAreaAlignment = 2;
inline constexpr uint64_t kDeviceAreaAlignment = 4;

// Offsets of the event words behind the rings.
constexpr uint64_t UsedEventOffset(uint32_t size) {
  return kAvailableRingOffset + kAvailableEntrySize * uint64_t{size};
}
constexpr uint64_t AvailableEventOffset(uint32_t size) {
  return kUsedRingOffset + kUsedEntrySize * uint64_t{size};
}

// Bytes of each area for a queue of `size` entries.
constexpr uint64_t DescriptorAreaSize(uint32_t size) {
  return sizeof(SplitDescriptor) * uint64_t{size};
}
constexpr uint64_t DriverAreaSize(uint32_t size, bool event_idx) {
  return UsedEventOffset(size) + (event_idx ? 2 : 0);
}
constexpr uint64_t DeviceAreaSize(uint32_t size, bool event_idx) {
  return AvailableEventOffset(size) + (event_idx ? 2 : 0);
}
static_assert(DescriptorAreaSize(256) == 4096 && DriverAreaSize(256, true) == 518 &&
              DeviceAreaSize(256, true) == 2054 && DriverAreaSize(256, false) == 516 &&
              DeviceAreaSize(256, false) == 2052);

}  // namespace vmsg::wire
