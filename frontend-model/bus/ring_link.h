// SPDX-License-Identifier: Apache-2.0
// The shared ring and its event channel as the frontend uses them (docs/binding.md, sections 2 and
// 3): records out, records in, and sleep until there is something.
#pragma once

#include <poll.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/event_channels.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::frontend {

struct RingMemory {
  wire::RingInterface* interface_page = nullptr;
  std::span<std::byte> data;  // 2^ring_order pages: `in`, then `out`
};

struct RingTerms {
  bool suppression = true;  // feature-ring-event-idx
  size_t max_message_size = wire::kMaxMessageSize;
};

// Not thread-safe. The memory and the event channels must outlive it.
class RingLink {
 public:
  RingLink(RingMemory memory, RingTerms terms, grants::EventChannels* events,
           grants::EventPort port);

  // Starts anew with another backend: over the same memory, which is all zeros again, and another
  // port. What was counted stays.
  void Restart(RingTerms terms, grants::EventPort port);

  // False: no room; nothing was written, and the peer has been asked to say when there is.
  absl::StatusOr<bool> Push(std::span<const std::byte> message);
  // Shows the peer what was pushed, with at most one event.
  absl::Status Flush();

  // The next record, in private memory until the next Pop; nullopt: there is none. DataLoss: the
  // ring is broken, for good.
  absl::StatusOr<std::optional<std::span<const std::byte>>> Pop();
  // Gives the space of popped records back.
  absl::Status Release();
  bool HasMore() const { return in_.HasMore(); }

  // Takes and unmasks the event that ended the last sleep, then asks for one at the next record.
  // True: one came meanwhile.
  absl::StatusOr<bool> Arm();
  // Sleeps until an event, one of `others` or for `timeout_ms` (poll(2)'s). The event is left for
  // Arm, so that what it announced is answered first: taking and unmasking it costs system calls.
  absl::Status Sleep(int timeout_ms, std::span<pollfd> others);

  // An event, whether the peer asked for one or not.
  absl::Status Kick() { return Notify(); }

  const RingMemory& memory() const { return memory_; }
  size_t max_message_size() const { return max_message_size_; }
  grants::EventPort port() const { return port_; }
  uint64_t notifications_sent() const { return notifications_sent_; }
  uint64_t sleeps() const { return sleeps_; }

 private:
  absl::Status Notify();

  RingMemory memory_;
  size_t max_message_size_;
  grants::EventChannels* events_;
  grants::EventPort port_;
  wire::RingProducer out_;
  wire::RingConsumer in_;
  bool wants_space_ = false;
  bool woken_ = false;  // an event is there and not yet taken
  uint64_t notifications_sent_ = 0;
  uint64_t sleeps_ = 0;
  std::array<std::byte, wire::kMaxMessageSize> record_;
};

}  // namespace vmsg::frontend
