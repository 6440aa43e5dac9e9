// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/opening/kernel_view.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {
namespace {

// More than any machine has.
constexpr size_t kMaxNames = 65536;
constexpr size_t kMaxBytes = size_t{64} << 20;
// Mappings on mappings, and disks of one.
constexpr size_t kMaxBelow = 256;

// The whole of a file of the kernel's; empty: there is none.
absl::StatusOr<std::string> ReadKernelFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text;
  if (!fd) return text;
  char bytes[65536];
  while (true) {
    const ssize_t got = read(fd.get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(bytes, static_cast<size_t>(got));
    if (text.size() > kMaxBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, " is longer than ", kMaxBytes, " bytes"));
    }
  }
}

std::string ReadLine(const std::string& path) {
  return std::string(absl::StripAsciiWhitespace(ReadKernelFile(path).value_or("")));
}

absl::StatusOr<std::vector<std::string>> ListNames(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(directory, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (names.size() == kMaxNames) {
      return absl::ResourceExhaustedError(
          absl::StrCat(directory, " has more than ", kMaxNames, " names"));
    }
    names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// "8:1", or in hexadecimal as Xen's block backend writes it.
std::optional<dev_t> ParseDevice(absl::string_view text, bool hexadecimal = false) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  uint32_t numbers[2] = {};
  if (parts.size() != 2) return std::nullopt;
  for (int i = 0; i < 2; ++i) {
    if (hexadecimal ? !absl::SimpleHexAtoi(parts[i], &numbers[i])
                    : !absl::SimpleAtoi(parts[i], &numbers[i])) {
      return std::nullopt;
    }
  }
  return makedev(numbers[0], numbers[1]);
}

// Spaces and the like are \040 in the kernel's tables.
std::string Unescape(absl::string_view field) {
  std::string text;
  return absl::CUnescape(field, &text) ? text : std::string(field);
}

struct MountLine {
  std::optional<dev_t> device;  // some file systems, such as btrfs, have a number that is no disk's
  std::string place;
  std::string type;
  std::string source;
  std::vector<absl::string_view> options;  // of the file system
};

// 36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue
std::optional<MountLine> ParseMount(absl::string_view line) {
  const std::vector<absl::string_view> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  if (halves.size() != 2) return std::nullopt;
  const std::vector<absl::string_view> mount = absl::StrSplit(halves[0], ' ');
  const std::vector<absl::string_view> system = absl::StrSplit(halves[1], ' ');
  if (mount.size() < 6 || system.size() < 3) return std::nullopt;
  return MountLine{.device = ParseDevice(mount[2]),
                   .place = Unescape(mount[4]),
                   .type = std::string(system[0]),
                   .source = Unescape(system[1]),
                   .options = absl::StrSplit(system[2], ',')};
}

// A server that may not answer, ever.
bool IsServed(const std::string& type) {
  for (const char* served : {"nfs", "cifs", "smb", "ceph", "9p", "fuse", "gluster", "afs"}) {
    if (absl::StartsWith(type, served)) return true;
  }
  return false;
}

// Whether the path is on a server's file system, and that one is not `device`.
bool IsServedElsewhere(absl::string_view mounts, absl::string_view path, dev_t device) {
  MountLine longest;
  for (absl::string_view line : absl::StrSplit(mounts, '\n')) {
    std::optional<MountLine> mount = ParseMount(line);
    if (!mount.has_value() || mount->place.size() < longest.place.size()) continue;
    const absl::string_view below = absl::StripSuffix(mount->place, "/");
    if (absl::StartsWith(path, absl::StrCat(below, "/"))) longest = *std::move(mount);
  }
  return IsServed(longest.type) && longest.device != device;
}

bool Contains(absl::Span<const dev_t> disks, dev_t disk) {
  return std::find(disks.begin(), disks.end(), disk) != disks.end();
}

bool IsDisk(const std::string& path, absl::Span<const dev_t> disks) {
  struct stat file = {};
  return absl::StartsWith(path, "/dev/") && stat(path.c_str(), &file) == 0 &&
         S_ISBLK(file.st_mode) && Contains(disks, file.st_rdev);
}

}  // namespace

std::string KernelView::Directory(dev_t disk) const {
  return absl::StrCat(files_.sys, "/dev/block/", major(disk), ":", minor(disk));
}

