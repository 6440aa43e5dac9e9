// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/opening/image_uses.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <set>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/devices/blk/opening/image_lock.h"

namespace vmsg::backend {
namespace {

// Shown of many.
constexpr size_t kShownUses = 3;

absl::StatusOr<std::vector<DiskUse>> UsesAround(const KernelView& kernel, dev_t disk) {
  std::vector<dev_t> disks = kernel.Relatives(disk);
  disks.push_back(disk);
  return kernel.UsesOf(disks);
}

absl::Status RefuseUses(const std::vector<DiskUse>& uses, bool read_only) {
  std::vector<std::string> shown;
  for (const DiskUse& use : uses) {
    if (read_only && !use.writes) continue;
    if (shown.size() < kShownUses) shown.push_back(absl::CHexEscape(use.what));
  }
  if (shown.empty()) shown.emplace_back("is claimed by another program or a guest");
  return absl::InvalidArgumentError(absl::StrCat(
      absl::StrJoin(shown, ", "), read_only
                                      ? "; a disk that another writes cannot be read here"
                                      : "; a disk that is in use cannot be attached for writing"));
}

// A disk's turn to be claimed, its partitions' included. Of others nobody waits: opening a disk can
// take for ever.
class ClaimTurn {
 public:
  explicit ClaimTurn(dev_t disk) : disk_(disk) {
    std::unique_lock lock(mutex);
    ended.wait(lock, [&] { return claimed.insert(disk_).second; });
  }
  ClaimTurn(const ClaimTurn&) = delete;
  ClaimTurn& operator=(const ClaimTurn&) = delete;
  ~ClaimTurn() {
    const std::lock_guard lock(mutex);
    claimed.erase(disk_);
    ended.notify_all();
  }

 private:
  static inline std::mutex mutex;
  static inline std::condition_variable ended;
  static inline std::set<dev_t> claimed;  // guarded by mutex
  const dev_t disk_;
};

// Whether somebody has claimed the disk, a part of it or what it is a part of. One at a time: it is
// found out by claiming it.
bool IsClaimed(const KernelView& kernel, const UniqueFd& place, dev_t disk) {
  const ClaimTurn turn(kernel.WholeDisk(disk));
  return !Reopen(place, O_RDONLY | O_EXCL | O_NONBLOCK) && errno == EBUSY;
}

}  // namespace

UniqueFd Reopen(const UniqueFd& place, int flags) {
  return UniqueFd(open(absl::StrCat("/proc/self/fd/", place.get()).c_str(), flags | O_CLOEXEC));
}

absl::Status RefuseBusyDisk(const KernelView& kernel, dev_t disk) {
  absl::StatusOr<std::vector<DiskUse>> uses = UsesAround(kernel, disk);
  return RefuseUses(uses.ok() ? *uses : std::vector<DiskUse>(), /*read_only=*/false);
}

absl::Status CheckDiskUses(const KernelView& kernel, const UniqueFd& place, dev_t disk,
                           bool read_only) {
  const bool claimed = read_only && IsClaimed(kernel, place, disk);
  absl::StatusOr<std::vector<DiskUse>> uses = UsesAround(kernel, disk);
  if (!uses.ok()) return uses.status();
  bool writer = claimed && uses->empty();
  for (const DiskUse& use : *uses) writer |= use.writes || !read_only;
  if (writer) return RefuseUses(*uses, read_only);
  if (read_only) return absl::OkStatus();
  // Readers of what the disk is made of have no claim, but a lock.
  for (const dev_t below : kernel.Below(disk)) {
    const std::string path = absl::StrCat("/dev/", kernel.Name(below));
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW));
    struct stat file = {};
    if (!fd || fstat(fd.get(), &file) != 0 || file.st_rdev != below) continue;
    if (absl::Status free = CheckUnlocked(fd); !free.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("is on ", path, ", which ", free.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFileUses(const KernelView& kernel, const struct stat& file, bool read_only,
                           const std::string& loop) {
  absl::StatusOr<std::vector<LoopDevice>> loops = kernel.LoopsOn(file);
  if (!loops.ok()) return loops.status();
  for (const LoopDevice& other : *loops) {
    if (other.name == loop || (read_only && other.read_only)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("is the file of /dev/", other.name,
                     ", which may be mounted or written at any time; once it is unmounted, "
                     "losetup -d /dev/",
                     other.name, " ends that"));
  }
  absl::StatusOr<bool> swap = kernel.IsSwap(file);
  if (!swap.ok()) return swap.status();
  if (*swap) return absl::InvalidArgumentError("is swapped to by this machine");
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> HoldLoopFile(const KernelView& kernel, const UniqueFd& loop, dev_t disk,
                                      bool read_only) {
  const std::string path = kernel.LoopFile(disk);
  loop_info64 info = {};
  if (path.empty() || ioctl(loop.get(), LOOP_GET_STATUS64, &info) != 0) return UniqueFd();
  UniqueFd fd(open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC));
  struct stat file = {};
  if (!fd || fstat(fd.get(), &file) != 0 || file.st_ino != info.lo_inode ||
      file.st_dev != info.lo_device) {
    // Removed, or of another mount namespace.
    return UniqueFd();
  }
  absl::Status status = LockImage(fd, read_only);
  if (status.ok()) status = CheckFileUses(kernel, file, read_only, kernel.Name(disk));
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("is the loop device of ", absl::CHexEscape(path), ", which ",
                                     status.message()));
  }
  return fd;
}

}  // namespace vmsg::backend
