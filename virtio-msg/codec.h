// SPDX-License-Identifier: Apache-2.0
// Encode and decode, as pure functions on byte spans: no I/O, no allocation except for the text of
// an error. Everything about a message's layout comes from the profile's table (message_table.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "absl/status/statusor.h"
#include "virtio-msg/bodies.h"
#include "virtio-msg/message_table.h"
#include "virtio-msg/messages.h"

namespace vmsg::wire {

// Section "Common Message Format": u8 type, u8 msg_id, le16 dev_num, le16 token, le16 msg_size.
inline constexpr size_t kHeaderSize = 8;
inline constexpr size_t kMaxMessageSize = 264;  // what this bus advertises, header included
inline constexpr size_t kMinMessageSize = 44;   // the least a bus may advertise

inline constexpr uint8_t kTypeResponse = 0x01;
inline constexpr uint8_t kTypeBus = 0x02;

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
// multiple of its unit and within its bound). Reserved bits 2-7 of type are ignored, and so are
// bytes after msg_size (the record's padding).
// InvalidArgument says which field, which value and which limit.
absl::StatusOr<Message> Decode(const Profile& profile, std::span<const std::byte> record,
                               size_t max_message_size = kMaxMessageSize);

// Whether `side` (kDriver or kDevice) may send this message. A request or event comes from the
// table's sender, a response from the other side.
bool MaySend(const Message& message, Sender side);

// What Parse checks, without a body: whether the counts inside agree with the payload's length.
absl::Status CheckPayload(const Message& message);

// The id of a body type: MessageIdOf<GetConfigRequest>() == MessageId::kGetConfig.
template <class Body>
constexpr MessageId MessageIdOf() {
  return BodyTraits<Body>::kId;
}

namespace internal {

// Reads the fixed part into the body struct at `body`, and finds the variable part.
absl::Status ReadPayload(const Message& message, MessageId id, bool response, std::byte* body,
                         ByteView* variable);
absl::StatusOr<size_t> WriteMessage(const Profile& profile, const Envelope& envelope, MessageId id,
                                    bool response, const std::byte* body, ByteView variable,
                                    std::span<std::byte> out, size_t max_message_size);

inline ByteView VariableBytes(const WordView& view) { return view.bytes(); }
inline ByteView VariableBytes(const ByteView& view) { return view; }

}  // namespace internal

// The body of a checked message; InvalidArgument when the counts inside disagree with the payload's
// length (num_blocks, length, count), or when Body is not the struct of the message and direction.
// Views in the body point into the record.
template <class Body>
absl::StatusOr<Body> Parse([[maybe_unused]] const Profile& profile, const Message& message) {
  static_assert(std::is_trivially_copyable_v<Body> && std::is_standard_layout_v<Body>);
  using Traits = BodyTraits<Body>;
  Body body{};
  ByteView variable;
  absl::Status status = internal::ReadPayload(message, Traits::kId, Traits::kResponse,
                                              reinterpret_cast<std::byte*>(&body), &variable);
  if (!status.ok()) return status;
  if constexpr (Traits::kHasVariable) {
    auto& view = body.*Traits::kVariable;
    view = std::remove_reference_t<decltype(view)>(variable);
  }
  return body;
}

// Writes header and body to `out`; returns the message's size (not padded). InvalidArgument when
// out or max_message_size is too small, a variable part breaks its bound or disagrees with its
// count, a value does not fit the wire's field, or a bus message has a device number. Reserved
// fields and bits are written as zero. On error `out` may be partly written.
template <class Body>
absl::StatusOr<size_t> Encode(const Profile& profile, const Envelope& envelope, const Body& body,
                              std::span<std::byte> out, size_t max_message_size = kMaxMessageSize) {
  static_assert(std::is_trivially_copyable_v<Body> && std::is_standard_layout_v<Body>);
  using Traits = BodyTraits<Body>;
  ByteView variable;
  if constexpr (Traits::kHasVariable) variable = internal::VariableBytes(body.*Traits::kVariable);
  return internal::WriteMessage(profile, envelope, Traits::kId, Traits::kResponse,
                                reinterpret_cast<const std::byte*>(&body), variable, out,
                                max_message_size);
}

}  // namespace vmsg::wire
