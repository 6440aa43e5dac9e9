// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend blk read, write, verify
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "tools/vmsg-frontend/commands.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::frontend_tool {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::GuestBlock;

constexpr uint64_t kBounceBytes = 2 << 20;

struct Range {
  uint64_t offset = 0;
  uint64_t length = 0;
};

absl::StatusOr<Range> ReadRange(const BlkDriver& disk, const Arguments& arguments) {
  const uint64_t capacity = disk.limits().capacity;
  absl::StatusOr<uint64_t> offset = arguments.Number("offset", 0, 0, capacity);
  if (!offset.ok()) return offset.status();
  absl::StatusOr<uint64_t> length =
      arguments.Number("length", capacity - *offset, 0, capacity - *offset);
  if (!length.ok()) return length.status();
  if (*offset % 512 != 0 || *length % 512 != 0) {
    return UsageError("--offset and --length are multiples of 512");
  }
  return Range{*offset, *length};
}

// The largest buffer up to kBounceBytes that the window has room for.
absl::StatusOr<GuestBlock> AllocateBounce(BlkDriver& disk) {
  absl::StatusOr<GuestBlock> block = absl::ResourceExhaustedError("no window");
  for (uint64_t size = kBounceBytes; size >= 4096; size /= 2) {
    block = disk.client().memory().Allocate(size, 4096);
    if (block.ok()) break;
  }
  return block;
}

absl::Status ReadTo(BlkDriver& disk, Range range, int fd) {
  absl::StatusOr<GuestBlock> bounce = AllocateBounce(disk);
  if (!bounce.ok()) return bounce.status();
  while (range.length > 0) {
    const uint64_t piece = std::min<uint64_t>(range.length, bounce->size());
    absl::Status status = disk.Read(range.offset, bounce->address(), piece, After(kPatience));
    if (status.ok()) status = WriteAll(fd, bounce->bytes().data(), piece);
    if (!status.ok()) return status;
    range.offset += piece;
    range.length -= piece;
  }
  return absl::OkStatus();
}

absl::Status RunRead(BlkDriver& disk, const Arguments& arguments) {
  absl::StatusOr<Range> range = ReadRange(disk, arguments);
  if (!range.ok()) return range.status();
  if (arguments.Has("sha256")) {
    std::fflush(stdout);
    FILE* const sum = ::popen("sha256sum", "we");
    if (sum == nullptr) return absl::ErrnoToStatus(errno, "start sha256sum");
    absl::Status status = ReadTo(disk, *range, ::fileno(sum));
    const int exit_status = ::pclose(sum);
    if (status.ok() && exit_status != 0) return absl::InternalError("sha256sum failed");
    return status;
  }
  const std::string file = arguments.words().size() > 2 ? arguments.words()[2] : "-";
  if (file == "-") return ReadTo(disk, *range, STDOUT_FILENO);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return absl::ErrnoToStatus(errno, file);
  absl::Status status = ReadTo(disk, *range, fd);
  if (::close(fd) != 0 && status.ok()) status = absl::ErrnoToStatus(errno, file);
  return status;
}

// As much of `bytes` as the file still has; a short count is its end.
absl::StatusOr<size_t> ReadFully(int fd, std::span<std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::read(fd, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, "read");
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

absl::Status RunWrite(BlkDriver& disk, const Arguments& arguments) {
  if (arguments.words().size() < 3) {
    return UsageError("blk write: which file? (- is standard input)");
  }
  absl::StatusOr<Range> range = ReadRange(disk, arguments);
  if (!range.ok()) return range.status();
  absl::StatusOr<GuestBlock> bounce = AllocateBounce(disk);
  if (!bounce.ok()) return bounce.status();
  const std::string& file = arguments.words()[2];
  const int fd = file == "-" ? STDIN_FILENO : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, file);
  const absl::Cleanup close_file = [fd] { ::close(fd); };
  uint64_t written = 0;
  for (;;) {
    const uint64_t room = std::min<uint64_t>(bounce->size(), range->length - written);
    absl::StatusOr<size_t> got = ReadFully(fd, bounce->bytes().first(room));
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    const uint64_t padded = (*got + 511) & ~uint64_t{511};
    std::memset(bounce->bytes().data() + *got, 0, padded - *got);
    absl::Status status =
        disk.Write(range->offset + written, bounce->address(), padded, After(kPatience));
    if (!status.ok()) return status;
    written += padded;
    if (*got < room) break;
  }
  char extra;
  if (written == range->length && ::read(fd, &extra, 1) == 1) {
    return absl::OutOfRangeError(
        absl::StrCat(file, " is longer than the ", range->length, " bytes it may be written to"));
  }
  if (arguments.Has("flush")) {
    if (absl::Status status = disk.Flush(After(kPatience)); !status.ok()) return status;
  }
  std::fprintf(stderr, "wrote %llu bytes at %llu%s\n", static_cast<unsigned long long>(written),
               static_cast<unsigned long long>(range->offset),
               arguments.Has("flush") ? ", flushed" : "");
  return absl::OkStatus();
}

