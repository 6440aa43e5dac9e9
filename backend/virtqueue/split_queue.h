// SPDX-License-Identifier: Apache-2.0
// The device side of a split virtqueue (virtio 1.4, "Split Virtqueues"). Every descriptor range is
// checked here, by one checker, before a byte moves; a device sees only checked chains.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/window.h"

namespace vmsg::backend {

inline constexpr uint32_t kMaxQueueSize = 32768;  // virtio 1.4, split virtqueue

// What the driver programmed with SET_VQUEUE. Addresses are window offsets.
struct QueueLayout {
  uint32_t size = 0;  // a power of two, 1..kMaxQueueSize
  uint64_t desc = 0;
  uint64_t driver = 0;  // available ring
  uint64_t device = 0;  // used ring
};

struct QueueFeatures {
  bool event_idx = false;  // VIRTIO_F_EVENT_IDX
  bool indirect = false;   // VIRTIO_F_INDIRECT_DESC
};

// A checked descriptor chain: its buffers lie in the window and stay mapped until the chain is
// returned. The guest can change their bytes at any time.
struct DescriptorChain {
  uint16_t head = 0;
  grants::IoVector readable;  // device-readable (the driver's request), in order
  grants::IoVector writable;  // device-writable, in order, always after the readable ones
  uint64_t readable_bytes = 0;
  uint64_t writable_bytes = 0;
  struct Pin {
    uint64_t address;
    uint64_t size;
  };
  absl::InlinedVector<Pin, 8> pins;  // SplitQueue's own
  uint32_t generation = 0;           // SplitQueue's own
};

// Single-threaded. The window must outlive it.
class SplitQueue {
 public:
  // Pins the three areas (desc 16-byte, driver 2-byte, device 4-byte aligned; none at address 0;
  // not overlapping each other). InvalidArgument names the area, the value and the rule.
  static absl::StatusOr<std::unique_ptr<SplitQueue>> Create(grants::Window& window,
                                                            const QueueLayout& layout,
                                                            const QueueFeatures& features);
  ~SplitQueue();  // nothing may be in flight

  // The next available chain; nullopt when there is none. A chain that breaks a rule (loop, longer
  // than the queue, bad flags, nested or oversize indirect table, range outside the window, zero
  // length, readable after writable) is returned to the driver with used length 0 at once, counted
  // in broken_chains(), and the next one is taken: one bad chain never wedges the queue. DataLoss,
  // for good: the available index itself lies (more than size ahead, or gone back); the device
  // needs a reset.
  absl::StatusOr<std::optional<DescriptorChain>> Pop();

  // Gives a chain back exactly once, with the bytes written to its writable part. Visible to the
  // driver at Publish. After Stop nothing is written to the used ring.
  void Return(DescriptorChain&& chain, uint32_t written);

  // Makes returned chains visible; true when the driver wants to be told (EVENT_USED).
  [[nodiscard]] bool Publish();

  // Notifications from the driver: off while we look at the queue ourselves. Enable returns true
  // when chains became available meanwhile: Pop again.
  void DisableKicks();
  [[nodiscard]] bool EnableKicks();
  bool HasAvailable() const;

  // No more chains; `drained` runs when nothing is in flight any more (at once if nothing is).
  void Stop(absl::AnyInvocable<void()> drained);
  bool stopped() const;

  uint32_t in_flight() const;
  uint64_t broken_chains() const;
  // Text of the last broken chain, for a log line at a bounded rate.
  const absl::Status& last_broken() const;
  const QueueLayout& layout() const;
};

}  // namespace vmsg::backend
