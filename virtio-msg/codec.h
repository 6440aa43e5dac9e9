// SPDX-License-Identifier: Apache-2.0
// Encode and decode, as pure functions on byte spans: no I/O, no allocation except for the text of
// an error. The one table of messages is in message_table.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "virtio-msg/message_table.h"
#include "virtio-msg/messages.h"

namespace vmsg::wire {

// Section "Common Message Format": u8 type, u8 msg_id, le16 dev_num, le16 token, le16 msg_size.
inline constexpr size_t kHeaderSize = 8;
inline constexpr size_t kMaxMessageSize = 264;  // what this bus advertises, header included
inline constexpr size_t kMinMessageSize = 44;   // the least a bus may advertise

struct Envelope {
  uint16_t dev_num = 0;  // 0 for bus messages
  uint16_t token = 0;
};

// A message whose header has been checked against the table. `payload` points into the record that
// was decoded.
struct Message {
  const MessageSpec* spec = nullptr;
  bool response = false;
  Envelope envelope;
  std::span<const std::byte> payload;
};

// `record` is private memory: it was copied off the ring once. Checks the header: record.size() is
// at least msg_size and at least kHeaderSize; msg_size is within max_message_size; the id is in the
// profile's table and in the class that bit 1 of type says; an event is no response; dev_num is 0
// on a bus message; the payload length is one the table allows (fixed part present, variable part a
// multiple of its unit and within its bound). Reserved bits 2-7 of type are ignored.
// InvalidArgument says which field, which value and which limit.
absl::StatusOr<Message> Decode(const Profile& profile, std::span<const std::byte> record,
                               size_t max_message_size = kMaxMessageSize);

// The body of a checked message; InvalidArgument when the counts inside disagree with the payload's
// length (num_blocks, length, count). Body must be the struct of the message's spec and direction.
template <class Body>
absl::StatusOr<Body> Parse(const Profile& profile, const Message& message);

// Writes header and body to `out`; returns the message's size (not padded). InvalidArgument when
// out or max_message_size is too small or a variable part breaks its bound. Reserved fields and
// bits are written as zero.
template <class Body>
absl::StatusOr<size_t> Encode(const Profile& profile, const Envelope& envelope, const Body& body,
                              std::span<std::byte> out, size_t max_message_size = kMaxMessageSize);

// The id of a body type: MessageIdOf<GetConfigRequest>() == MessageId::kGetConfig.
template <class Body>
constexpr MessageId MessageIdOf();

}  // namespace vmsg::wire
