// SPDX-License-Identifier: Apache-2.0
// Who may do what with a node. On the wire: 'n', 'r', 'w' or 'b' and a domain id, NUL-terminated,
// one after the other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmsg::emu::store {

inline constexpr unsigned kNoRights = 0;
inline constexpr unsigned kRead = 1;
inline constexpr unsigned kWrite = 2;
inline constexpr unsigned kOwner = 4;

struct PermissionEntry {
  uint32_t domain;
  unsigned rights;     // of kRead and kWrite
  bool stale = false;  // was for an earlier domain of that id: grants nothing, still listed
  bool operator==(const PermissionEntry&) const = default;
};

// Never empty. The first entry is the owner, and the rights of those who are not listed.
using Permissions = std::vector<PermissionEntry>;

// Who asks. A privileged requester may do everything; a requester with a target also has what the
// target has (a device model acting for its guest).
struct Requester {
  uint32_t domain = 0;
  bool privileged = true;
  std::optional<uint32_t> target;
};

unsigned RightsOf(const Requester& requester, const Permissions& permissions);

// nullopt: malformed. `strings` holds NUL-terminated strings only.
std::optional<Permissions> ParsePermissions(absl::string_view strings);
std::string FormatPermissions(const Permissions& permissions);

}  // namespace vmsg::emu::store
