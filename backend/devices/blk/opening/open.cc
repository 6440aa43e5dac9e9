// SPDX-License-Identifier: Apache-2.0
// Opening a disk image, with every refusal an administrator can meet.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "backend/devices/blk/blk.h"
#include "backend/devices/blk/image.h"
#include "backend/devices/blk/opening/image_format.h"
#include "backend/devices/blk/opening/image_lock.h"
#include "backend/devices/blk/opening/image_uses.h"
#include "backend/devices/entry_keys.h"
#include "backend/devices/path_walk.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::backend {
namespace {

constexpr uint32_t kMaxQueues = 16;
// Suits every file system where the kernel does not tell (before Linux 6.1).
constexpr uint32_t kCautiousAlignment = 4096;

absl::Status Measure(const UniqueFd& fd, const struct stat& file, absl::string_view path,
                     BlkImage* image) {
  if (S_ISBLK(file.st_mode)) {
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(fd.get(), BLKGETSIZE64, &image->bytes) != 0 ||
        ioctl(fd.get(), BLKSSZGET, &logical) != 0 || ioctl(fd.get(), BLKPBSZGET, &physical) != 0) {
      return RefuseKey("path", path, absl::StrCat("its size cannot be read: ", ErrnoText()));
    }
    image->logical_block = logical;
    image->physical_block = physical;
  } else {
    struct stat now = {};
    if (fstat(fd.get(), &now) != 0) {
      return RefuseKey("path", path, absl::StrCat("its size cannot be read: ", ErrnoText()));
    }
    image->bytes = now.st_size;
    // The guest's sectors are 512 bytes whatever the file system below: a partition table in the
    // image counts in them. The physical size hints at what is cheap.
    image->logical_block = wire::kBlkSectorSize;
    image->physical_block = std::clamp<uint32_t>(now.st_blksize, wire::kBlkSectorSize, 4096);
  }
  if (image->bytes == 0) return RefuseKey("path", path, "is empty; a disk has at least 512 bytes");
  return absl::OkStatus();
}

// The name of the file and its size say nothing about what is in it.
absl::Status CheckIsRaw(const BlkImage& image, absl::string_view path) {
  absl::StatusOr<const ImageFormat*> format = RecognizeFormat(image.buffered, image.bytes);
  if (!format.ok()) return RefuseKey("path", path, format.status().message());
  if (*format == nullptr) return absl::OkStatus();
  return RefuseKey(
      "path", path,
      absl::StrCat(
          "is ", (*format)->name,
          ", and only raw disks are served. If it is a raw disk that merely begins or ends "
          "like one (its guest can write that), format=raw attaches it as it is. Else ",
          (*format)->advice));
}

absl::Status CheckSize(const BlkImage& image, absl::string_view path) {
  if (image.bytes % image.logical_block != 0) {
    return RefuseKey(
        "path", path,
        absl::StrCat("has ", image.bytes, " bytes, which is not a multiple of ",
                     image.logical_block, "; truncate -s %", image.logical_block, " makes it one"));
  }
  return absl::OkStatus();
}

