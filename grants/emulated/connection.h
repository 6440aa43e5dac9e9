// SPDX-License-Identifier: Apache-2.0
// One open handle at xen-emu: requests and their replies.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grants/emulated/protocol.h"

namespace vmsg::emu {

// An owned file descriptor.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~OwnedFd() { Reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset();

 private:
  int fd_ = -1;
};

struct Reply {
  std::vector<std::byte> body;
  std::array<OwnedFd, kMaxFileDescriptors> fds;

  // The T at `offset`; InvalidArgument when the body is too short.
  template <class T>
  absl::Status Get(size_t offset, T* value) const {
    if (offset > body.size() || sizeof(T) > body.size() - offset) return Short();
    std::memcpy(value, body.data() + offset, sizeof(T));
    return absl::OkStatus();
  }
  template <class T>
  absl::Status GetArray(size_t offset, size_t count, std::vector<T>* values) const {
    if (offset > body.size() || count > (body.size() - offset) / sizeof(T)) return Short();
    values->resize(count);
    if (count != 0) std::memcpy(values->data(), body.data() + offset, count * sizeof(T));
    return absl::OkStatus();
  }

 private:
  absl::Status Short() const;
};

// One thread at a time. A reply that does not come within kReplyTimeoutSeconds, or that breaks the
// protocol, ends the connection: from then on everything is Unavailable.
class Connection {
 public:
  static constexpr int kReplyTimeoutSeconds = 60;

  // `socket_path`: D/hypervisor or D/domains/<domid>/hypervisor. Unavailable: nobody serves there.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const std::string& socket_path);

  // Sends a request of two parts (the second may be empty) and waits for its reply. The error is
  // the one that xen-emu answered, or Unavailable.
  absl::StatusOr<Reply> Call(Operation operation, std::span<const std::byte> first,
                             std::span<const std::byte> second = {});
  template <class Request>
  absl::StatusOr<Reply> Call(Operation operation, const Request& request,
                             std::span<const std::byte> second = {}) {
    return Call(operation, std::as_bytes(std::span(&request, 1)), second);
  }

  // Sends a one-way request. A connection that is gone has released everything already.
  void Post(Operation operation, const ReleaseRequest& request);

 private:
  Connection(OwnedFd socket, std::string path)
      : socket_(std::move(socket)), path_(std::move(path)) {}
  absl::Status Send(Operation operation, std::span<const std::byte> first,
                    std::span<const std::byte> second);
  absl::StatusOr<Reply> Receive(Operation operation);
  absl::Status ReceiveFirst(std::span<std::byte> buffer, size_t* received, Reply* reply);
  absl::Status Broken(absl::string_view what, int error);

  OwnedFd socket_;
  std::string path_;
};

}  // namespace vmsg::emu
