// SPDX-License-Identifier: Apache-2.0
#include "tests/end-to-end/service/held_thread.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace vmsg::test {
namespace {

constexpr long kWaits[] = {
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_epoll_pwait, SYS_ppoll, SYS_futex};

absl::StatusOr<pid_t> FindThread(pid_t process, const std::string& name) {
  for (const auto& task :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", process, "/task"))) {
    std::string comm;
    std::getline(std::ifstream(task.path() / "comm"), comm);
    if (comm == name) return std::stoi(task.path().filename().string());
  }
  return absl::NotFoundError(absl::StrCat("no thread ", name));
}

bool IsCall(pid_t thread) {
  __ptrace_syscall_info info = {};
  const long size = ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info);
  return size > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY &&
         std::find(std::begin(kWaits), std::end(kWaits), static_cast<long>(info.entry.nr)) ==
             std::end(kWaits);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HeldThread>> HeldThread::Hold(pid_t process,
                                                             const std::string& name) {
  absl::StatusOr<pid_t> thread = FindThread(process, name);
  if (!thread.ok()) return thread.status();
  if (ptrace(PTRACE_SEIZE, *thread, nullptr, PTRACE_O_TRACESYSGOOD) != 0) {
    return absl::ErrnoToStatus(errno, "PTRACE_SEIZE");
  }
  std::unique_ptr<HeldThread> held(new HeldThread(*thread));
  if (ptrace(PTRACE_INTERRUPT, *thread, nullptr, nullptr) != 0) {
    return absl::ErrnoToStatus(errno, "PTRACE_INTERRUPT");
  }
  while (true) {
    int status = 0;
    if (waitpid(*thread, &status, __WALL) != *thread || !WIFSTOPPED(status)) {
      return absl::InternalError("the thread ended");
    }
    if (WSTOPSIG(status) == (SIGTRAP | 0x80) && IsCall(*thread)) return held;
    if (ptrace(PTRACE_SYSCALL, *thread, nullptr, nullptr) != 0) {
      return absl::ErrnoToStatus(errno, "PTRACE_SYSCALL");
    }
  }
}

HeldThread::~HeldThread() { ptrace(PTRACE_DETACH, thread_, nullptr, nullptr); }

}  // namespace vmsg::test
