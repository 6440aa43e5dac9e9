// SPDX-License-Identifier: Apache-2.0
// Store on libxenstore. xenstored is trusted; what guests wrote into it is not, and passes through
// here as plain bytes.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
extern "C" {
#include <xen/io/xs_wire.h>
#include <xenstore.h>
}

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {
namespace {

// A commit that meets EAGAIN this often has a rival that never rests; giving up keeps a guest that
// toggles its own nodes from holding us for ever.
constexpr int kTransactionAttempts = 64;
// How many raw events one TakeWatchEvents folds for each event that it may return: bounds a call
// while libxenstore's queue, which has no bound of its own, is drained faster than it can fill.
constexpr size_t kRawEventsPerEvent = 16;

struct FreeDeleter {
  void operator()(void* memory) const { free(memory); }
};
template <typename T>
using Malloced = std::unique_ptr<T, FreeDeleter>;

absl::Status StatusFromErrno(int error, absl::string_view operation, absl::string_view path) {
  const std::string text =
      absl::StrCat("xenstore: ", operation, " ", path, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(text);
    case EINVAL:
    case EISDIR:
    case ENOTEMPTY:
      return absl::InvalidArgumentError(text);
    case EEXIST:
      return absl::AlreadyExistsError(text);
    case E2BIG:
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(text);
    case EAGAIN:
      return absl::AbortedError(text);
    case ENOSYS:
      return absl::UnimplementedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

// libxenstore takes C strings: a NUL would silently name another node.
absl::StatusOr<std::string> CheckedPath(absl::string_view path) {
  const size_t limit = absl::StartsWith(path, "/") ? XENSTORE_ABS_PATH_MAX : XENSTORE_REL_PATH_MAX;
  if (path.empty()) return absl::InvalidArgumentError("xenstore: the path is empty");
  if (path.size() > limit) {
    return absl::InvalidArgumentError(absl::StrCat("xenstore: the path has ", path.size(),
                                                   " bytes, more than the limit of ", limit));
  }
  if (path.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("xenstore: the path contains a NUL byte");
  }
  return std::string(path);
}

Access AccessFromBits(unsigned bits) {
  switch (bits & (XS_PERM_READ | XS_PERM_WRITE)) {
    case XS_PERM_READ:
      return Access::kRead;
    case XS_PERM_WRITE:
      return Access::kWrite;
    case XS_PERM_READ | XS_PERM_WRITE:
      return Access::kBoth;
    default:
      return Access::kNone;
  }
}

unsigned BitsFromAccess(Access access) {
  switch (access) {
    case Access::kNone:
      return XS_PERM_NONE;
    case Access::kRead:
      return XS_PERM_READ;
    case Access::kWrite:
      return XS_PERM_WRITE;
    case Access::kBoth:
      return XS_PERM_READ | XS_PERM_WRITE;
  }
  return XS_PERM_NONE;
}

// The operations, inside transaction `t` (XBT_NULL: outside any). Base: NodeAccess or Store.
template <typename Base>
class Operations : public Base {
 public:
  Operations(xs_handle* handle, xs_transaction_t t) : handle_(handle), t_(t) {}

  absl::StatusOr<std::string> Read(absl::string_view path) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    unsigned length = 0;
    Malloced<void> value(xs_read(handle_, t_, name->c_str(), &length));
    if (value == nullptr) return StatusFromErrno(errno, "read", path);
    return std::string(static_cast<const char*>(value.get()), length);
  }

  absl::Status Write(absl::string_view path, absl::string_view value) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    // A larger packet would cost us the connection.
    if (name->size() + 1 + value.size() > XENSTORE_PAYLOAD_MAX) {
      return absl::InvalidArgumentError(absl::StrCat(
          "xenstore: write ", path, ": path and value have ", name->size() + 1 + value.size(),
          " bytes, more than the limit of ", XENSTORE_PAYLOAD_MAX));
    }
    if (!xs_write(handle_, t_, name->c_str(), value.data(), value.size())) {
      return StatusFromErrno(errno, "write", path);
    }
    return absl::OkStatus();
  }

  absl::Status MakeDirectory(absl::string_view path) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    if (!xs_mkdir(handle_, t_, name->c_str())) return StatusFromErrno(errno, "mkdir", path);
    return absl::OkStatus();
  }

  absl::Status Remove(absl::string_view path) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    if (!xs_rm(handle_, t_, name->c_str())) return StatusFromErrno(errno, "remove", path);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> List(absl::string_view path) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    unsigned count = 0;
    Malloced<char*> entries(xs_directory(handle_, t_, name->c_str(), &count));
    if (entries == nullptr) return StatusFromErrno(errno, "list", path);
    return std::vector<std::string>(entries.get(), entries.get() + count);
  }

  absl::StatusOr<std::vector<Permission>> GetPermissions(absl::string_view path) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    unsigned count = 0;
    Malloced<xs_permissions> entries(xs_get_permissions(handle_, t_, name->c_str(), &count));
    if (entries == nullptr) return StatusFromErrno(errno, "get permissions of", path);
    std::vector<Permission> permissions;
    for (unsigned i = 0; i < count; ++i) {
      permissions.push_back(
          {static_cast<uint16_t>(entries.get()[i].id), AccessFromBits(entries.get()[i].perms)});
    }
    return permissions;
  }

  absl::Status SetPermissions(absl::string_view path,
                              const std::vector<Permission>& permissions) override {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    if (permissions.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("xenstore: set permissions of ", path, ": no owner was given"));
    }
    std::vector<xs_permissions> entries;
    entries.reserve(permissions.size());
    for (const Permission& permission : permissions) {
      entries.push_back({permission.domain, BitsFromAccess(permission.access)});
    }
    if (!xs_set_permissions(handle_, t_, name->c_str(), entries.data(), entries.size())) {
      return StatusFromErrno(errno, "set permissions of", path);
    }
    return absl::OkStatus();
  }

 protected:
  xs_handle* const handle_;

 private:
  xs_transaction_t t_;
};

