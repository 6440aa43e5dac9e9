// SPDX-License-Identifier: Apache-2.0
// The driver's side of a split virtqueue for tests: as blunt as the memory layout, so that a test
// can say exactly what is wrong. Shares only layout numbers with the code under test.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "backend/virtqueue/split_queue.h"
#include "tests/virtqueue/guest_memory.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::testing {

// One entry of a descriptor table, as a test writes it.
struct Desc {
  uint64_t address = 0;
  uint32_t length = 0;
  uint16_t flags = 0;
  uint16_t next = 0;
};

struct UsedEntry {
  uint32_t id;
  uint32_t len;
  friend bool operator==(const UsedEntry&, const UsedEntry&) = default;
};

class RingDriver {
 public:
  // Areas from `base` on, each page-aligned; base is not 0.
  RingDriver(GuestMemory& memory, uint32_t size, uint64_t base, bool event_idx = false)
      : memory_(&memory), size_(size), event_idx_(event_idx) {
    layout_.size = size;
    layout_.desc = base;
    layout_.driver = PageUp(base + wire::DescriptorAreaSize(size));
    layout_.device = PageUp(layout_.driver + wire::DriverAreaSize(size, true));
    end_ = PageUp(layout_.device + wire::DeviceAreaSize(size, true));
  }

  const backend::QueueLayout& layout() const { return layout_; }
  // First byte behind the areas.
  uint64_t end() const { return end_; }
  uint16_t avail_idx() const { return avail_idx_; }
  uint16_t used_seen() const { return used_seen_; }

  void WriteDesc(uint16_t index, const Desc& desc) { WriteTableEntry(layout_.desc, index, desc); }
  void WriteTableEntry(uint64_t table, uint16_t index, const Desc& desc) {
    const uint64_t at = table + 16 * uint64_t{index};
    memory_->Store<uint64_t>(at, desc.address);
    memory_->Store<uint64_t>(
        at + 8, uint64_t{desc.length} | uint64_t{desc.flags} << 32 | uint64_t{desc.next} << 48);
  }
  // Descriptors head, head + 1, ... linked into one chain.
  void WriteChain(uint16_t head, std::initializer_list<Desc> buffers) {
    uint16_t index = head;
    size_t left = buffers.size();
    for (Desc desc : buffers) {
      if (--left > 0) {
        desc.flags |= wire::kDescriptorNext;
        desc.next = index + 1;
      }
      WriteDesc(index++, desc);
    }
  }

  // Puts the head into the available ring; not visible before Expose.
  void Offer(uint16_t head) {
    memory_->Store<uint16_t>(
        layout_.driver + wire::kAvailableRingOffset + uint64_t{2} * (avail_idx_ & (size_ - 1)),
        head);
    ++avail_idx_;
  }
  void Expose() { ExposeIdx(avail_idx_); }
  void ExposeIdx(uint16_t idx) {
    memory_->Store<uint16_t>(layout_.driver + wire::kAvailableIdxOffset, idx,
                             std::memory_order_seq_cst);
  }
  void MakeAvailable(uint16_t head) {
    Offer(head);
    Expose();
  }

  // The next used entry, if the device published one.
  std::optional<UsedEntry> TakeUsed() {
    const auto idx =
        memory_->Load<uint16_t>(layout_.device + wire::kUsedIdxOffset, std::memory_order_acquire);
    if (idx == used_seen_) return std::nullopt;
    const uint64_t at =
        layout_.device + wire::kUsedRingOffset + uint64_t{8} * (used_seen_ & (size_ - 1));
    ++used_seen_;
    return UsedEntry{memory_->Load<uint32_t>(at), memory_->Load<uint32_t>(at + 4)};
  }
  std::vector<UsedEntry> TakeAllUsed() {
    std::vector<UsedEntry> all;
    while (std::optional<UsedEntry> entry = TakeUsed()) all.push_back(*entry);
    return all;
  }

  // Suppression, driver's words. Indices and wishes are sequentially consistent on both sides: each
  // writes one and then reads the other.
  void SetNoInterrupt(bool on) {
    memory_->Store<uint16_t>(layout_.driver, on ? 1 : 0, std::memory_order_seq_cst);
  }
  void SetUsedEvent(uint16_t event) {
    memory_->Store<uint16_t>(layout_.driver + wire::UsedEventOffset(size_), event,
                             std::memory_order_seq_cst);
  }
  // Suppression, device's words.
  uint16_t used_flags() {
    return memory_->Load<uint16_t>(layout_.device, std::memory_order_seq_cst);
  }
  uint16_t avail_event() {
    return memory_->Load<uint16_t>(layout_.device + wire::AvailableEventOffset(size_),
                                   std::memory_order_seq_cst);
  }
  // Whether a driver that moved its index from `before` to `now` must notify.
  bool MustKick(uint16_t before, uint16_t now) {
    if (!event_idx_) return (used_flags() & 1) == 0;
    const uint16_t event = avail_event();
    return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
  }

 private:
  static uint64_t PageUp(uint64_t address) { return (address + 4095) / 4096 * 4096; }

  GuestMemory* memory_;
  uint32_t size_;
  bool event_idx_;
  backend::QueueLayout layout_;
  uint64_t end_ = 0;
  uint16_t avail_idx_ = 0;
  uint16_t used_seen_ = 0;
};

inline constexpr uint16_t kWrite = wire::kDescriptorWrite;
inline constexpr uint16_t kNext = wire::kDescriptorNext;
inline constexpr uint16_t kIndirect = wire::kDescriptorIndirect;

}  // namespace vmsg::testing
