// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/opening/image_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

// QEMU (block/file-posix.c) locks single bytes for reading, each of which says what its holder
// does, or lets nobody else do: these are kinds of permission added to one of two bases.
constexpr off_t kQemuDoes = 100;
constexpr off_t kQemuForbids = 200;
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kResize = 3;
// Kinds that there are, or may come to be.
constexpr off_t kQemuKinds = 64;

struct flock Range(short type, off_t start, off_t length) {
  struct flock range = {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;  // 0: to the end, wherever it comes to be
  return range;
}

// Whether a descriptor of this very process has locked the file: such a lock has no process.
bool LockedHere(const UniqueFd& fd) {
  struct stat ours = {};
  if (fstat(fd.get(), &ours) != 0) return false;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator("/proc/self/fdinfo", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    int other = -1;
    struct stat theirs = {};
    if (!absl::SimpleAtoi(entry->path().filename().string(), &other) || other == fd.get() ||
        fstat(other, &theirs) != 0 || theirs.st_ino != ours.st_ino ||
        theirs.st_dev != ours.st_dev) {
      continue;
    }
    std::ifstream info(entry->path());
    for (std::string line; std::getline(info, line);) {
      if (absl::StrContains(line, "OFDLCK")) return true;
    }
  }
  return false;
}

absl::Status Locked(const UniqueFd& fd, const struct flock& holder, bool read_only) {
  std::string who = "by another program (fuser -v shows who has it open)";
  if (holder.l_type != F_UNLCK && holder.l_pid > 0) {
    who = absl::StrCat("by process ", holder.l_pid);
  } else if (LockedHere(fd)) {
    who = "by another device of this vmsgd (vmsgctl list shows which)";
  }
  return absl::InvalidArgumentError(
      absl::StrCat("is in use, locked ", who, "; ",
                   read_only ? "a disk that another writes cannot be read here"
                             : "a disk can be attached for writing only once"));
}

// A lock of somebody else's that one of this type on the range would meet.
absl::Status Test(const UniqueFd& fd, short type, off_t start, off_t length, bool read_only) {
  struct flock holder = Range(type, start, length);
  if (fcntl(fd.get(), F_OFD_GETLK, &holder) != 0 || holder.l_type == F_UNLCK) {
    return absl::OkStatus();
  }
  return Locked(fd, holder, read_only);
}

absl::Status Take(const UniqueFd& fd, short type, off_t start, off_t length) {
  struct flock range = Range(type, start, length);
  if (fcntl(fd.get(), F_OFD_SETLK, &range) == 0) return absl::OkStatus();
  const bool read_only = type == F_RDLCK;
  if (errno != EAGAIN && errno != EACCES) {
    return absl::InvalidArgumentError(absl::StrCat("cannot be locked: ", std::strerror(errno)));
  }
  absl::Status holder = Test(fd, type, start, length, read_only);
  // Let go of meanwhile.
  return holder.ok() ? Locked(fd, {}, read_only) : holder;
}

}  // namespace

absl::Status LockImage(const UniqueFd& fd, bool read_only) {
  if (!read_only) return Take(fd, F_WRLCK, 0, 0);
  // Around QEMU's bytes, which say what this reader does: reading, and no writer beside it.
  const struct {
    off_t start, length;
  } ranges[] = {{0, kQemuDoes + kConsistentRead + 1},
                {kQemuDoes + kQemuKinds, kQemuForbids - kQemuDoes - kQemuKinds},
                {kQemuForbids + kWrite, 1},
                {kQemuForbids + kResize, 1},
                {kQemuForbids + kQemuKinds, 0}};
  for (const auto& [start, length] : ranges) {
    if (absl::Status taken = Take(fd, F_RDLCK, start, length); !taken.ok()) return taken;
  }
  // Taken first and looked at then, as QEMU does it: of two at once one sees the other.
  for (const off_t byte :
       {kQemuForbids + kConsistentRead, kQemuDoes + kWrite, kQemuDoes + kResize}) {
    if (absl::Status free = Test(fd, F_WRLCK, byte, 1, read_only); !free.ok()) return free;
  }
  return absl::OkStatus();
}

absl::Status CheckUnlocked(const UniqueFd& fd) {
  return Test(fd, F_WRLCK, 0, kQemuDoes, /*read_only=*/false);
}

}  // namespace vmsg::backend