// Root's right to write anything is not what an administrator means who has taken that right away.
absl::Status CheckWritable(const UniqueFd& fd, const struct stat& file, absl::string_view path) {
  if ((file.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0) {
    return RefuseKey("path", path,
                     absl::StrFormat("may be written by nobody (mode %04o); chmod u+w changes "
                                     "that, readonly=1 needs no right to write",
                                     file.st_mode & 07777));
  }
  int read_only = 0;
  if (S_ISBLK(file.st_mode) && ioctl(fd.get(), BLKROGET, &read_only) == 0 && read_only != 0) {
    return RefuseKey("path", path,
                     "is a read-only disk (blockdev --getro); readonly=1 attaches it as one");
  }
  return absl::OkStatus();
}

// Opens the image for what it is wanted for, when nobody has it for what does not go with that.
absl::Status OpenAlone(const UniqueFd& place, const struct stat& file, absl::string_view path,
                       BlkImage* image) {
  const KernelView kernel{KernelFiles()};
  const bool is_disk = S_ISBLK(file.st_mode);
  const bool read_only = image->read_only;
  // A disk is claimed: others may not claim or mount it, or a part of it.
  image->buffered = Reopen(place, read_only ? O_RDONLY : is_disk ? O_RDWR | O_EXCL : O_RDWR);
  if (!image->buffered && errno == EBUSY && is_disk) {
    return RefuseKey("path", path, RefuseBusyDisk(kernel, file.st_rdev).message());
  }
  if (!image->buffered) {
    const bool denied = errno == EACCES || errno == EPERM || errno == EROFS;
    return RefuseKey(
        "path", path,
        absl::StrCat(ErrnoText(),
                     denied && !read_only ? "; readonly=1 needs no right to write" : ""));
  }
  if (!read_only) {
    if (absl::Status may = CheckWritable(image->buffered, file, path); !may.ok()) return may;
  }
  absl::Status alone = LockImage(image->buffered, read_only);
  if (alone.ok()) {
    alone = is_disk ? CheckDiskUses(kernel, place, file.st_rdev, read_only)
                    : CheckFileUses(kernel, file, read_only);
  }
  if (alone.ok() && is_disk) {
    absl::StatusOr<UniqueFd> held = HoldLoopFile(kernel, image->buffered, file.st_rdev, read_only);
    alone = held.status();
    if (held.ok()) image->loop_file = *std::move(held);
  }
  return alone.ok() ? alone : RefuseKey("path", path, alone.message());
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
  std::string why = ErrnoText();
  if (fd) {
    Alignments(fd, image);
    if (DirectReads(fd, *image)) {
      image->direct = std::move(fd);
      return absl::OkStatus();
    }
    why = ErrnoText();
  }
  if (entry.keys.contains("direct")) {
    return RefuseKey("direct", "1",
                     absl::StrCat("the file does not allow direct I/O (", why,
                                  "); leave the key out or write direct=0"));
  }
  return absl::OkStatus();
}

// A file system gives the number of a removed file to the next one, which is younger.
std::string Birth(int fd) {
  struct statx more = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &more) != 0 || (more.stx_mask & STATX_BTIME) == 0) {
    return "";
  }
  return absl::StrCat(" of ", more.stx_btime.tv_sec, ".", more.stx_btime.tv_nsec);
}

std::string SeenAs(int fd, const struct stat& file, const BlkImage& image) {
  const bool is_disk = S_ISBLK(file.st_mode);
  const dev_t device = is_disk ? file.st_rdev : file.st_dev;
  return absl::StrCat(is_disk ? "disk " : "file ", major(device), ":", minor(device),
                      is_disk ? "" : absl::StrCat(" inode ", file.st_ino, Birth(fd)), " of ",
                      image.bytes, " bytes");
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
  const std::string format = KeyOr(entry, "format", "raw");
  if (format != "raw") {
    return RefuseKey("format", format,
                     "must be raw; an image of another format has to be converted first");
  }
  absl::StatusOr<uint32_t> queues = NumberOr(entry, "queues", 1, 1, kMaxQueues);
  if (!queues.ok()) return queues.status();
  image.queues = *queues;
  absl::StatusOr<std::string> serial = Serial(entry);
  if (!serial.ok()) return serial.status();
  image.serial = *std::move(serial);

  // O_PATH looks without side effects: a FIFO would block an ordinary open.
  absl::StatusOr<UniqueFd> walked = WalkPath(*path);
  if (!walked.ok()) return RefuseKey("path", *path, walked.status().message());
  const UniqueFd place = *std::move(walked);
  struct stat file = {};
  if (fstat(place.get(), &file) != 0) return RefuseKey("path", *path, ErrnoText());
  if (!S_ISREG(file.st_mode) && !S_ISBLK(file.st_mode)) {
    return RefuseKey("path", *path, "is neither a regular file nor a block device");
  }
  if (absl::Status alone = OpenAlone(place, file, *path, &image); !alone.ok()) return alone;
  if (absl::Status sized = Measure(image.buffered, file, *path, &image); !sized.ok()) return sized;
  if (!entry.keys.contains("format")) {
    if (absl::Status raw = CheckIsRaw(image, *path); !raw.ok()) return raw;
  }
  if (absl::Status sized = CheckSize(image, *path); !sized.ok()) return sized;
  const int flags = image.read_only ? O_RDONLY : O_RDWR;
  if (absl::Status direct = OpenDirect(entry, place, flags, &image); !direct.ok()) return direct;
  std::string seen_as = SeenAs(place.get(), file, image);
  OpenedDevice opened = PackImage(std::move(image));
  opened.seen_as = std::move(seen_as);
  // What the guest writes from now on decides nothing any more.
  opened.found_keys["format"] = "raw";
  return opened;
}

}  // namespace vmsg::backend
