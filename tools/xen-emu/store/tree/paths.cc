// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/tree/paths.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace vmsg::emu::store {
namespace {

constexpr absl::string_view kDomains = "/local/domain/";

// Bytes of a leading "/local/domain/<id>/", 0 when there is none. An id has at most five digits.
size_t DomainPrefix(absl::string_view path) {
  if (!absl::StartsWith(path, kDomains)) return 0;
  size_t end = kDomains.size();
  while (end < path.size() && end < kDomains.size() + 5 && absl::ascii_isdigit(path[end])) ++end;
  if (end == kDomains.size() || end >= path.size() || path[end] != '/') return 0;
  return end + 1;
}

}  // namespace

bool IsValidPath(absl::string_view path) {
  if (!absl::StartsWith(path, "/")) return false;
  if (path.size() > 1 && path.back() == '/') return false;
  if (absl::StrContains(path, "//")) return false;
  if (path.size() > DomainPrefix(path) + kPathLimit) return false;
  return std::all_of(path.begin(), path.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '/' || c == '_' || c == '@';
  });
}

std::string ParentOf(absl::string_view path) {
  size_t slash = path.rfind('/');
  if (slash == 0 || slash == absl::string_view::npos) return "/";
  return std::string(path.substr(0, slash));
}

absl::string_view BaseName(absl::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string ChildPath(absl::string_view parent, absl::string_view name) {
  return parent == "/" ? absl::StrCat("/", name) : absl::StrCat(parent, "/", name);
}

bool IsAtOrBelow(absl::string_view path, absl::string_view ancestor) {
  if (ancestor == "/") return true;
  if (!absl::ConsumePrefix(&path, ancestor)) return false;
  return path.empty() || path[0] == '/';
}

std::string DomainPath(uint32_t domain) { return absl::StrCat("/local/domain/", domain); }

}  // namespace vmsg::emu::store
