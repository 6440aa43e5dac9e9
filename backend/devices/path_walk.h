// SPDX-License-Identifier: Apache-2.0
// Where an administrator's path leads, when users own directories on the way.
//
// A user who owns a directory can put a symbolic link in a file's place at any time, and this
// process may open files that the user may not. So a link is followed only when it belongs to root,
// to this process's user, or to the owner of what the path leads to in the end: whoever made such a
// link could have named that file in their own right. The links of /dev/disk are root's.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// O_PATH on what the absolute path leads to, so that what was looked at is what is opened later. An
// error is a reason for RefuseKey: it names the link or the component at fault, not the path.
absl::StatusOr<UniqueFd> WalkPath(const std::string& path);

}  // namespace vmsg::backend
