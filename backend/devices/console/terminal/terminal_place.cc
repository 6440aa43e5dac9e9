// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/terminal/terminal_place.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/entry_keys.h"
#include "backend/devices/path_walk.h"

namespace vmsg::backend {

absl::StatusOr<TerminalPlace> FindTerminalPlace(absl::string_view key, const std::string& path) {
  const size_t slash = path.rfind('/');
  TerminalPlace place;
  place.name = path.substr(slash + 1);
  if (place.name.empty() || place.name == "." || place.name == "..") {
    return RefuseKey(key, path, "does not end in a name");
  }
  // The slash at the end: it must be a directory.
  absl::StatusOr<UniqueFd> directory = WalkPath(path.substr(0, slash + 1));
  if (!directory.ok()) {
    return RefuseKey(key, path, absl::StrCat("its directory: ", directory.status().message()));
  }
  place.directory = *std::move(directory);
  return place;
}

bool LookAt(const UniqueFd& directory, const std::string& name, struct stat* file) {
  return fstatat(directory.get(), name.c_str(), file, AT_SYMLINK_NOFOLLOW) == 0;
}

std::string FileIdentity(const struct stat& file) {
  return absl::StrCat(static_cast<uint64_t>(file.st_dev), ":", static_cast<uint64_t>(file.st_ino));
}

}  // namespace vmsg::backend