std::string KernelView::Name(dev_t disk) const {
  std::error_code error;
  const std::string name = std::filesystem::canonical(Directory(disk), error).filename().string();
  return error ? absl::StrCat(major(disk), ":", minor(disk)) : name;
}

std::vector<dev_t> KernelView::Relatives(dev_t disk) const {
  const std::string directory = Directory(disk);
  std::vector<dev_t> relatives;
  const auto add = [&](const std::string& path) {
    if (std::optional<dev_t> found = ParseDevice(ReadLine(absl::StrCat(path, "/dev")));
        found.has_value() && relatives.size() < kMaxBelow) {
      relatives.push_back(*found);
    }
  };
  std::error_code error;
  if (std::filesystem::exists(absl::StrCat(directory, "/partition"), error)) {
    add(absl::StrCat(directory, "/.."));
    return relatives;
  }
  absl::StatusOr<std::vector<std::string>> names = ListNames(absl::StrCat(directory, "/"));
  if (!names.ok()) return relatives;
  for (const std::string& name : *names) {
    const std::string below = absl::StrCat(directory, "/", name);
    if (std::filesystem::exists(absl::StrCat(below, "/partition"), error)) add(below);
  }
  return relatives;
}

dev_t KernelView::WholeDisk(dev_t disk) const {
  std::error_code error;
  if (!std::filesystem::exists(absl::StrCat(Directory(disk), "/partition"), error)) return disk;
  return ParseDevice(ReadLine(absl::StrCat(Directory(disk), "/../dev"))).value_or(disk);
}

std::vector<dev_t> KernelView::Below(dev_t disk) const {
  std::vector<dev_t> below;
  std::vector<dev_t> look = {disk};
  std::error_code error;
  while (!look.empty() && below.size() < kMaxBelow) {
    const std::string directory = Directory(look.back());
    look.pop_back();
    std::vector<std::string> paths;
    if (std::filesystem::exists(absl::StrCat(directory, "/partition"), error)) {
      paths.push_back(absl::StrCat(directory, "/.."));
    }
    for (const std::string& name :
         ListNames(absl::StrCat(directory, "/slaves")).value_or(std::vector<std::string>())) {
      paths.push_back(absl::StrCat(directory, "/slaves/", name));
    }
    for (const std::string& path : paths) {
      const std::optional<dev_t> found = ParseDevice(ReadLine(absl::StrCat(path, "/dev")));
      if (!found.has_value() || Contains(below, *found)) continue;
      below.push_back(*found);
      look.push_back(*found);
    }
  }
  return below;
}

std::string KernelView::LoopFile(dev_t disk) const {
  return ReadLine(absl::StrCat(Directory(disk), "/loop/backing_file"));
}

absl::StatusOr<std::vector<LoopDevice>> KernelView::LoopsOn(const struct stat& file) const {
  absl::StatusOr<std::vector<std::string>> names = ListNames(absl::StrCat(files_.sys, "/block"));
  if (!names.ok()) return names.status();
  absl::StatusOr<std::string> mounts = ReadKernelFile(absl::StrCat(files_.proc, "/self/mountinfo"));
  if (!mounts.ok()) return mounts.status();
  std::vector<LoopDevice> loops;
  for (const std::string& name : *names) {
    if (!absl::StartsWith(name, "loop")) continue;
    const std::string directory = absl::StrCat(files_.sys, "/block/", name);
    const std::string path = ReadLine(absl::StrCat(directory, "/loop/backing_file"));
    // Asking a loop device asks its file's server: another guest's must not be waited for.
    if (path.empty() || IsServedElsewhere(*mounts, path, file.st_dev)) continue;
    // The driver knows the file itself; its path may mean another one by now, or here.
    const UniqueFd device(open(absl::StrCat(files_.dev, "/", name).c_str(),
                               O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW));
    loop_info64 info = {};
    struct stat there = {};
    bool same = false;
    if (device && ioctl(device.get(), LOOP_GET_STATUS64, &info) == 0) {
      same = info.lo_inode == file.st_ino && info.lo_device == file.st_dev;
    } else {
      same = stat(path.c_str(), &there) == 0 && there.st_ino == file.st_ino &&
             there.st_dev == file.st_dev;
    }
    if (same) loops.push_back({name, ReadLine(absl::StrCat(directory, "/ro")) == "1"});
  }
  return loops;
}

