// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/tree/permissions.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace vmsg::emu::store {
namespace {

std::optional<unsigned> RightsFromLetter(char letter) {
  switch (letter) {
    case 'n':
      return kNoRights;
    case 'r':
      return kRead;
    case 'w':
      return kWrite;
    case 'b':
      return kRead | kWrite;
    default:
      return std::nullopt;
  }
}

}  // namespace

unsigned RightsOf(const Requester& requester, const Permissions& permissions) {
  auto is_requester = [&](uint32_t domain) {
    return domain == requester.domain || requester.target == domain;
  };
  if (requester.privileged || is_requester(permissions[0].domain)) return kRead | kWrite | kOwner;
  for (size_t i = 1; i < permissions.size(); ++i) {
    if (!permissions[i].stale && is_requester(permissions[i].domain)) return permissions[i].rights;
  }
  return permissions[0].rights;
}

std::optional<Permissions> ParsePermissions(absl::string_view strings) {
  Permissions permissions;
  while (!strings.empty()) {
    size_t end = strings.find('\0');
    if (end == absl::string_view::npos) return std::nullopt;
    // A copy, because strtol wants its NUL. Its leniency (signs, hexadecimal) is xenstored's too.
    std::string entry(strings.substr(0, end));
    strings.remove_prefix(end + 1);
    if (entry.size() < 2) return std::nullopt;
    std::optional<unsigned> rights = RightsFromLetter(entry[0]);
    if (!rights.has_value()) return std::nullopt;
    char* rest = nullptr;
    long domain = std::strtol(entry.c_str() + 1, &rest, 0);
    if (*rest != '\0') return std::nullopt;
    permissions.push_back({.domain = static_cast<uint32_t>(domain), .rights = *rights});
  }
  if (permissions.empty()) return std::nullopt;
  return permissions;
}

std::string FormatPermissions(const Permissions& permissions) {
  static constexpr char kLetters[] = "nrwb";
  std::string strings;
  for (const PermissionEntry& entry : permissions) {
    absl::StrAppend(&strings, absl::string_view(&kLetters[entry.rights], 1),
                    static_cast<int32_t>(entry.domain), absl::string_view("\0", 1));
  }
  return strings;
}

}  // namespace vmsg::emu::store
