// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/wire/message.h"

#include <array>
#include <cerrno>  // before xs_wire.h, whose table of errors is there only when EINVAL is
#include <cstring>

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {

static_assert(sizeof(xsd_sockmsg) == kHeaderBytes);
static_assert(XENSTORE_PAYLOAD_MAX == kPayloadLimit);

void MessageReader::Feed(absl::string_view bytes) {
  bytes_.erase(0, taken_);
  taken_ = 0;
  bytes_.append(bytes.data(), bytes.size());
}

std::optional<Message> MessageReader::Next() {
  if (broken_ || buffered() < kHeaderBytes) return std::nullopt;
  xsd_sockmsg header;
  std::memcpy(&header, bytes_.data() + taken_, sizeof(header));
  if (header.len > kPayloadLimit) {
    broken_ = true;
    return std::nullopt;
  }
  if (buffered() - kHeaderBytes < header.len) return std::nullopt;
  Message message{.type = header.type, .request = header.req_id, .transaction = header.tx_id};
  message.payload = bytes_.substr(taken_ + kHeaderBytes, header.len);
  taken_ += kHeaderBytes + header.len;
  return message;
}

std::string EncodeMessage(const Message& message) {
  xsd_sockmsg header = {};
  header.type = message.type;
  header.req_id = message.request;
  header.tx_id = message.transaction;
  header.len = static_cast<uint32_t>(message.payload.size());
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  return bytes += message.payload;
}

std::vector<std::string> SplitStrings(absl::string_view payload, size_t limit, size_t* total) {
  std::vector<std::string> strings;
  *total = 0;
  size_t end;
  while ((end = payload.find('\0')) != absl::string_view::npos) {
    if (strings.size() < limit) strings.emplace_back(payload.substr(0, end));
    ++*total;
    payload.remove_prefix(end + 1);
  }
  return strings;
}

std::optional<std::string> SingleString(absl::string_view payload) {
  if (payload.empty() || payload.find('\0') != payload.size() - 1) return std::nullopt;
  return std::string(payload.substr(0, payload.size() - 1));
}

absl::string_view ErrorName(int error) {
  for (const auto& known : xsd_errors) {
    if (known.errnum == error) return known.errstring;
  }
  return "EINVAL";
}

}  // namespace vmsg::emu::store
