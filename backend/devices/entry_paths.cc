// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/entry_paths.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "backend/devices/console/console.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {

absl::Status CheckImagePath(const DeviceEntry& entry) {
  absl::StatusOr<std::string> path = AbsolutePath(entry, "path");
  if (!path.ok()) return path.status();
  struct stat file = {};
  if (stat(path->c_str(), &file) != 0) return RefuseKey("path", *path, std::strerror(errno));
  if (!S_ISREG(file.st_mode) && !S_ISBLK(file.st_mode)) {
    return RefuseKey("path", *path, "is neither a regular file nor a block device");
  }
  return absl::OkStatus();
}

absl::Status CheckTerminalPath(const DeviceEntry& entry) {
  for (const absl::string_view key : kConsoleKeys) {
    if (KeyOr(entry, key, "").empty()) continue;
    absl::StatusOr<std::string> path = AbsolutePath(entry, key);
    if (!path.ok()) return path.status();
    const size_t slash = path->rfind('/');
    const std::string directory = slash == 0 ? "/" : path->substr(0, slash);
    struct stat place = {};
    const int error = stat(directory.c_str(), &place) != 0 ? errno
                      : S_ISDIR(place.st_mode)             ? 0
                                                           : ENOTDIR;
    if (error != 0) {
      return RefuseKey(key, *path, absl::StrCat("its directory: ", std::strerror(error)));
    }
  }
  return absl::OkStatus();
}

}  // namespace vmsg::backend
