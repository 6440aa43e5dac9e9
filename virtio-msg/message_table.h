// SPDX-License-Identifier: Apache-2.0
// The one table of messages: each transport and bus message is declared here once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "virtio-msg/messages.h"

namespace vmsg::wire {

enum class MessageClass { kTransport, kBus };
enum class Sender { kDriver, kDevice, kAny };  // who sends the request or event
enum class Kind { kRequest, kEvent };

// One field of a fixed part, for printing; width in bytes.
struct FieldSpec {
  absl::string_view name;
  uint8_t offset;
  uint8_t width;
};

struct PayloadSpec {
  uint16_t fixed;          // bytes
  uint16_t variable_unit;  // bytes per element of the variable part; 0: there is none
  uint16_t variable_max;   // most bytes of the variable part
  std::span<const FieldSpec> fields;
  absl::string_view variable_name;
};

struct MessageSpec {
  absl::string_view name;  // as the specification writes it: "GET_DEVICE_INFO"
  MessageId id;
  MessageClass message_class;
  Sender sender;
  Kind kind;
  PayloadSpec request;   // of the request or the event
  PayloadSpec response;  // all zero for an event
};

// The wire layout of one connection, chosen when the connection is negotiated.
class Profile {
 public:
  static const Profile& V1();  // virtio-msg PATCH v1, transport revision 1

  absl::string_view name() const { return name_; }
  std::span<const MessageSpec> messages() const { return messages_; }
  const MessageSpec* Find(MessageClass message_class, uint8_t msg_id) const;

 private:
  Profile(absl::string_view name, std::span<const MessageSpec> messages)
      : name_(name), messages_(messages) {}
  absl::string_view name_;
  std::span<const MessageSpec> messages_;
};

}  // namespace vmsg::wire