// libxenstore does not make its descriptor readable when xenstored goes away, so a program that
// only polls would never learn of it. An idle second connection to the same socket does. Without a
// socket (a guest's /dev/xen/xenbus) there is no end of connection to see: -1.
int ConnectLiveness(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX};
  if (path.size() >= sizeof(address.sun_path)) return -1;
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// Where libxenstore finds a guest's kernel, and Dom0's without a socket.
int OpenKernel() {
  for (const char* device : {"/dev/xen/xenbus", "/proc/xen/xenbus"}) {
    const int fd = open(device, O_RDWR | O_CLOEXEC);
    if (fd >= 0) return fd;
  }
  return -1;
}

// errno, or 0 when it was taken.
int AskKernel(int fd, xsd_sockmsg_type type, const std::string& path, const std::string& token) {
  const xsd_sockmsg header{.type = type,
                           .len = static_cast<uint32_t>(path.size() + 1 + token.size() + 1)};
  const std::string message =
      absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&header), sizeof(header)), path,
                   absl::string_view("\0", 1), token, absl::string_view("\0", 1));
  return write(fd, message.data(), message.size()) < 0 ? errno : 0;
}

// Whether the kernel would take a watch: errno or 0. It answers one that xenstored refuses (a
// quota) by failing the write, upon which libxenstore closes its connection for good. So it is
// asked on another one first.
int TryKernelWatch(const std::string& path, const std::string& token) {
  const int fd = OpenKernel();
  if (fd < 0) return 0;  // the real attempt will tell
  const int error = AskKernel(fd, XS_WATCH, path, token);
  // Closing it would give the watch back too, but some time later.
  if (error == 0) AskKernel(fd, XS_UNWATCH, path, token);
  close(fd);
  return error;
}

class LibxenstoreStore final : public Operations<Store> {
 public:
  explicit LibxenstoreStore(xs_handle* handle) : Operations(handle, XBT_NULL) {}

  ~LibxenstoreStore() override {
    if (poll_fd_ >= 0) close(poll_fd_);
    if (liveness_ >= 0) close(liveness_);
    xs_close(handle_);
  }

  // `path`: where the handle is connected to.
  absl::Status PreparePolling(const std::string& path) {
    const int watch_fd = xs_fileno(handle_);
    if (watch_fd < 0) return StatusFromErrno(errno, "open", "the watch pipe");
    poll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (poll_fd_ < 0) return StatusFromErrno(errno, "poll", "the connection");
    if (absl::Status status = AddToPoll(watch_fd); !status.ok()) return status;
    liveness_ = ConnectLiveness(path);
    return liveness_ < 0 ? absl::OkStatus() : AddToPoll(liveness_);
  }

  absl::Status Transaction(const std::function<absl::Status(NodeAccess&)>& body) override {
    for (int attempt = 0; attempt < kTransactionAttempts; ++attempt) {
      const xs_transaction_t t = xs_transaction_start(handle_);
      if (t == XBT_NULL) return StatusFromErrno(errno, "start", "a transaction");
      Operations<NodeAccess> access(handle_, t);
      if (absl::Status status = body(access); !status.ok()) {
        xs_transaction_end(handle_, t, /*abort=*/true);
        return status;
      }
      if (xs_transaction_end(handle_, t, /*abort=*/false)) return absl::OkStatus();
      if (errno != EAGAIN) return StatusFromErrno(errno, "commit", "a transaction");
    }
    return absl::AbortedError(absl::StrCat("xenstore: a transaction met changes by others ",
                                           kTransactionAttempts,
                                           " times in a row; try again later"));
  }

