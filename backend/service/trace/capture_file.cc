// SPDX-License-Identifier: Apache-2.0
#include "backend/service/trace/capture_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "virtio-msg/capture.h"

namespace vmsg::backend {
namespace {

constexpr char kOlder[] = ".1";

absl::Status Refuse(const std::string& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("trace: ", path, ": ", why));
}

absl::Status SystemError(absl::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("trace: ", what, " ", path));
}

// Whether something is there; then it is one of ours, which may be moved or replaced.
absl::StatusOr<bool> IsOurCapture(const std::string& path) {
  struct stat file = {};
  if (lstat(path.c_str(), &file) != 0) {
    if (errno == ENOENT) return false;
    return SystemError("cannot look at", path);
  }
  if (S_ISLNK(file.st_mode)) return Refuse(path, "is a link, which a trace does not follow");
  if (!S_ISREG(file.st_mode)) {
    return Refuse(path, "is no regular file; a trace is written to a file only");
  }
  if (file.st_uid != geteuid()) return Refuse(path, "belongs to another user");
  if (file.st_size == 0) return true;
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return SystemError("cannot look into", path);
  std::array<std::byte, wire::kCaptureFileHeaderSize> header = {};
  const ssize_t got = read(fd.get(), header.data(), header.size());
  if (got < 0) return SystemError("cannot read", path);
  if (static_cast<size_t>(got) < header.size() || !wire::ParseCaptureFileHeader(header).ok()) {
    return Refuse(path, "is there and is no trace; it is not overwritten");
  }
  return true;
}

// Makes room at `path`.
absl::Status MoveAside(const std::string& path) {
  absl::StatusOr<bool> there = IsOurCapture(path);
  if (!there.ok() || !*there) return there.status();
  const std::string older = absl::StrCat(path, kOlder);
  if (absl::Status replaceable = IsOurCapture(older).status(); !replaceable.ok()) {
    return replaceable;
  }
  if (rename(path.c_str(), older.c_str()) != 0) return SystemError("cannot rename", path);
  return absl::OkStatus();
}

// The packets at the beginning of `packets` that have at most `limit` bytes together.
struct Prefix {
  size_t bytes = 0;
  uint64_t packets = 0;
};
Prefix WholePackets(std::span<const std::byte> packets, uint64_t limit) {
  Prefix prefix;
  while (prefix.bytes < packets.size()) {
    const auto packet = wire::ParseCapturePacket({}, packets.subspan(prefix.bytes));
    if (!packet.ok() || !packet->has_value() || prefix.bytes + (*packet)->size > limit) break;
    prefix.bytes += (*packet)->size;
    ++prefix.packets;
  }
  return prefix;
}

Prefix FirstPacket(std::span<const std::byte> packets) {
  const auto packet = wire::ParseCapturePacket({}, packets);
  const bool whole = packet.ok() && packet->has_value();
  return {.bytes = whole ? (*packet)->size : packets.size(), .packets = 1};
}

}  // namespace

absl::Status CheckTracePath(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (path.empty() || slash == path.size() - 1) return Refuse(path, "names no file");
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash);
  struct stat place = {};
  if (stat(directory.c_str(), &place) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return SystemError("cannot look at", directory);
    return Refuse(path, "its directory is not there");
  }
  for (const std::string& name : {path, absl::StrCat(path, kOlder)}) {
    if (absl::Status status = IsOurCapture(name).status(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<CaptureFile> CaptureFile::Begin(TraceSettings settings) {
  const std::string& path = settings.path;
  if (absl::Status checked = CheckTracePath(path); !checked.ok()) return checked;
  if (absl::Status moved = MoveAside(path); !moved.ok()) return moved;
  // Nobody else's, whatever was put there meanwhile.
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return SystemError("cannot create", path);
  CaptureFile file(std::move(settings), std::move(fd));
  const auto header = wire::CaptureFileHeader();
  if (absl::Status written = file.WriteWhole(header); !written.ok()) {
    unlink(file.path().c_str());
    return written;
  }
  return file;
}

absl::Status CaptureFile::WriteWhole(std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = write(fd_.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      if (written == 0) errno = ENOSPC;
      absl::Status failed = SystemError("cannot write", settings_.path);
      const Prefix whole = WholePackets(bytes, done);
      // Where it does not work, vmsg-decode says that the last packet is cut.
      [[maybe_unused]] int cut = ftruncate(fd_.get(), static_cast<off_t>(bytes_ + whole.bytes));
      packets_ += whole.packets;
      return failed;
    }
    done += static_cast<size_t>(written);
  }
  bytes_ += done;
  return absl::OkStatus();
}

absl::Status CaptureFile::Append(std::span<const std::byte> packets) {
  while (!packets.empty()) {
    const uint64_t room = settings_.max_bytes > bytes_ ? settings_.max_bytes - bytes_ : 0;
    Prefix fits = WholePackets(packets, room);
    if (fits.packets == 0 && bytes_ > wire::kCaptureFileHeaderSize) {
      // Under its name there may be another by now, which is refused as at the start.
      const uint64_t before = packets_;
      absl::StatusOr<CaptureFile> next = Begin(settings_);
      if (!next.ok()) return next.status();
      *this = *std::move(next);
      packets_ = before;
      continue;
    }
    // A file has one packet at least.
    if (fits.packets == 0) fits = FirstPacket(packets);
    if (absl::Status written = WriteWhole(packets.first(fits.bytes)); !written.ok()) {
      return written;
    }
    packets_ += fits.packets;
    packets = packets.subspan(fits.bytes);
  }
  return absl::OkStatus();
}

bool CaptureFile::InPlace() const {
  struct stat named = {}, written = {};
  return lstat(settings_.path.c_str(), &named) == 0 && fstat(fd_.get(), &written) == 0 &&
         named.st_dev == written.st_dev && named.st_ino == written.st_ino;
}

}  // namespace vmsg::backend
