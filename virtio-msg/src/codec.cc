// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/codec.h"

#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

namespace vmsg::wire {
namespace {

static_assert(std::endian::native == std::endian::little);

uint16_t LoadLe16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void StoreLe16(std::byte* p, uint16_t value) { std::memcpy(p, &value, sizeof(value)); }

// Widths come from the table: 1 to 8. The usual ones become single moves.
uint64_t LoadLe(const std::byte* p, size_t width) {
  uint64_t value = 0;
  switch (width) {
    case 2:
      std::memcpy(&value, p, 2);
      break;
    case 4:
      std::memcpy(&value, p, 4);
      break;
    case 8:
      std::memcpy(&value, p, 8);
      break;
    default:
      std::memcpy(&value, p, width);
      break;
  }
  return value;
}

void StoreLe(std::byte* p, size_t width, uint64_t value) {
  switch (width) {
    case 2:
      std::memcpy(p, &value, 2);
      break;
    case 4:
      std::memcpy(p, &value, 4);
      break;
    case 8:
      std::memcpy(p, &value, 8);
      break;
    default:
      std::memcpy(p, &value, width);
      break;
  }
}

bool FitsWidth(uint64_t value, size_t width) { return width >= 8 || value >> (8 * width) == 0; }

const PayloadSpec& PayloadOf(const MessageSpec& spec, bool response) {
  return response ? spec.response : spec.request;
}

// "GET_CONFIG response"; only for errors.
std::string Title(const MessageSpec& spec, bool response) {
  return absl::StrCat(spec.name, spec.kind == Kind::kEvent ? " event"
                                 : response                ? " response"
                                                           : " request");
}

// What the payload's length must be, by the table alone.
absl::Status CheckLength(const MessageSpec& spec, bool response, size_t size) {
  const PayloadSpec& payload = PayloadOf(spec, response);
  if (size < payload.fixed) {
    return absl::InvalidArgumentError(absl::StrCat(Title(spec, response), ": payload of ", size,
                                                   " bytes, the fixed part alone has ",
                                                   payload.fixed));
  }
  const size_t variable = size - payload.fixed;
  if (variable == 0) return absl::OkStatus();
  if (payload.variable_unit == 0) {
    return absl::InvalidArgumentError(absl::StrCat(Title(spec, response), ": payload of ", size,
                                                   " bytes, it has exactly ", payload.fixed));
  }
  if (variable > payload.variable_max) {
    return absl::InvalidArgumentError(absl::StrCat(Title(spec, response), ": ", variable,
                                                   " bytes of ", payload.variable_name,
                                                   ", the limit is ", payload.variable_max));
  }
  if (variable % payload.variable_unit != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Title(spec, response), ": ", variable,
                                                   " bytes of ", payload.variable_name,
                                                   ", not a multiple of ", payload.variable_unit));
  }
  return absl::OkStatus();
}

// Whether the count in the payload and the bytes that are there say the same.
absl::Status CheckCount(const MessageSpec& spec, bool response, uint64_t count, size_t variable) {
  const PayloadSpec& payload = PayloadOf(spec, response);
  if (variable == 0 && payload.variable_optional) return absl::OkStatus();
  // A field of more than 32 bits could overflow the product; nothing that large is right anyway.
  const uint64_t bits = count > std::numeric_limits<uint32_t>::max()
                            ? std::numeric_limits<uint64_t>::max()
                            : count * payload.count_bits;
  if (bits == uint64_t{variable} * 8) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      Title(spec, response), ": ", payload.fields[payload.count_field].name, " is ", count,
      ", which is not the ", variable, " bytes of ", payload.variable_name, " that are there"));
}

}  // namespace

absl::StatusOr<Message> Decode(const Profile& profile, std::span<const std::byte> record,
                               size_t max_message_size) {
  if (record.size() < kHeaderSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("record of ", record.size(), " bytes, the header has ", kHeaderSize));
  }
  const uint8_t type = std::to_integer<uint8_t>(record[0]);
  const uint8_t msg_id = std::to_integer<uint8_t>(record[1]);
  const uint16_t msg_size = LoadLe16(&record[6]);
  if (msg_size < kHeaderSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("msg_size is ", msg_size, ", the header alone has ", kHeaderSize));
  }
  if (msg_size > max_message_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("msg_size is ", msg_size, ", the limit is ", max_message_size));
  }
  if (msg_size > record.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("msg_size is ", msg_size, ", the record has ", record.size(), " bytes"));
  }

  Message message;
  message.response = (type & kTypeResponse) != 0;
  message.envelope.dev_num = LoadLe16(&record[2]);
  message.envelope.token = LoadLe16(&record[4]);
  const bool bus = (type & kTypeBus) != 0;
  message.spec = profile.Find(bus ? MessageClass::kBus : MessageClass::kTransport, msg_id);
  if (message.spec == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("msg_id 0x", absl::Hex(msg_id, absl::kZeroPad2),
                                                   " is no ", bus ? "bus" : "transport",
                                                   " message of ", profile.name()));
  }
  if (message.response && message.spec->kind == Kind::kEvent) {
    return absl::InvalidArgumentError(absl::StrCat("type 0x", absl::Hex(type, absl::kZeroPad2),
                                                   " says response, but ", message.spec->name,
                                                   " is an event, which has none"));
  }
  if (bus && message.envelope.dev_num != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Title(*message.spec, message.response),
                                                   ": dev_num is ", message.envelope.dev_num,
                                                   ", a bus message has 0"));
  }
  message.payload = record.subspan(kHeaderSize, msg_size - kHeaderSize);
  absl::Status length = CheckLength(*message.spec, message.response, message.payload.size());
  if (!length.ok()) return length;
  return message;
}

