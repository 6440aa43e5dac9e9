// SPDX-License-Identifier: Apache-2.0
// The one table of messages: each transport and bus message is declared in it once, and encoding,
// decoding, sizes and printing all follow from its rows. The rows of revision 1 are in
// src/profile_v1.cc (section "Transport Messages" and "Bus Messages").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "virtio-msg/messages.h"

namespace vmsg::wire {

enum class MessageClass { kTransport, kBus };
enum class Sender { kDriver, kDevice, kAny };  // who sends the request or event
enum class Kind { kRequest, kEvent };
enum class Radix : uint8_t { kDecimal, kHex };  // how a field is printed

// One field of a fixed part; offsets and widths in bytes, little-endian on the wire.
struct FieldSpec {
  absl::string_view name;
  uint8_t offset = 0;
  uint8_t width = 0;
  Radix radix = Radix::kDecimal;
  // Where the field lies in the body struct, and its width there. Width 0: a reserved field, which
  // the body does not have; written as zero and ignored when read.
  uint8_t body_offset = 0;
  uint8_t body_width = 0;
};

inline constexpr uint8_t kNoCount = 0xff;

struct PayloadSpec {
  uint16_t fixed = 0;          // bytes
  uint16_t variable_unit = 0;  // bytes per element of the variable part; 0: there is none
  uint16_t variable_max = 0;   // most bytes of the variable part
  std::span<const FieldSpec> fields;
  absl::string_view variable_name;
  // The field (by position in `fields`) that says how long the variable part is, and how many of
  // the part's bits one of it stands for: 32 words, 8 bytes, 1 a bitmap's bits.
  uint8_t count_field = kNoCount;
  uint8_t count_bits = 0;
  bool variable_optional = false;  // may be left out although the count says how long it would be
};

struct MessageSpec {
  absl::string_view name;  // as the specification writes it: "GET_DEVICE_INFO"
  MessageId id{};
  MessageClass message_class{};
  Sender sender{};
  Kind kind{};
  PayloadSpec request;   // of the request or the event
  PayloadSpec response;  // all zero for an event
};

// The wire layout of one connection, chosen when the connection is negotiated. Immutable.
class Profile {
 public:
  static const Profile& V1();  // virtio-msg PATCH v1, transport revision 1

  // `messages` must outlive the profile: at most 255 rows, each id once.
  constexpr Profile(absl::string_view name, std::span<const MessageSpec> messages)
      : name_(name), messages_(messages) {
    for (size_t i = 0; i < messages.size() && i < 255; ++i) {
      index_[static_cast<uint16_t>(messages[i].id) & 0x1ff] = static_cast<uint8_t>(i + 1);
    }
  }

  absl::string_view name() const { return name_; }
  std::span<const MessageSpec> messages() const { return messages_; }

  // nullptr: there is no such message in this profile. A table lookup, for any msg_id.
  const MessageSpec* Find(MessageClass message_class, uint8_t msg_id) const {
    const size_t row = index_[(message_class == MessageClass::kBus ? 0x100u : 0u) | msg_id];
    return row == 0 ? nullptr : &messages_[row - 1];
  }

 private:
  absl::string_view name_;
  std::span<const MessageSpec> messages_;
  std::array<uint8_t, 512> index_{};  // by MessageId: row + 1, 0 = none
};

}  // namespace vmsg::wire
