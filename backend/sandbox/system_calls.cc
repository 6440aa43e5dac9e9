// SPDX-License-Identifier: Apache-2.0
// The allow list. A row is added when a test under the filter ends with SIGSYS, with its reason.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
extern "C" {
#include <xen/xen.h>
// These need the types of the one above.
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>
}

#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "backend/sandbox/sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VMSG_SANDBOX_AVAILABLE false
#else
#define VMSG_SANDBOX_AVAILABLE true
#endif

namespace vmsg::backend {
namespace {

// Whatever their arguments are.
constexpr const char* kAllowed[] = {
    // Descriptors that are there.
    "read", "readv", "pread64", "write", "writev", "close", "lseek", "dup", "dup3", "fstat",
    // Files: images, terminals' links, sockets, the trace and configurations are opened while
    // guests are served. aarch64 has the *at calls only.
    "openat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "getdents64", "readlink",
    "readlinkat", "symlink", "symlinkat", "unlink", "unlinkat", "fchmod",
    // A trace that is full is renamed, and cut to whole messages when its disk is full.
    "rename", "renameat", "renameat2", "ftruncate",
    // Loops.
    "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "pipe2",
    "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "io_uring_enter",
    // Sockets; which families there can be is below.
    "connect", "bind", "listen", "accept4", "shutdown", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "sendto", "sendmsg", "recvfrom", "recvmsg",
    // Memory; mmap and mprotect are below.
    "munmap", "mremap", "madvise", "brk",
    // Threads and signals; clone is below.
    "futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "restart_syscall", "exit", "exit_group",
    // Time. On Xen's clock these are calls, elsewhere the vDSO answers.
    "clock_gettime", "clock_getres", "clock_nanosleep", "gettimeofday", "nanosleep", "time",
    // What libraries ask about.
    "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "uname", "sysinfo",
    "getrandom"};

// Requests of drivers that devices and Xen's libraries use. TIOCSTI and the like are not among
// them.
constexpr uint64_t kIoctls[] = {
    // A disk's size and blocks.
    BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, LOOP_GET_STATUS64,
    // A console's terminal.
    TCGETS, TCSETS, TIOCGPTN, TIOCSPTLCK, TIOCGWINSZ, FIONREAD,
    // A guest's pages and event channels.
    IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR,
    IOCTL_GNTDEV_GRANT_COPY, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, IOCTL_EVTCHN_BIND_INTERDOMAIN,
    IOCTL_EVTCHN_UNBIND, IOCTL_EVTCHN_NOTIFY,
    // Which domains exist (libxenctrl). The filter does not see which hypercall it is.
    IOCTL_PRIVCMD_HYPERCALL};

constexpr uint64_t kFcntls[] = {F_GETFD,         F_SETFD,     F_GETFL,    F_SETFL,
                                F_DUPFD_CLOEXEC, F_OFD_SETLK, F_OFD_GETLK};

constexpr uint64_t kThread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                 CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE;
// The kernel looks at 32 bits of these arguments.
constexpr uint64_t kLow32 = 0xffffffff;

struct ReleaseFilter {
  void operator()(void* filter) const { seccomp_release(filter); }
};

class AllowList {
 public:
  AllowList() : filter_(seccomp_init(SCMP_ACT_KILL_PROCESS)) {}

  void Allow(const char* call, std::initializer_list<scmp_arg_cmp> arguments = {}) {
    Add(SCMP_ACT_ALLOW, call, arguments);
  }
  void AllowArgument(const char* call, unsigned argument, uint64_t value) {
    Allow(call, {SCMP_CMP64(argument, SCMP_CMP_MASKED_EQ, kLow32, value & kLow32)});
  }
  // For what a library tries before it does something else.
  void Fail(const char* call, int error) { Add(SCMP_ACT_ERRNO(error), call, {}); }

  absl::Status Load() {
    if (filter_ == nullptr) return absl::ResourceExhaustedError("seccomp: no memory");
    const std::pair<scmp_filter_attr, uint32_t> attributes[] = {
        {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
        {SCMP_FLTATR_CTL_NNP, 1},
        {SCMP_FLTATR_CTL_TSYNC, 1},
        {SCMP_FLTATR_CTL_OPTIMIZE, 2}};  // a tree: the list is long
    for (const auto& [attribute, value] : attributes) {
      const int code = seccomp_attr_set(filter_.get(), attribute, value);
      if (code < 0 && error_.ok()) error_ = Error(code, "an attribute of the filter");
    }
    if (!error_.ok()) return error_;
    const int code = seccomp_load(filter_.get());
    return code < 0 ? Error(code, "loading the filter") : absl::OkStatus();
  }

 private:
  void Add(uint32_t action, const char* call, std::initializer_list<scmp_arg_cmp> arguments) {
    if (filter_ == nullptr) return;
    const int number = seccomp_syscall_resolve_name(call);
    // libseccomp may be older than the call, or this machine may not have it: it stays forbidden.
    if (number == __NR_SCMP_ERROR) return;
    const int code = seccomp_rule_add_array(
        filter_.get(), action, number, static_cast<unsigned>(arguments.size()), arguments.begin());
    if (code < 0 && error_.ok()) error_ = Error(code, call);
  }
  static absl::Status Error(int code, const char* what) {
    return absl::ErrnoToStatus(-code, absl::StrCat("seccomp: ", what));
  }

  std::unique_ptr<std::remove_pointer_t<scmp_filter_ctx>, ReleaseFilter> filter_;
  absl::Status error_;
};

}  // namespace

bool SandboxIsAvailable() { return VMSG_SANDBOX_AVAILABLE; }

absl::Status RestrictSystemCalls() {
  if (!SandboxIsAvailable()) return absl::UnimplementedError("built with sanitizers");
  AllowList list;
  for (const char* call : kAllowed) list.Allow(call);
  for (uint64_t request : kIoctls) list.AllowArgument("ioctl", 1, request);
  for (uint64_t command : kFcntls) list.AllowArgument("fcntl", 1, command);
  list.AllowArgument("socket", 0, AF_UNIX);
  list.AllowArgument("socketpair", 0, AF_UNIX);
  for (const char* call : {"mmap", "mprotect"}) {
    list.Allow(call, {SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)});
  }
  list.Allow("clone", {SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, kThread | kNamespaces, kThread)});
  // Its flags are in memory, where a filter does not look; glibc falls back to clone.
  list.Fail("clone3", ENOSYS);
  list.AllowArgument("prctl", 0, PR_SET_NAME);
  // Reads a limit; does not set one.
  list.Allow("prlimit64", {SCMP_CMP64(2, SCMP_CMP_EQ, 0)});
  // abort, and the end of libxenstore's thread.
  list.AllowArgument("tgkill", 0, static_cast<uint64_t>(getpid()));
  // The rings were set up, and restricted to reads, writes and syncs, before; each is enabled by
  // its thread's first request.
  list.AllowArgument("io_uring_register", 1, IORING_REGISTER_ENABLE_RINGS);
  return list.Load();
}

}  // namespace vmsg::backend
