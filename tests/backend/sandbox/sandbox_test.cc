// SPDX-License-Identifier: Apache-2.0
// What the sandbox leaves, and that each class of what it takes ends the process. Every body runs
// in a child of its own.
#include "backend/sandbox/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <latch>
#include <thread>

namespace vmsg::backend {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!SandboxIsAvailable()) GTEST_SKIP() << "built with sanitizers";
  }
};
using SandboxDeathTest = SandboxTest;

// Goes on only where the sandbox is on.
void Enter() {
  if (!ShedPrivileges().ok() || !RestrictSystemCalls().ok()) _exit(99);
}
// The call has to end the process: if it returns, the exit status says so.
template <typename Call>
void ExpectForbidden(Call call) {
  EXPECT_EXIT(
      {
        Enter();
        call();
        _exit(1);
      },
      KilledBySignal(SIGSYS), "");
}

#define FORBIDDEN(name, call)      \
  TEST_F(SandboxDeathTest, name) { \
    ExpectForbidden([] { call; }); \
  }

FORBIDDEN(NothingIsExecuted, execl("/bin/true", "true", nullptr))
FORBIDDEN(NoProcessIsMade, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
FORBIDDEN(NoProcessIsForked, fork())
FORBIDDEN(NoNamespaceIsMade,
          syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_NEWUSER, 0, 0, 0, 0))
FORBIDDEN(NoProcessIsTraced, ptrace(PTRACE_TRACEME, 0, nullptr, nullptr))
FORBIDDEN(NoOtherMemoryIsRead, process_vm_readv(getppid(), nullptr, 0, nullptr, 0, 0))
FORBIDDEN(NoOtherProcessGetsASignal, kill(getppid(), 0))
FORBIDDEN(NoOtherThreadGroupGetsASignal, syscall(SYS_tgkill, getppid(), getppid(), 0))
FORBIDDEN(NoNetworkSocket, socket(AF_INET, SOCK_STREAM, 0))
FORBIDDEN(NoNetlinkSocket, socket(AF_NETLINK, SOCK_RAW, 0))
FORBIDDEN(NoVsock, socket(AF_VSOCK, SOCK_STREAM, 0))
FORBIDDEN(NoExecutableMemory, static_cast<void>(mmap(nullptr, 4096, PROT_READ | PROT_EXEC,
                                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
FORBIDDEN(NoMemoryBecomesExecutable, mprotect(&errno, 1, PROT_READ | PROT_EXEC))
FORBIDDEN(NoInputIsFakedOnATerminal, ioctl(0, TIOCSTI, "x"))
FORBIDDEN(NoOtherIoctl, ioctl(0, TIOCNOTTY))
// The kernel ignores the upper half of a request; so must the filter.
FORBIDDEN(NoIoctlHidesInTheUpperHalf, syscall(SYS_ioctl, 0, (1ull << 32) | TIOCSTI, "x"))
FORBIDDEN(NoOtherIoUring, [] {
  io_uring_params params = {};
  syscall(SYS_io_uring_setup, 1, &params);
}())
FORBIDDEN(NoIoUringIsRegisteredTo, syscall(SYS_io_uring_register, 0, IORING_REGISTER_BUFFERS, 0, 0))
FORBIDDEN(NothingIsMounted, mount("none", "/mnt", "tmpfs", 0, nullptr))
FORBIDDEN(NoUserIsBecome, syscall(SYS_setuid, 0))
FORBIDDEN(NoLimitIsRaised, [] {
  rlimit limit = {};
  setrlimit(RLIMIT_CORE, &limit);
}())
FORBIDDEN(NotDumpableAgain, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
FORBIDDEN(NoModuleIsLoaded, syscall(SYS_init_module, nullptr, 0, ""))
FORBIDDEN(NoKernelLog, syscall(SYS_syslog, 3, nullptr, 0))
FORBIDDEN(NoPerformanceCounters, syscall(SYS_perf_event_open, nullptr, 0, 0, 0, 0))
FORBIDDEN(NoBpf, syscall(SYS_bpf, 0, nullptr, 0))
FORBIDDEN(NoUserfaultfd, syscall(SYS_userfaultfd, 0))
FORBIDDEN(NoOwnerIsChanged, syscall(SYS_fchownat, AT_FDCWD, "/", 0, 0, 0))

TEST_F(SandboxDeathTest, BindsThreadsThatRanBefore) {
  EXPECT_EXIT(
      {
        std::latch restricted{1};
        std::thread before([&] {
          restricted.wait();
          (void)socket(AF_INET, SOCK_STREAM, 0);
          _exit(1);
        });
        Enter();
        restricted.count_down();
        before.join();
      },
      KilledBySignal(SIGSYS), "");
}

[[noreturn]] void ServeOn() {
  Enter();
  bool fine = true;
  std::thread([&] {
    pthread_setname_np(pthread_self(), "later");
    const int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int number = -1;
    fine = fine && fd >= 0 && ioctl(fd, TIOCGPTN, &number) == 0;
    fine = fine && fcntl(fd, F_DUPFD_CLOEXEC, 0) >= 0;
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fine = fine && page != MAP_FAILED && munmap(page, 4096) == 0;
  }).join();
  fine = fine && socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 && epoll_create1(0) >= 0;
  _exit(fine ? 0 : 1);
}

TEST_F(SandboxDeathTest, ServingGoesOn) { EXPECT_EXIT(ServeOn(), ExitedWithCode(0), ""); }

cap_flag_value_t Flag(cap_t set, cap_value_t capability, cap_flag_t flag) {
  cap_flag_value_t value = CAP_CLEAR;
  cap_get_flag(set, capability, flag, &value);
  return value;
}

[[noreturn]] void Shed() {
  cap_t before = cap_get_proc();
  if (!ShedPrivileges().ok()) _exit(99);
  cap_t after = cap_get_proc();
  bool fine = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 0;
  for (cap_value_t value = 0; CAP_IS_SUPPORTED(value); ++value) {
    const cap_flag_value_t wanted =
        value == CAP_DAC_OVERRIDE ? Flag(before, value, CAP_PERMITTED) : CAP_CLEAR;
    fine = fine && Flag(after, value, CAP_PERMITTED) == wanted &&
           Flag(after, value, CAP_EFFECTIVE) == wanted &&
           Flag(after, value, CAP_INHERITABLE) == CAP_CLEAR;
  }
  _exit(fine ? 0 : 1);
}

TEST_F(SandboxDeathTest, OneCapabilityIsKept) { EXPECT_EXIT(Shed(), ExitedWithCode(0), ""); }

}  // namespace
}  // namespace vmsg::backend
