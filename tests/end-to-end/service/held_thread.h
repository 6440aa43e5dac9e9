// SPDX-License-Identifier: Apache-2.0
// A thread of another process that hangs as in a system call that does not return.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace vmsg::test {

// Until it is destroyed, by the thread that made it.
class HeldThread {
 public:
  // The first thread of that name, held at its next system call that is not waiting for events: the
  // process must be busy. PermissionDenied: this machine does not allow it (ptrace).
  static absl::StatusOr<std::unique_ptr<HeldThread>> Hold(pid_t process, const std::string& name);
  ~HeldThread();

 private:
  explicit HeldThread(pid_t thread) : thread_(thread) {}
  const pid_t thread_;
};

}  // namespace vmsg::test
