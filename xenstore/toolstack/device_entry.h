// SPDX-License-Identifier: Apache-2.0
// One device as an administrator writes it, on a command line or in an xl domain config:
// "type=blk,path=/srv/g1.img,readonly=1".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmsg::xenstore {

// An entry becomes nodes of at most 4096 bytes and passes through command lines and config files.
inline constexpr size_t kMaxEntryBytes = 2048;

struct DeviceEntry {
  std::optional<uint16_t> number;  // key `num`; without it the lowest free number is taken
  uint32_t bus = 0;                // key `bus`
  std::string type;                // key `type`
  absl::btree_map<std::string, std::string> keys;  // the type's parameters: all other keys
  bool operator==(const DeviceEntry&) const = default;
};

// Comma-separated key=value pairs, in any order, `type` required; blanks around a key or a value
// are ignored, so a value cannot contain a comma or begin with a blank. Which keys a type has is
// the backend's to say. InvalidArgument names the key and the reason.
absl::StatusOr<DeviceEntry> ParseDeviceEntry(absl::string_view text);

}  // namespace vmsg::xenstore
