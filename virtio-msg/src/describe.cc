// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/describe.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "virtio-msg/codec.h"

namespace vmsg::wire {
namespace {

// A malformed record's first bytes say what it was; all of a hostile one would only fill the log.
constexpr size_t kMaxHexOfMalformed = 64;

void AppendHex(std::string& line, std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const std::byte byte : bytes) {
    line += kDigits[std::to_integer<unsigned>(byte) >> 4];
    line += kDigits[std::to_integer<unsigned>(byte) & 0xf];
  }
}

uint64_t LoadField(std::span<const std::byte> payload, const FieldSpec& field) {
  uint64_t value = 0;
  for (size_t i = field.width; i-- > 0;) {
    value = value << 8 | std::to_integer<uint64_t>(payload[field.offset + i]);
  }
  return value;
}

void AppendVariable(std::string& line, const PayloadSpec& spec, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  absl::StrAppend(&line, " ", spec.variable_name, "=");
  if (spec.variable_unit != 4) {
    AppendHex(line, bytes);
    return;
  }
  const WordView words(bytes);
  for (size_t i = 0; i < words.size(); ++i) {
    absl::StrAppend(&line, i == 0 ? "[" : ",", "0x", absl::Hex(words[i]));
  }
  line += ']';
}

std::string Malformed(const absl::Status& why, std::span<const std::byte> record) {
  std::string line = absl::StrCat("malformed: ", why.message(), "; ");
  AppendHex(line, record.first(std::min(record.size(), kMaxHexOfMalformed)));
  if (record.size() > kMaxHexOfMalformed) line += "...";
  return line;
}

}  // namespace

std::string Describe(const Profile& profile, std::span<const std::byte> record,
                     std::optional<Sender> from) {
  const absl::StatusOr<Message> message = Decode(profile, record);
  if (!message.ok()) return Malformed(message.status(), record);
  if (absl::Status counts = CheckPayload(*message); !counts.ok()) return Malformed(counts, record);
  const MessageSpec& spec = *message->spec;
  if (from && !MaySend(*message, *from)) {
    return Malformed(absl::InvalidArgumentError(absl::StrCat(
                         "the ", *from == Sender::kDriver ? "driver" : "device", " may not send ",
                         spec.name, message->response ? " response" : "")),
                     record);
  }

  std::string line(spec.name);
  if (message->response) line += " response";
  if (spec.message_class == MessageClass::kTransport) {
    absl::StrAppend(&line, " dev=", message->envelope.dev_num);
  }
  absl::StrAppend(&line, " token=", message->envelope.token);
  const PayloadSpec& payload = message->response ? spec.response : spec.request;
  for (const FieldSpec& field : payload.fields) {
    if (field.body_width == 0) continue;
    const uint64_t value = LoadField(message->payload, field);
    absl::StrAppend(&line, " ", field.name, "=");
    if (field.radix == Radix::kHex) {
      absl::StrAppend(&line, "0x", absl::Hex(value));
    } else {
      absl::StrAppend(&line, value);
    }
  }
  AppendVariable(line, payload, message->payload.subspan(payload.fixed));

  const std::span<const std::byte> padding = record.subspan(kHeaderSize + message->payload.size());
  if (std::any_of(padding.begin(), padding.end(), [](std::byte b) { return b != std::byte{0}; })) {
    line += " (padding is not zero)";
  }
  return line;
}

}  // namespace vmsg::wire