absl::StatusOr<std::vector<DiskUse>> KernelView::UsesOf(absl::Span<const dev_t> disks) const {
  std::vector<DiskUse> uses;
  if (absl::Status status = AddMounts(disks, &uses); !status.ok()) return status;
  for (const dev_t disk : disks) AddHolders(disk, &uses);
  absl::StatusOr<std::string> swaps = ReadKernelFile(absl::StrCat(files_.proc, "/swaps"));
  if (!swaps.ok()) return swaps.status();
  for (absl::string_view line : absl::StrSplit(*swaps, '\n')) {
    const std::string path = Unescape(line.substr(0, line.find_first_of(" \t")));
    if (IsDisk(path, disks)) uses.push_back({absl::StrCat("is swapped to (", path, ")"), true});
  }
  if (absl::Status status = AddXenGuests(disks, &uses); !status.ok()) return status;
  return uses;
}

absl::Status KernelView::AddMounts(absl::Span<const dev_t> disks,
                                   std::vector<DiskUse>* uses) const {
  absl::StatusOr<std::string> mounts = ReadKernelFile(absl::StrCat(files_.proc, "/self/mountinfo"));
  if (!mounts.ok()) return mounts.status();
  for (absl::string_view line : absl::StrSplit(*mounts, '\n')) {
    const std::optional<MountLine> mount = ParseMount(line);
    if (!mount.has_value()) continue;
    if (!(mount->device.has_value() && Contains(disks, *mount->device)) &&
        !IsDisk(mount->source, disks)) {
      continue;
    }
    const auto& options = mount->options;
    const bool writes = std::find(options.begin(), options.end(), "ro") == options.end();
    uses->push_back({absl::StrCat("is mounted at ", mount->place), writes});
    if (uses->size() >= kMaxBelow) break;  // no more is needed to refuse it
  }
  return absl::OkStatus();
}

void KernelView::AddHolders(dev_t disk, std::vector<DiskUse>* uses) const {
  const std::string directory = absl::StrCat(Directory(disk), "/holders");
  for (const std::string& name : ListNames(directory).value_or(std::vector<std::string>())) {
    const std::string holder = absl::StrCat(directory, "/", name);
    const std::string mapping = ReadLine(absl::StrCat(holder, "/dm/name"));
    uses->push_back(
        {absl::StrCat("is part of ", name, mapping.empty() ? "" : absl::StrCat(" (", mapping, ")")),
         ReadLine(absl::StrCat(holder, "/ro")) != "1"});
  }
}

absl::Status KernelView::AddXenGuests(absl::Span<const dev_t> disks,
                                      std::vector<DiskUse>* uses) const {
  const std::string directory = absl::StrCat(files_.sys, "/bus/xen-backend/devices");
  absl::StatusOr<std::vector<std::string>> names = ListNames(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    // vbd-<domain>-<device>. The kernel's backend does not claim its disks.
    if (!absl::StartsWith(name, "vbd-")) continue;
    const std::string device = absl::StrCat(directory, "/", name);
    const std::optional<dev_t> disk =
        ParseDevice(ReadLine(absl::StrCat(device, "/physical_device")), /*hexadecimal=*/true);
    if (!disk.has_value() || !Contains(disks, *disk)) continue;
    uses->push_back({absl::StrCat("is the disk ", name, " of a guest (xl block-list)"),
                     absl::StrContains(ReadLine(absl::StrCat(device, "/mode")), "w")});
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> KernelView::IsSwap(const struct stat& file) const {
  absl::StatusOr<std::string> swaps = ReadKernelFile(absl::StrCat(files_.proc, "/swaps"));
  if (!swaps.ok()) return swaps.status();
  for (absl::string_view line : absl::StrSplit(*swaps, '\n')) {
    struct stat there = {};
    const std::string path = Unescape(line.substr(0, line.find_first_of(" \t")));
    if (absl::StartsWith(path, "/") && stat(path.c_str(), &there) == 0 &&
        there.st_ino == file.st_ino && there.st_dev == file.st_dev) {
      return true;
    }
  }
  return false;
}

}  // namespace vmsg::backend
