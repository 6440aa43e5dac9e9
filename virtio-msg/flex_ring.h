// SPDX-License-Identifier: Apache-2.0
// The shared ring: Xen's flex ring (xen/io/ring.h, XEN_FLEX_RING), as 9pfs and pvcalls use it, with
// the notification words of docs/binding.md in its padding. The frontend produces `out`, the
// backend produces `in`.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmsg::wire {

// One direction's words in the interface page; both directions have the same shape, 64 bytes each
// (in: offset 0, out: offset 64).
struct RingDirection {
  uint32_t cons;        // written by the consumer
  uint32_t prod;        // written by the producer
  uint32_t event;       // written by the consumer: send an event when prod passes this (only with
                        // feature-ring-event-idx)
  uint32_t want_space;  // written by the producer: 1 = send an event whenever cons moves (only with
                        // feature-ring-event-idx)
  uint8_t pad[48];
};
static_assert(sizeof(RingDirection) == 64);

// The interface page: XEN_FLEX_RING's <name>_data_intf.
struct RingInterface {
  RingDirection in;     // backend to frontend
  RingDirection out;    // frontend to backend
  uint32_t ring_order;  // 2^ring_order data pages; the first half is `in`, the second `out`
  uint32_t ref[(4096 - 132) / 4];  // grants of the data pages
};
static_assert(sizeof(RingInterface) == 4096);
static_assert(offsetof(RingInterface, out) == 64 && offsetof(RingInterface, ring_order) == 128 &&
              offsetof(RingInterface, ref) == 132);

inline constexpr uint32_t kMaxRingOrder = 9;  // 2 MiB; XEN_FLEX_RING's ref[] would allow 991 pages

// Every record starts on a multiple of 8 in the byte stream and is zero-padded to one, so a header
// never wraps.
constexpr size_t PaddedRecordSize(size_t message_size) { return (message_size + 7) & ~size_t{7}; }

// Private cursors; the shared words are only ever written from them. A new ring's cursors are 0;
// `start` is where both are when an empty ring is taken over. Not thread-safe.
class RingProducer {
 public:
  // `data`: this direction's half, a power of two of bytes, aligned to 8 (any other is
  // InvalidArgument at the first use). suppression: feature-ring-event-idx was negotiated.
  RingProducer(RingDirection* shared, std::span<std::byte> data, bool suppression,
               uint32_t start = 0);

  // Bytes that a record may use now, padding included. Reads the peer's cons; DataLoss when it is
  // not between our last view and prod or not a multiple of 8 (the ring is broken, for good).
  absl::StatusOr<size_t> Free();

  // Copies one message in, padded. False: no room, nothing written. The peer sees it at Publish.
  // InvalidArgument: empty, or larger than the whole ring.
  absl::StatusOr<bool> Push(std::span<const std::byte> message);

  // Makes what was pushed visible; true when the peer must be sent an event. Once per batch.
  [[nodiscard]] bool Publish();

  // Asks the peer for an event when it makes room, or takes that back. (With suppression off the
  // peer always sends one.) Room may have appeared just before: after WantSpace(true) try Free or
  // Push once more before going to sleep.
  void WantSpace(bool want);

 private:
  RingDirection* shared_;
  std::span<std::byte> data_;
  bool suppression_;
  bool want_space_ = false;
  uint32_t prod_ = 0;  // pushed
  uint32_t published_ = 0;
  uint32_t cons_ = 0;  // last good view of the peer's cursor
  absl::Status broken_;
};

class RingConsumer {
 public:
  RingConsumer(RingDirection* shared, std::span<const std::byte> data, bool suppression,
               size_t max_message_size, uint32_t start = 0);

  // Copies the next record to `record` (at least max_message_size bytes) once and returns its size
  // without padding; nullopt when the ring is empty. DataLoss, for good: prod went back, jumped
  // further than the ring or is not a multiple of 8; a record's size is under 8, over
  // max_message_size or more than was produced. Nothing is looked at before it is copied. Bytes of
  // `record` after the returned size keep their old contents.
  absl::StatusOr<std::optional<size_t>> Pop(std::span<std::byte> record);

  // Gives the popped bytes back to the producer; true when the peer must be sent an event (it waits
  // for space).
  [[nodiscard]] bool Release();

  // Before going to sleep: asks for an event at the next record. True when records arrived
  // meanwhile: do not sleep.
  absl::StatusOr<bool> Arm();

  // True when Pop would find something (or an error), without arming. For polling.
  bool HasMore() const;

 private:
  // Takes a new view of the peer's prod, or breaks the ring.
  absl::Status LookAtProd();

  RingDirection* shared_;
  std::span<const std::byte> data_;
  bool suppression_;
  size_t max_message_size_;
  uint32_t cons_ = 0;  // popped
  uint32_t released_ = 0;
  uint32_t prod_ = 0;  // last good view of the peer's cursor
  absl::Status broken_;
};

}  // namespace vmsg::wire