  absl::Status Watch(absl::string_view path, absl::string_view token) override {
    return WatchCall(xs_watch, "watch", path, token);
  }
  absl::Status Unwatch(absl::string_view path, absl::string_view token) override {
    return WatchCall(xs_unwatch, "unwatch", path, token);
  }

  int fd() const override { return poll_fd_; }

  absl::StatusOr<std::vector<WatchEvent>> TakeWatchEvents(size_t max) override {
    std::vector<WatchEvent> events;
    absl::flat_hash_set<std::string> seen;
    for (size_t raw = 0; raw < max * kRawEventsPerEvent && events.size() < max; ++raw) {
      Malloced<char*> event(xs_check_watch(handle_));
      if (event == nullptr) {
        if (errno == EAGAIN) {
          if (!events.empty() || Alive()) return events;
          errno = EPIPE;
        }
        // What came before the end is still delivered; the next call reports the end.
        if (!events.empty()) return events;
        return absl::UnavailableError(
            absl::StrCat("xenstore: the connection to xenstored is lost: ", std::strerror(errno)));
      }
      const char* path = event.get()[XS_WATCH_PATH];
      const char* token = event.get()[XS_WATCH_TOKEN];
      // A NUL cannot occur in either, so the pair has one spelling.
      if (!seen.insert(absl::StrCat(path, absl::string_view("\0", 1), token)).second) continue;
      events.push_back({path, token});
    }
    return events;
  }

  absl::StatusOr<bool> IsDomainIntroduced(uint16_t domain) override {
    errno = 0;
    const bool introduced = xs_is_domain_introduced(handle_, domain);
    // The library answers false for an error as well and leaves only errno to tell them apart.
    if (!introduced && errno != 0 && errno != EINTR && errno != EAGAIN) {
      return StatusFromErrno(
          errno, "ask whether a domain is introduced:", absl::StrCat("domain ", domain));
    }
    return introduced;
  }

 private:
  absl::Status WatchCall(bool (*call)(xs_handle*, const char*, const char*),
                         absl::string_view operation, absl::string_view path,
                         absl::string_view token) {
    absl::StatusOr<std::string> name = CheckedPath(path);
    if (!name.ok()) return name.status();
    if (token.find('\0') != absl::string_view::npos) {
      return absl::InvalidArgumentError("xenstore: the watch token contains a NUL byte");
    }
    if (call == xs_watch && liveness_ < 0) {
      if (const int error = TryKernelWatch(*name, std::string(token)); error != 0) {
        return StatusFromErrno(error, operation, path);
      }
    }
    if (!call(handle_, name->c_str(), std::string(token).c_str())) {
      return StatusFromErrno(errno, operation, path);
    }
    return absl::OkStatus();
  }

  absl::Status AddToPoll(int fd) {
    epoll_event event{.events = EPOLLIN | EPOLLRDHUP, .data = {.fd = fd}};
    if (epoll_ctl(poll_fd_, EPOLL_CTL_ADD, fd, &event) < 0) {
      return StatusFromErrno(errno, "poll", "the connection");
    }
    return absl::OkStatus();
  }

  // False when xenstored closed the second connection.
  bool Alive() const {
    if (liveness_ < 0) return true;
    char byte;
    const ssize_t got = recv(liveness_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
  }

  int poll_fd_ = -1;
  int liveness_ = -1;  // a second connection to xenstored's socket; -1: through the kernel
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenStore(const std::string& socket) {
  constexpr char kVariable[] = "XENSTORED_PATH";
  const char* set = getenv(kVariable);
  const std::optional<std::string> before = set ? std::optional<std::string>(set) : std::nullopt;
  if (!socket.empty()) setenv(kVariable, socket.c_str(), 1);
  xs_handle* handle = xs_open(0);
  const int open_error = errno;
  const std::string path = xs_daemon_socket();
  if (!socket.empty()) {
    before ? setenv(kVariable, before->c_str(), 1) : unsetenv(kVariable);
  }
  if (handle == nullptr) {
    return absl::UnavailableError(absl::StrCat("xenstore: cannot connect to xenstored at ", path,
                                               ": ", std::strerror(open_error),
                                               "; is it running, and may this user connect?"));
  }
  auto store = std::make_unique<LibxenstoreStore>(handle);
  if (absl::Status status = store->PreparePolling(path); !status.ok()) return status;
  return store;
}

}  // namespace vmsg::xenstore
