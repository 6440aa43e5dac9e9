// SPDX-License-Identifier: Apache-2.0
// The driver's side of a split virtqueue (virtio 1.4, section "Split Virtqueues"). What the device
// writes is not trusted: the used ring is checked against what this side handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "frontend-model/memory/guest_memory.h"

namespace vmsg::frontend {

// One buffer of a request, in window addresses.
struct Buffer {
  uint64_t address = 0;
  uint32_t size = 0;
  bool device_writes = false;  // device-writable ones follow all device-readable ones
};

struct DriverQueueOptions {
  uint32_t size = 0;               // a power of two, 1..32768
  bool event_idx = false;          // VIRTIO_F_EVENT_IDX
  bool indirect = false;           // VIRTIO_F_INDIRECT_DESC
  uint32_t indirect_entries = 16;  // a chain of 2 to this many buffers takes one descriptor
};

// Not thread-safe. No call allocates except Create and Resume.
class DriverQueue {
 public:
  // Allocates the three areas, and tables if indirect, from `memory`, which must outlive the queue.
  static absl::StatusOr<std::unique_ptr<DriverQueue>> Create(GuestMemory& memory,
                                                             const DriverQueueOptions& options);

  uint32_t size() const { return size_; }
  uint64_t desc_address() const { return desc_block_.address(); }
  uint64_t driver_address() const { return avail_block_.address(); }
  uint64_t device_address() const { return used_block_.address(); }

  // Puts a chain into the ring; `cookie` comes back with it. False: too few free descriptors.
  // Nothing is shown to the device before Publish. InvalidArgument: no buffers, an empty one, more
  // than the queue's size, or a readable one after a writable one.
  absl::StatusOr<bool> Add(absl::Span<const Buffer> buffers, uint64_t cookie);

  // Shows the device what was added; true when it wants to be told (EVENT_AVAIL).
  [[nodiscard]] bool Publish();
  // What EVENT_AVAIL carries with VIRTIO_F_NOTIFICATION_DATA (virtio 1.4, section "Driver
  // Notifications"): for a split ring the offset is the low 15 bits of the available index, and the
  // wrap bit its bit 15.
  uint32_t notification_data() const {
    return (avail_idx_ & 0x7fffu) | static_cast<uint32_t>(avail_idx_ >> 15) << 31;
  }

  struct Completion {
    uint64_t cookie = 0;
    uint32_t written = 0;  // bytes, as the device says; at most the writable bytes of the chain
  };
  // The next chain the device has returned. DataLoss, for good: the used index moved by more than
  // what is in flight; an id that is no head in flight; more bytes written than were writable.
  absl::StatusOr<std::optional<Completion>> Pop();
  bool HasUsed() const;

  // Before sleeping: asks for EVENT_USED at the next chain. True: chains came meanwhile.
  bool EnableNotifications();
  // While polling: no EVENT_USED wanted.
  void DisableNotifications();

  uint32_t in_flight() const { return in_flight_; }
  uint32_t free_descriptors() const { return static_cast<uint32_t>(free_.size()); }
  // The device is reset, or gone with its bus, and another one is to go on with this queue
  // (docs/binding.md, section 7): what the old one has not returned is made available again, in the
  // order in which it was added, from the used index on. DataLoss, for good: what it did return
  // cannot be.
  absl::Status Resume();
  // Chains taken back so far: whether anything moves.
  uint64_t taken() const { return taken_; }

  // After a reset of the queue or the device nothing comes back any more: the cookies of what was
  // in flight.
  std::vector<uint64_t> AbandonInFlight();
  const absl::Status& broken() const { return broken_; }

 private:
  DriverQueue() = default;
  absl::Status CheckBuffers(absl::Span<const Buffer> buffers, uint64_t* writable) const;
  absl::Status Break(absl::Status reason);
  void Free(uint16_t head);

  // What this side knows of a chain, kept where the device cannot write.
  struct Chain {
    bool in_flight = false;
    uint64_t cookie = 0;
    uint64_t writable = 0;
    uint64_t order = 0;        // how many were added before
    uint16_t descriptors = 0;  // taken from the table, linked by next_ from the head on
  };

  uint32_t size_ = 0;
  bool event_idx_ = false;
  uint32_t indirect_entries_ = 0;  // 0: not negotiated
  GuestBlock desc_block_, avail_block_, used_block_, indirect_block_;
  std::vector<uint16_t> free_;
  std::vector<Chain> chains_;   // by head
  std::vector<uint16_t> next_;  // private links of a direct chain
  uint16_t avail_idx_ = 0;      // added
  uint16_t published_idx_ = 0;  // shown
  uint16_t used_idx_ = 0;       // taken
  uint32_t in_flight_ = 0;
  uint64_t added_ = 0;
  uint64_t taken_ = 0;
  absl::Status broken_;
};

}  // namespace vmsg::frontend
