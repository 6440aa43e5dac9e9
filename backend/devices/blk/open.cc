// SPDX-License-Identifier: Apache-2.0
// Opening a disk image, with every refusal an administrator can meet.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/blk/blk.h"
#include "backend/devices/blk/image.h"
#include "backend/devices/entry_keys.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::backend {
namespace {

constexpr uint32_t kMaxQueues = 16;
// Suits every file system where the kernel does not tell (before Linux 6.1).
constexpr uint32_t kCautiousAlignment = 4096;

std::string Errno() { return std::strerror(errno); }

// Opens what `place` (O_PATH) stands for, so that it is the file that was looked at.
UniqueFd Reopen(const UniqueFd& place, int flags) {
  return UniqueFd(open(absl::StrCat("/proc/self/fd/", place.get()).c_str(), flags | O_CLOEXEC));
}

absl::Status Lock(const UniqueFd& fd, bool read_only, absl::string_view path) {
  struct flock lock = {};
  lock.l_type = read_only ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(fd.get(), F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  if (errno != EAGAIN && errno != EACCES) {
    return RefuseKey("path", path, absl::StrCat("cannot be locked: ", Errno()));
  }
  struct flock holder = lock;
  std::string who = "by an open file of this or another program (lslocks shows it)";
  if (fcntl(fd.get(), F_OFD_GETLK, &holder) == 0 && holder.l_type != F_UNLCK && holder.l_pid > 0) {
    who = absl::StrCat("by process ", holder.l_pid);
  }
  return RefuseKey("path", path,
                   absl::StrCat("is in use, locked ", who, "; ",
                                read_only ? "a disk that another writes cannot be read here"
                                          : "a disk can be attached for writing only once"));
}

absl::Status Measure(const UniqueFd& fd, const struct stat& file, absl::string_view path,
                     BlkImage* image) {
  if (S_ISBLK(file.st_mode)) {
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(fd.get(), BLKGETSIZE64, &image->bytes) != 0 ||
        ioctl(fd.get(), BLKSSZGET, &logical) != 0 || ioctl(fd.get(), BLKPBSZGET, &physical) != 0) {
      return RefuseKey("path", path, absl::StrCat("its size cannot be read: ", Errno()));
    }
    image->logical_block = logical;
    image->physical_block = physical;
  } else {
    struct stat now = {};
    if (fstat(fd.get(), &now) != 0) {
      return RefuseKey("path", path, absl::StrCat("its size cannot be read: ", Errno()));
    }
    image->bytes = now.st_size;
    // The guest's sectors are 512 bytes whatever the file system below: a partition table in the
    // image counts in them. The physical size hints at what is cheap.
    image->logical_block = wire::kBlkSectorSize;
    image->physical_block = std::clamp<uint32_t>(now.st_blksize, wire::kBlkSectorSize, 4096);
  }
  if (image->bytes == 0) return RefuseKey("path", path, "is empty; a disk has at least 512 bytes");
  if (image->bytes % image->logical_block != 0) {
    return RefuseKey("path", path,
                     absl::StrCat("has ", image->bytes, " bytes, which is not a multiple of ",
                                  image->logical_block, "; truncate -s %", image->logical_block,
                                  " makes it one"));
  }
  return absl::OkStatus();
}

void Alignments(const UniqueFd& fd, BlkImage* image) {
  image->memory_alignment = kCautiousAlignment;
  image->offset_alignment = std::max(kCautiousAlignment, image->logical_block);
#ifdef STATX_DIOALIGN
  struct statx more = {};
  if (statx(fd.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &more) == 0 &&
      (more.stx_mask & STATX_DIOALIGN) != 0 && more.stx_dio_mem_align != 0) {
    // Not less than a block: zram says 512, takes blocks of 4096 for whole pages and writes past a
    // buffer that begins elsewhere (Linux 6.18).
    image->memory_alignment = std::max(more.stx_dio_mem_align, image->logical_block);
    image->offset_alignment = more.stx_dio_offset_align;
  }
#endif
}

// Some file systems accept O_DIRECT and refuse each transfer.
bool DirectReads(const UniqueFd& fd, const BlkImage& image) {
  const size_t bytes = std::max<size_t>(image.offset_alignment, wire::kBlkSectorSize);
  const size_t alignment = std::max<size_t>(image.memory_alignment, sizeof(void*));
  std::unique_ptr<void, decltype(&std::free)> block(
      std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment), std::free);
  return block != nullptr && pread(fd.get(), block.get(), bytes, 0) >= 0;
}