bool MaySend(const Message& message, Sender side) {
  if (message.spec->sender == Sender::kAny) return true;
  return (message.spec->sender == side) != message.response;
}

absl::Status CheckPayload(const Message& message) {
  const PayloadSpec& payload = PayloadOf(*message.spec, message.response);
  if (payload.variable_unit == 0) return absl::OkStatus();
  const FieldSpec& field = payload.fields[payload.count_field];
  const uint64_t count = LoadLe(message.payload.data() + field.offset, field.width);
  return CheckCount(*message.spec, message.response, count, message.payload.size() - payload.fixed);
}

namespace internal {

absl::Status ReadPayload(const Message& message, MessageId id, bool response, std::byte* body,
                         ByteView* variable) {
  if (message.spec == nullptr || message.spec->id != id || message.response != response) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a body of message 0x", absl::Hex(static_cast<uint16_t>(id), absl::kZeroPad3),
        response ? " (response)" : "", " was asked of ",
        message.spec == nullptr ? "no message" : Title(*message.spec, message.response)));
  }
  const PayloadSpec& payload = PayloadOf(*message.spec, response);
  if (message.payload.size() < payload.fixed) {
    return CheckLength(*message.spec, response, message.payload.size());
  }
  uint64_t count = 0;
  for (size_t i = 0; i < payload.fields.size(); ++i) {
    const FieldSpec& field = payload.fields[i];
    if (field.body_width == 0) continue;
    const uint64_t value = LoadLe(message.payload.data() + field.offset, field.width);
    if (i == payload.count_field) count = value;
    if (!FitsWidth(value, field.body_width)) {
      return absl::InvalidArgumentError(absl::StrCat(Title(*message.spec, response), ": ",
                                                     field.name, " is ", value, ", over ",
                                                     8 * field.body_width, " bits"));
    }
    StoreLe(body + field.body_offset, field.body_width, value);
  }
  if (payload.variable_unit == 0) return absl::OkStatus();
  *variable = message.payload.subspan(payload.fixed);
  return CheckCount(*message.spec, response, count, variable->size());
}

absl::StatusOr<size_t> WriteMessage(const Profile& profile, const Envelope& envelope, MessageId id,
                                    bool response, const std::byte* body, ByteView variable,
                                    std::span<std::byte> out, size_t max_message_size) {
  const uint8_t msg_id = static_cast<uint16_t>(id) & 0xff;
  const bool bus = (static_cast<uint16_t>(id) & 0x100) != 0;
  const MessageSpec* spec =
      profile.Find(bus ? MessageClass::kBus : MessageClass::kTransport, msg_id);
  if (spec == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(profile.name(), " has no ",
                                                   bus ? "bus" : "transport", " message 0x",
                                                   absl::Hex(msg_id, absl::kZeroPad2)));
  }
  if (bus && envelope.dev_num != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Title(*spec, response), ": dev_num is ",
                                                   envelope.dev_num, ", a bus message has 0"));
  }
  const PayloadSpec& payload = PayloadOf(*spec, response);
  const size_t size = kHeaderSize + payload.fixed + variable.size();
  absl::Status length = CheckLength(*spec, response, payload.fixed + variable.size());
  if (!length.ok()) return length;
  if (size > max_message_size || size > out.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Title(*spec, response), ": ", size, " bytes, the connection's limit is ",
                     max_message_size, " and the buffer has ", out.size()));
  }

  std::byte* fixed = out.data() + kHeaderSize;
  uint64_t count = 0;
  for (size_t i = 0; i < payload.fields.size(); ++i) {
    const FieldSpec& field = payload.fields[i];
    const uint64_t value =
        field.body_width == 0 ? 0 : LoadLe(body + field.body_offset, field.body_width);
    if (i == payload.count_field) count = value;
    if (!FitsWidth(value, field.width)) {
      return absl::InvalidArgumentError(absl::StrCat(Title(*spec, response), ": ", field.name,
                                                     " is ", value, ", the wire has ",
                                                     8 * field.width, " bits for it"));
    }
    StoreLe(fixed + field.offset, field.width, value);
  }
  if (payload.variable_unit != 0) {
    absl::Status counted = CheckCount(*spec, response, count, variable.size());
    if (!counted.ok()) return counted;
    if (!variable.empty()) std::memcpy(fixed + payload.fixed, variable.data(), variable.size());
  }

  out[0] = std::byte((response ? kTypeResponse : 0) | (bus ? kTypeBus : 0));
  out[1] = std::byte(msg_id);
  StoreLe16(&out[2], envelope.dev_num);
  StoreLe16(&out[4], envelope.token);
  StoreLe16(&out[6], static_cast<uint16_t>(size));
  return size;
}

}  // namespace internal
}  // namespace vmsg::wire
