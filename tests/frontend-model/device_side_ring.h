// SPDX-License-Identifier: Apache-2.0
// The device's side of a split virtqueue for tests, written from the specification alone: plain
// byte offsets, no code of either product side.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "frontend-model/queue/driver_queue.h"

namespace vmsg::frontend {

class DeviceSideRing {
 public:
  struct Piece {
    uint64_t address;
    uint32_t size;
    uint16_t flags;
  };
  struct Chain {
    uint16_t head;
    std::vector<Piece> pieces;
    bool indirect = false;
  };

  DeviceSideRing(const GuestMemory& memory, uint32_t size, uint64_t desc, uint64_t driver,
                 uint64_t device, bool event_idx)
      : memory_(memory), size_(size), event_idx_(event_idx) {
    desc_ = memory.At(desc, 16 * size);
    driver_ = memory.At(driver, 6 + 2 * size);
    device_ = memory.At(device, 6 + 8 * size);
    // As with feature-queue-resume; 0 in a new ring.
    last_available_ = used_ = Load16(device_ + 2);
  }
  DeviceSideRing(const GuestMemory& memory, const DriverQueue& queue, bool event_idx)
      : DeviceSideRing(memory, queue.size(), queue.desc_address(), queue.driver_address(),
                       queue.device_address(), event_idx) {}

  uint16_t available_index() const { return Load16(driver_ + 2, std::memory_order_seq_cst); }
  bool HasAvailable() const { return available_index() != last_available_; }

  Chain Take() {
    Chain chain;
    chain.head = Load16(driver_ + 4 + 2 * (last_available_ % size_));
    ++last_available_;
    const std::byte* table = desc_;
    uint16_t index = chain.head;
    for (uint32_t i = 0; i <= size_; ++i) {
      uint64_t address;
      uint32_t size;
      uint16_t flags, next;
      std::memcpy(&address, table + 16 * index, 8);
      std::memcpy(&size, table + 16 * index + 8, 4);
      std::memcpy(&flags, table + 16 * index + 12, 2);
      std::memcpy(&next, table + 16 * index + 14, 2);
      if ((flags & 4) != 0) {
        table = memory_.At(address, size);
        chain.indirect = true;
        index = 0;
        continue;
      }
      chain.pieces.push_back({address, size, flags});
      if ((flags & 1) == 0) break;
      index = next;
    }
    return chain;
  }

  // Returns a chain and publishes; true when the driver asked to be told.
  bool Return(uint32_t id, uint32_t written) {
    const uint16_t before = used_;
    std::memcpy(device_ + 4 + 8 * (used_ % size_), &id, 4);
    std::memcpy(device_ + 4 + 8 * (used_ % size_) + 4, &written, 4);
    ++used_;
    SetUsedIndex(used_);
    if (!event_idx_) return (Load16(driver_, std::memory_order_seq_cst) & 1) == 0;
    const uint16_t event = Load16(driver_ + 4 + 2 * size_, std::memory_order_seq_cst);
    return static_cast<uint16_t>(used_ - event - 1) < static_cast<uint16_t>(used_ - before);
  }
  void SetUsedIndex(uint16_t index) { Store16(device_ + 2, index, std::memory_order_seq_cst); }

  // Asks to be told about the next available chain; true: there is one already.
  bool AskForKick() {
    if (event_idx_) {
      Store16(device_ + 4 + 8 * size_, last_available_, std::memory_order_seq_cst);
    } else {
      Store16(device_, 0, std::memory_order_seq_cst);
    }
    return HasAvailable();
  }
  void RefuseKicks() { Store16(device_, 1, std::memory_order_relaxed); }
  std::byte* Data(const Piece& piece) const { return memory_.At(piece.address, piece.size); }

 private:
  static uint16_t Load16(const std::byte* at, std::memory_order order = std::memory_order_relaxed) {
    return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(const_cast<std::byte*>(at)))
        .load(order);
  }
  static void Store16(std::byte* at, uint16_t value, std::memory_order order) {
    std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(at)).store(value, order);
  }

  const GuestMemory& memory_;
  const uint32_t size_;
  const bool event_idx_;
  std::byte *desc_, *driver_, *device_;
  uint16_t last_available_ = 0;
  uint16_t used_ = 0;
};

}  // namespace vmsg::frontend