absl::Status OpenDirect(const DeviceEntry& entry, const UniqueFd& place, int flags,
                        BlkImage* image) {
  absl::StatusOr<bool> wanted = FlagOr(entry, "direct", true);
  if (!wanted.ok()) return wanted.status();
  if (!*wanted) return absl::OkStatus();
  UniqueFd fd = Reopen(place, flags | O_DIRECT);
  std::string why = Errno();
  if (fd) {
    Alignments(fd, image);
    if (DirectReads(fd, *image)) {
      image->direct = std::move(fd);
      return absl::OkStatus();
    }
    why = Errno();
  }
  if (entry.keys.contains("direct")) {
    return RefuseKey("direct", "1",
                     absl::StrCat("the file does not allow direct I/O (", why,
                                  "); leave the key out or write direct=0"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Serial(const DeviceEntry& entry) {
  std::string serial = KeyOr(entry, "serial", "");
  if (serial.size() > wire::kBlkIdSize) {
    return RefuseKey("serial", serial,
                     absl::StrCat("is longer than ", wire::kBlkIdSize, " characters"));
  }
  for (const char c : serial) {
    if (!absl::ascii_isprint(c)) {
      return RefuseKey("serial", serial, "must be printable ASCII characters");
    }
  }
  return serial;
}

}  // namespace

absl::StatusOr<OpenedDevice> OpenBlk(const DeviceEntry& entry) {
  BlkImage image;
  absl::StatusOr<std::string> path = AbsolutePath(entry, "path");
  if (!path.ok()) return path.status();
  absl::StatusOr<bool> read_only = FlagOr(entry, "readonly", false);
  if (!read_only.ok()) return read_only.status();
  image.read_only = *read_only;
  const std::string cache = KeyOr(entry, "cache", "writeback");
  if (cache != "writeback" && cache != "writethrough") {
    return RefuseKey("cache", cache, "must be writeback or writethrough");
  }
  image.writethrough = cache == "writethrough";
  absl::StatusOr<uint32_t> queues = NumberOr(entry, "queues", 1, 1, kMaxQueues);
  if (!queues.ok()) return queues.status();
  image.queues = *queues;
  absl::StatusOr<std::string> serial = Serial(entry);
  if (!serial.ok()) return serial.status();
  image.serial = *std::move(serial);

  // O_PATH looks without side effects: a FIFO would block an ordinary open.
  UniqueFd place(open(path->c_str(), O_PATH | O_CLOEXEC));
  if (!place) return RefuseKey("path", *path, Errno());
  struct stat file = {};
  if (fstat(place.get(), &file) != 0) return RefuseKey("path", *path, Errno());
  if (!S_ISREG(file.st_mode) && !S_ISBLK(file.st_mode)) {
    return RefuseKey("path", *path, "is neither a regular file nor a block device");
  }
  const int flags = image.read_only ? O_RDONLY : O_RDWR;
  // O_EXCL on a block device: refused while it is mounted or another holds it.
  const bool exclusive = S_ISBLK(file.st_mode) && !image.read_only;
  image.buffered = Reopen(place, flags | (exclusive ? O_EXCL : 0));
  if (!image.buffered) {
    const bool denied = errno == EACCES || errno == EPERM || errno == EROFS;
    return RefuseKey(
        "path", *path,
        absl::StrCat(Errno(),
                     denied && !image.read_only ? "; readonly=1 needs no right to write" : ""));
  }
  if (absl::Status locked = Lock(image.buffered, image.read_only, *path); !locked.ok()) {
    return locked;
  }
  if (absl::Status sized = Measure(image.buffered, file, *path, &image); !sized.ok()) return sized;
  if (absl::Status direct = OpenDirect(entry, place, flags, &image); !direct.ok()) return direct;
  return PackImage(std::move(image));
}

}  // namespace vmsg::backend
