// SPDX-License-Identifier: Apache-2.0
// One vmsgd for one Xen: a lock that the kernel holds until the server is entirely gone.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// The lock is an open file description's (F_OFD_SETLK) on a file that belongs to Xen itself and is
// there before any server: nobody has to make, write or remove it, so a full or read-only file
// system, a link in its place or a directory that was tidied up do not matter. Whoever refers to
// the description keeps the lock, an io_uring with requests in flight included; and the holder's
// pid is a part of the lock (the second byte that is locked is 1 + pid), so it cannot be stale.

struct LivingServer {
  pid_t pid = 0;        // 0: it cannot be told
  bool ending = false;  // the process is gone or a zombie, and the kernel has not finished with it
};

// The server that holds the lock at `path` (grants::Platform::lock_path()); nullopt: there is none.
// It takes no lock. An error: this cannot be told, and why.
absl::StatusOr<std::optional<LivingServer>> FindServer(const std::string& path);

// Becomes the server, as long as anything refers to the descriptor's file description.
// AlreadyExists: another one is; the text names it and says what to do.
absl::StatusOr<UniqueFd> TakeServerLock(const std::string& path);

}  // namespace vmsg::backend
