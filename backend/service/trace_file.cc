// SPDX-License-Identifier: Apache-2.0
#include "backend/service/trace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "virtio-msg/capture.h"

namespace vmsg::backend {

namespace {

absl::StatusOr<UniqueFd> CreateCapture(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("--trace: cannot create ", path));
  const auto header = wire::CaptureFileHeader();
  if (write(fd.get(), header.data(), header.size()) != static_cast<ssize_t>(header.size())) {
    return absl::ErrnoToStatus(errno, absl::StrCat("--trace: cannot write ", path));
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::shared_ptr<TraceFile>> TraceFile::Create(const std::string& path) {
  absl::StatusOr<UniqueFd> fd = CreateCapture(path);
  if (!fd.ok()) return fd.status();
  return std::shared_ptr<TraceFile>(new TraceFile(*std::move(fd)));
}

absl::Status TraceFile::Reopen(const std::string& path) {
  UniqueFd next;
  if (!path.empty()) {
    struct stat named = {}, written = {};
    {
      std::lock_guard lock(mutex_);
      if (fd_ && stat(path.c_str(), &named) == 0 && fstat(fd_.get(), &written) == 0 &&
          named.st_dev == written.st_dev && named.st_ino == written.st_ino) {
        return absl::OkStatus();
      }
    }
    absl::StatusOr<UniqueFd> created = CreateCapture(path);
    if (!created.ok()) return created.status();
    next = *std::move(created);
  }
  std::lock_guard lock(mutex_);
  std::swap(fd_, next);
  return absl::OkStatus();
}

void TraceFile::Write(uint16_t frontend, uint32_t bus, bool from_driver,
                      std::span<const std::byte> message) {
  std::lock_guard lock(mutex_);
  if (!fd_) return;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const auto header =
      wire::CapturePacketHeader({.time_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
                                            static_cast<uint64_t>(now.tv_nsec),
                                 .direction = from_driver ? wire::CaptureDirection::kDriverToDevice
                                                          : wire::CaptureDirection::kDeviceToDriver,
                                 .frontend = frontend,
                                 .bus = bus,
                                 .message = message});
  iovec pieces[2] = {{const_cast<std::byte*>(header.data()), header.size()},
                     {const_cast<std::byte*>(message.data()), message.size()}};
  const ssize_t size = static_cast<ssize_t>(header.size() + message.size());
  if (writev(fd_.get(), pieces, 2) == size) return;
  Log(LogLevel::kError, absl::StrCat("--trace: writing failed, the trace ends here: ",
                                     absl::ErrnoToStatus(errno, "").message()));
  fd_ = UniqueFd();
}

namespace {

class TraceTap : public MessageTap {
 public:
  TraceTap(std::shared_ptr<TraceFile> file, uint16_t frontend, uint32_t bus)
      : file_(std::move(file)), frontend_(frontend), bus_(bus) {}
  void OnMessage(bool from_driver, std::span<const std::byte> message) override {
    file_->Write(frontend_, bus_, from_driver, message);
  }

 private:
  const std::shared_ptr<TraceFile> file_;
  const uint16_t frontend_;
  const uint32_t bus_;
};

}  // namespace

std::unique_ptr<MessageTap> NewTraceTap(std::shared_ptr<TraceFile> file, uint16_t frontend,
                                        uint32_t bus) {
  return std::make_unique<TraceTap>(std::move(file), frontend, bus);
}

}  // namespace vmsg::backend
