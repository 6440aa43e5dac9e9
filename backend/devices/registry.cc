// SPDX-License-Identifier: Apache-2.0
// The device types: one row each.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/devices/blk/blk.h"
#include "backend/devices/console/console.h"
#include "backend/devices/device.h"
#include "backend/devices/entry_keys.h"
#include "backend/devices/entry_paths.h"
#include "backend/devices/rng/rng.h"

namespace vmsg::backend {
namespace {

constexpr DeviceType kTypes[] = {
    {"blk", kBlkKeys, OpenBlk, CreateBlk, nullptr, CheckImagePath},
    {"console", kConsoleKeys, OpenConsole, CreateConsole, RemoveConsoleNames, CheckTerminalPath},
    {"rng", kRngKeys, OpenRng, CreateRng},
};

absl::StatusOr<const DeviceType*> FindType(absl::string_view name) {
  for (const DeviceType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return RefuseKey("type", name,
                   absl::StrCat("unknown device type; known are ",
                                absl::StrJoin(kTypes, ", ", [](std::string* out, const auto& type) {
                                  absl::StrAppend(out, type.name);
                                })));
}

// The entry's type, when it takes all of its keys.
absl::StatusOr<const DeviceType*> TypeOf(const DeviceEntry& entry) {
  absl::StatusOr<const DeviceType*> type = FindType(entry.type);
  if (!type.ok()) return type.status();
  for (const auto& [key, value] : entry.keys) {
    const auto& known = (*type)->keys;
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return RefuseKey(key, value,
                     known.empty()
                         ? absl::StrCat("unknown key; type ", (*type)->name, " takes none")
                         : absl::StrCat("unknown key; type ", (*type)->name, " takes ",
                                        absl::StrJoin(known, ", ")));
  }
  return type;
}

}  // namespace

absl::Span<const DeviceType> DeviceTypes() { return kTypes; }

absl::Status CheckEntry(const DeviceEntry& entry) {
  absl::StatusOr<const DeviceType*> type = TypeOf(entry);
  if (!type.ok() || (*type)->check == nullptr) return type.status();
  return (*type)->check(entry);
}

absl::StatusOr<OpenedDevice> OpenDevice(const DeviceEntry& entry) {
  absl::StatusOr<const DeviceType*> type = TypeOf(entry);
  if (!type.ok()) return type.status();
  absl::StatusOr<OpenedDevice> opened = (*type)->open(entry);
  if (opened.ok()) {
    opened->number = entry.number;
    opened->type = entry.type;
  }
  return opened;
}

absl::StatusOr<std::unique_ptr<Device>> CreateDevice(OpenedDevice opened,
                                                     const DeviceEnvironment& environment) {
  absl::StatusOr<const DeviceType*> type = FindType(opened.type);
  if (!type.ok()) return type.status();
  return (*type)->create(std::move(opened), environment);
}

absl::StatusOr<OpenedDevice> OpenedDevice::Duplicate(
    const std::shared_ptr<FdCloser>& closer) const {
  OpenedDevice copy{.number = number,
                    .type = type,
                    .fds = {},
                    .options = options,
                    .health = health,
                    .found_keys = {},
                    .seen_as = {}};
  for (const UniqueFd& fd : fds) {
    UniqueFd duplicate(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0), closer);
    if (!duplicate) {
      return absl::ResourceExhaustedError(
          absl::StrCat("device ", number, ": no descriptor for a duplicate: ", std::strerror(errno),
                       "; raise the service's limit on open files"));
    }
    copy.fds.push_back(std::move(duplicate));
  }
  return copy;
}

void CloseDevice(OpenedDevice opened) {
  const OpenedDevice closing = std::move(opened);
  absl::StatusOr<const DeviceType*> type = FindType(closing.type);
  if (type.ok() && (*type)->remove_names != nullptr) (*type)->remove_names(closing);
}

}  // namespace vmsg::backend
