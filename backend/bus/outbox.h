// SPDX-License-Identifier: Apache-2.0
// The sending side of a bus: credit, so that a response always fits, and what is sent when.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/bus/bus_interfaces.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::backend {

// A request is taken from the driver only when the largest response fits beside the responses that
// are owed already; events use what is beyond that. So a response never waits and nothing is kept
// in memory for want of room. Errors of the ring stick; nothing is written afterwards.
class Outbox {
 public:
  Outbox(wire::RingProducer producer, const wire::Profile& profile, size_t message_size,
         MessageTap* tap, BusCounters& counters)
      : producer_(std::move(producer)),
        profile_(profile),
        message_size_(message_size),
        largest_record_(wire::PaddedRecordSize(message_size)),
        tap_(tap),
        counters_(counters) {}

  // True when one more request may be taken.
  bool HasCredit() { return HasRoom((owed_ + 1) * largest_record_); }
  void OweResponse() { ++owed_; }
  // The request was dropped: there will be no response.
  void CancelResponse() { --owed_; }

  template <class Response>
  void Respond(const wire::Envelope& envelope, const Response& response) {
    --owed_;
    Send(wire::Encode(profile_, envelope, response, buffer_, message_size_));
  }

  // False: no room now (or the ring is broken); try again when there is.
  template <class Event>
  bool TrySend(const wire::Envelope& envelope, const Event& event) {
    if (!status_.ok()) return false;
    absl::StatusOr<size_t> size = wire::Encode(profile_, envelope, event, buffer_, message_size_);
    if (size.ok() && !HasRoom(owed_ * largest_record_ + wire::PaddedRecordSize(*size))) {
      return false;
    }
    Send(size);
    return true;
  }

  // Makes what was sent visible; true when the frontend must be notified.
  [[nodiscard]] bool Publish() { return status_.ok() && producer_.Publish(); }
  void WantSpace(bool want) {
    if (status_.ok()) producer_.WantSpace(want);
  }
  // Reads what is free, anew.
  size_t Free();

  // Where variable parts of answers are put together: as large as a payload may be.
  std::span<std::byte> scratch() {
    return std::span(scratch_).first(message_size_ - wire::kHeaderSize);
  }
  size_t message_size() const { return message_size_; }
  const wire::Profile& profile() const { return profile_; }

  // Not OK: the ring is broken or was given up.
  const absl::Status& status() const { return status_; }
  void GiveUp(absl::Status why) {
    if (status_.ok()) status_ = std::move(why);
  }

 private:
  bool HasRoom(size_t bytes) {
    if (known_free_ >= bytes) return true;
    return Free() >= bytes && status_.ok();
  }
  void Send(const absl::StatusOr<size_t>& size);

  wire::RingProducer producer_;
  const wire::Profile& profile_;
  const size_t message_size_;
  const size_t largest_record_;
  MessageTap* const tap_;
  BusCounters& counters_;
  size_t owed_ = 0;        // requests taken and not answered
  size_t known_free_ = 0;  // at least this much is free; the peer's cursor is read when it is short
  absl::Status status_;
  std::array<std::byte, wire::kMaxMessageSize> buffer_;
  std::array<std::byte, wire::kMaxMessageSize> scratch_;
};

}  // namespace vmsg::backend
