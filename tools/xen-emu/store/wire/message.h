// SPDX-License-Identifier: Apache-2.0
// Framing of xen/io/xs_wire.h: a header of four native-endian words, then the payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmsg::emu::store {

inline constexpr size_t kHeaderBytes = 16;
inline constexpr size_t kPayloadLimit = 4096;

struct Message {
  uint32_t type = 0;  // xsd_sockmsg_type, not checked
  uint32_t request = 0;
  uint32_t transaction = 0;
  std::string payload;
};

// Cuts a byte stream into messages. Holds at most what was fed and not yet taken.
class MessageReader {
 public:
  void Feed(absl::string_view bytes);
  // nullopt: none complete, or broken().
  std::optional<Message> Next();
  // A header announced more than kPayloadLimit: the stream cannot be followed any more.
  bool broken() const { return broken_; }
  size_t buffered() const { return bytes_.size() - taken_; }

 private:
  std::string bytes_;
  size_t taken_ = 0;
  bool broken_ = false;
};

// `message.payload` is at most kPayloadLimit.
std::string EncodeMessage(const Message& message);

// The NUL-terminated strings of a payload, at most `limit` of them; what follows the last NUL is
// left out. `total`: how many there are in all.
std::vector<std::string> SplitStrings(absl::string_view payload, size_t limit, size_t* total);
// The payload when it is exactly one NUL-terminated string.
std::optional<std::string> SingleString(absl::string_view payload);

// "ENOENT" for ENOENT; "EINVAL" for what the protocol has no name for.
absl::string_view ErrorName(int error);

}  // namespace vmsg::emu::store
