// SPDX-License-Identifier: Apache-2.0
#include "backend/server-lock/server_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace vmsg::backend {
namespace {

struct flock Range(off_t start, off_t length) {
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;  // 0: to the end of all files
  return range;
}

// Where the first lock in the range begins; nullopt: nothing there is locked.
absl::StatusOr<std::optional<off_t>> FirstLock(int fd, const std::string& path, off_t start,
                                               off_t length) {
  struct flock range = Range(start, length);
  if (fcntl(fd, F_OFD_GETLK, &range) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("asking who locks ", path));
  }
  if (range.l_type == F_UNLCK) return std::optional<off_t>();
  return std::optional<off_t>(range.l_start);
}

absl::StatusOr<UniqueFd> Open(const std::string& path, int access) {
  UniqueFd fd(open(path.c_str(), access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat(path, ", on which one vmsgd at a time holds a lock, cannot be opened"));
  }
  return fd;
}

// Of a process's flags (proc(5), stat): it has begun to end, and hangs in that, for example while a
// file is closed whose server does not answer. From <linux/sched.h>, which is the kernel's own.
constexpr unsigned kExiting = 0x4;

// Gone, or one that its parent has only to be told of, or on its way there.
bool HasEnded(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  // "1234 (name, with any characters) S ..."
  const size_t name_end = text.rfind(") ");
  if (name_end == std::string::npos) return true;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(name_end + 2), ' ');
  unsigned flags = 0;
  return fields[0] == "Z" || fields[0] == "X" ||
         (fields.size() > 6 && absl::SimpleAtoi(fields[6], &flags) && (flags & kExiting) != 0);
}

absl::StatusOr<std::optional<LivingServer>> Holder(int fd, const std::string& path) {
  absl::StatusOr<std::optional<off_t>> lock = FirstLock(fd, path, 0, 1);
  if (!lock.ok()) return lock.status();
  if (!lock->has_value()) return std::optional<LivingServer>();
  absl::StatusOr<std::optional<off_t>> name = FirstLock(fd, path, 1, 0);
  if (!name.ok()) return name.status();
  LivingServer server;
  if (name->has_value()) {
    server.pid = static_cast<pid_t>(**name - 1);
    server.ending = HasEnded(server.pid);
  }
  return std::optional<LivingServer>(server);
}

absl::Status Refusal(const std::optional<LivingServer>& holder) {
  const std::string who = holder.has_value() && holder->pid != 0
                              ? absl::StrCat("process ", holder->pid)
                              : std::string("whose process cannot be told");
  if (holder.has_value() && holder->ending) {
    return absl::AlreadyExistsError(absl::StrCat(
        "another vmsgd, ", who, ", has ended, but the kernel still works for it: a request to a ",
        "disk that does not answer can reach guests' memory and images until that disk does"));
  }
  return absl::AlreadyExistsError(absl::StrCat(
      "another vmsgd, ", who,
      ", serves this Xen. To change its trace or log level, change its vmsgd.conf and send it "
      "SIGHUP (systemctl reload vmsgd); to take its place, end it first (systemctl stop vmsgd)"));
}

}  // namespace

absl::StatusOr<std::optional<LivingServer>> FindServer(const std::string& path) {
  absl::StatusOr<UniqueFd> fd = Open(path, O_RDONLY);
  if (!fd.ok()) return fd.status();
  return Holder(fd->get(), path);
}

absl::StatusOr<UniqueFd> TakeServerLock(const std::string& path) {
  absl::StatusOr<UniqueFd> fd = Open(path, O_RDWR);
  if (!fd.ok()) return fd.status();
  // The second is nobody else's, but for a server of this number that the kernel still works for.
  for (const off_t byte : {off_t{0}, off_t{1} + getpid()}) {
    struct flock range = Range(byte, 1);
    if (fcntl(fd->get(), F_OFD_SETLK, &range) == 0) continue;
    if (errno != EAGAIN && errno != EACCES) {
      return absl::ErrnoToStatus(errno, absl::StrCat("locking ", path));
    }
    absl::StatusOr<std::optional<LivingServer>> holder = Holder(fd->get(), path);
    if (!holder.ok()) return holder.status();
    return Refusal(*holder);
  }
  return fd;
}

}  // namespace vmsg::backend
