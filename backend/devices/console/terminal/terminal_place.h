// SPDX-License-Identifier: Apache-2.0
// Where a console's names are: in a directory that is looked up once, so that what was made there
// is removed there, whatever the path leads to by then.
#pragma once

#include <sys/stat.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/devices/device.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

struct TerminalPlace {
  UniqueFd directory;
  std::string name;
};

// The place of a checked path.
absl::StatusOr<TerminalPlace> FindTerminalPlace(absl::string_view key, const std::string& path);

// What is there now, not followed; false: nothing.
bool LookAt(const UniqueFd& directory, const std::string& name, struct stat* file);
// Tells files of this machine apart.
std::string FileIdentity(const struct stat& file);

// A pseudo terminal with a link to it, or listening sockets. The terminal is the first of the
// descriptors, the directory is the second, what else there is follows.
inline constexpr size_t kDirectoryFd = 1;
absl::StatusOr<OpenedDevice> MakePty(const std::string& path);
absl::StatusOr<OpenedDevice> MakeSockets(const std::string& path);

// Removes their names, as long as they are what was made.
void RemovePtyLink(const OpenedDevice& opened);
void RemoveSockets(const OpenedDevice& opened);

}  // namespace vmsg::backend