// splitmix64 of seed and position: each 8 bytes of the disk have a value of their own.
uint64_t PatternWord(uint64_t seed, uint64_t position) {
  uint64_t z = seed + position * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

absl::Status RunVerify(BlkDriver& disk, const Arguments& arguments) {
  absl::StatusOr<Range> range = ReadRange(disk, arguments);
  if (!range.ok()) return range.status();
  absl::StatusOr<uint64_t> seed = arguments.Number("seed", 1, 0, UINT64_MAX);
  if (!seed.ok()) return seed.status();
  absl::StatusOr<GuestBlock> bounce = AllocateBounce(disk);
  if (!bounce.ok()) return bounce.status();
  const auto each_piece = [&](auto action) -> absl::Status {
    for (uint64_t done = 0; done < range->length;) {
      const uint64_t piece = std::min<uint64_t>(range->length - done, bounce->size());
      if (absl::Status status = action(range->offset + done, piece); !status.ok()) return status;
      done += piece;
    }
    return absl::OkStatus();
  };
  absl::Status status = each_piece([&](uint64_t offset, uint64_t piece) {
    for (uint64_t i = 0; i < piece; i += 8) {
      const uint64_t word = PatternWord(*seed, offset + i);
      std::memcpy(bounce->bytes().data() + i, &word, 8);
    }
    return disk.Write(offset, bounce->address(), piece, After(kPatience));
  });
  if (status.ok()) status = disk.Flush(After(kPatience));
  if (!status.ok()) return status;
  status = each_piece([&](uint64_t offset, uint64_t piece) {
    std::memset(bounce->bytes().data(), 0, piece);
    absl::Status read = disk.Read(offset, bounce->address(), piece, After(kPatience));
    for (uint64_t i = 0; read.ok() && i < piece; i += 8) {
      const uint64_t word = PatternWord(*seed, offset + i);
      if (std::memcmp(bounce->bytes().data() + i, &word, 8) == 0) continue;
      read =
          absl::DataLossError(absl::StrCat("byte ", offset + i, " differs from what was written"));
    }
    return read;
  });
  if (!status.ok()) return status;
  std::printf("verified %llu bytes at %llu with seed %llu\n",
              static_cast<unsigned long long>(range->length),
              static_cast<unsigned long long>(range->offset),
              static_cast<unsigned long long>(*seed));
  return absl::OkStatus();
}

}  // namespace

absl::Status RunBlk(frontend::BusConnection& connection, const Arguments& arguments) {
  const std::string action = arguments.words().size() > 1 ? arguments.words()[1] : "";
  absl::Status (*run)(BlkDriver&, const Arguments&) = nullptr;
  if (action == "read") run = RunRead;
  if (action == "write") run = RunWrite;
  if (action == "verify") run = RunVerify;
  if (action == "bench") run = RunBlkBench;
  if (run == nullptr) {
    return UsageError("blk read, blk write, blk verify or blk bench?");
  }
  absl::StatusOr<uint64_t> depth = arguments.Number("depth", 32, 1, 1024);
  if (!depth.ok()) return depth.status();
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
      OpenDevice(connection, arguments, wire::kDeviceIdBlock, "blk");
  if (!device.ok()) return device.status();
  frontend::BlkOptions options;
  options.depth = static_cast<uint32_t>(*depth);
  absl::StatusOr<std::unique_ptr<BlkDriver>> disk = BlkDriver::Create(*std::move(device), options);
  if (!disk.ok()) return disk.status();
  return run(**disk, arguments);
}

}  // namespace vmsg::frontend_tool
