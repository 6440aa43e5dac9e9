// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/entry_paths.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "backend/devices/console/console.h"
#include "backend/devices/console/terminal/terminal_place.h"
#include "backend/devices/entry_keys.h"
#include "backend/devices/path_walk.h"

namespace vmsg::backend {

absl::Status CheckImagePath(const DeviceEntry& entry) {
  absl::StatusOr<std::string> path = AbsolutePath(entry, "path");
  if (!path.ok()) return path.status();
  absl::StatusOr<UniqueFd> place = WalkPath(*path);
  if (!place.ok()) return RefuseKey("path", *path, place.status().message());
  struct stat file = {};
  if (fstat(place->get(), &file) != 0) return RefuseKey("path", *path, ErrnoText());
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
    if (absl::Status place = FindTerminalPlace(key, *path).status(); !place.ok()) return place;
  }
  return absl::OkStatus();
}

}  // namespace vmsg::backend
