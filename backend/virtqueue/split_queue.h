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
  bool resume = false;     // feature-queue-resume of the bus
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
  uint32_t generation = 0;           // SplitQueue's own: which queue it came from
};

struct Descriptor;  // descriptor.h

// Single-threaded. The window must outlive it.
//
// Choices where the specification leaves room:
// - A descriptor chain has at most `size` buffers, those of an indirect table included, and at most
//   2^32 bytes. An indirect table may cross window segments and has no alignment.
// - Buffers are cut into pieces where window segments meet. Buffers that do not overlap meet each
//   such place once, so a chain has at most `size` + kMaxWindowSegments pieces.
// - A head that is not a descriptor (>= size) names nothing that could be returned, and a head that
//   is in flight already will be returned once as it is: both count as broken chains, and nothing
//   is written to the used ring for them.
// - Pop skips at most kMaxBrokenPerPop broken chains and then returns nullopt although
//   HasAvailable() holds, so that a queue full of garbage costs its own turn only.
// What a guest can make this allocate is bounded by size^2 buffers (each of `size` chains through
// an indirect table of `size` entries) and as many pieces: a device bounds it with the queue size
// it offers.
class SplitQueue {
 public:
  static constexpr uint32_t kMaxBrokenPerPop = 16;

  // Pins the three areas (desc 16-byte, driver 2-byte, device 4-byte aligned; none at address 0;
  // not overlapping each other). A ring that was in use, by its used index, goes on there if
  // features.resume: what was taken from it and not published is made available again by the
  // driver. Without it such a ring is refused. InvalidArgument names the area, the value and the
  // rule.
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

  // Makes returned chains visible; true when the driver wants to be told (EVENT_USED), and the
  // first time after a resume: the queue's last publication before it may not have been announced,
  // and the driver's wish is one for that.
  [[nodiscard]] bool Publish();

  // Notifications from the driver: off while we look at the queue ourselves. Enable returns true
  // when chains became available meanwhile: Pop again.
  void DisableKicks();
  [[nodiscard]] bool EnableKicks();
  bool HasAvailable() const;

  // No more chains; `drained` runs when nothing is in flight any more (at once if nothing is).
  void Stop(absl::AnyInvocable<void()> drained);
  bool stopped() const { return stopped_; }

  uint32_t in_flight() const { return in_flight_; }
  uint64_t broken_chains() const { return broken_chains_; }
  // Text of the last broken chain, for a log line at a bounded rate.
  const absl::Status& last_broken() const { return last_broken_; }
  const QueueLayout& layout() const { return layout_; }

  SplitQueue(const SplitQueue&) = delete;
  SplitQueue& operator=(const SplitQueue&) = delete;

 private:
  SplitQueue(grants::Window& window, const QueueLayout& layout, const QueueFeatures& features);

  // Where both indexes start: 0, or what the used ring says.
  absl::Status StartCursors();
  // Reads the available index when all that was seen is consumed. False: nothing new.
  absl::StatusOr<bool> Refresh();
  // Walks the chain of `head` into `chain`, pinning as it goes.
  absl::Status Walk(uint16_t head, DescriptorChain* chain);
  absl::Status WalkIndirect(const Descriptor& table, uint32_t* buffers, DescriptorChain* chain);
  absl::Status WalkTable(const grants::IoVector& pieces, uint32_t entries, uint32_t* buffers,
                         DescriptorChain* chain);
  absl::Status AddBuffer(const Descriptor& buffer, uint32_t* buffers, DescriptorChain* chain);
  void NoteBroken(absl::Status why);
  void PutUsed(uint16_t head, uint32_t written);
  void UnpinAll(DescriptorChain& chain);
  DescriptorChain TakeSpare();
  void Recycle(DescriptorChain&& chain);
  bool TestAndSetInFlight(uint16_t head);
  bool TestAndClearInFlight(uint16_t head);
  uint16_t AvailIdx() const;

  grants::Window& window_;
  const QueueLayout layout_;
  const QueueFeatures features_;
  const uint32_t generation_;
  grants::GuestArea desc_;
  grants::GuestArea avail_;
  grants::GuestArea used_;

  // Cursors are ours: read once at most, by a resume, and never again from memory that the driver
  // can write.
  uint16_t next_avail_ = 0;      // next entry of the available ring to take
  uint16_t seen_avail_ = 0;      // available index as last read and accepted
  uint16_t used_idx_ = 0;        // next entry of the used ring to write
  uint16_t published_used_ = 0;  // used index that the driver sees
  bool dead_ = false;            // the available index lied
  bool stopped_ = false;
  bool announce_ = false;  // the next publication, whatever the driver wishes

  uint32_t in_flight_ = 0;
  std::vector<uint64_t> in_flight_heads_;  // a bit for each head
  std::vector<DescriptorChain> spares_;    // returned chains whose vectors own memory
  uint64_t broken_chains_ = 0;
  absl::Status last_broken_;
  absl::AnyInvocable<void()> drained_;
};

}  // namespace vmsg::backend
