// SPDX-License-Identifier: Apache-2.0
// A file descriptor that is closed when it goes out of scope, or is given to whoever closes it.
#pragma once

#include <unistd.h>

#include <memory>
#include <utility>

namespace vmsg::backend {

// Closing a file can wait for its server (FUSE and NFS write back, and flush), even when it is one
// of several descriptors of the file. A thread that must not wait has somebody else do it.
class FdCloser {
 public:
  virtual ~FdCloser() = default;
  // Takes the descriptor, and closes it elsewhere. On the thread where it went out of scope. `self`
  // may be kept.
  virtual void Close(int fd, std::shared_ptr<FdCloser> self) = 0;
};

class UniqueFd {
 public:
  UniqueFd() = default;
  // Without a closer it is closed on the spot.
  explicit UniqueFd(int fd, std::shared_ptr<FdCloser> closer = nullptr)
      : fd_(fd), closer_(std::move(closer)) {}
  UniqueFd(UniqueFd&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), closer_(std::move(other.closer_)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
      closer_ = std::move(other.closer_);
    }
    return *this;
  }
  ~UniqueFd() { Close(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int Release() {
    closer_ = nullptr;
    return std::exchange(fd_, -1);
  }

 private:
  void Close() {
    const int fd = std::exchange(fd_, -1);
    FdCloser* const closer = closer_.get();
    if (fd < 0) {
      closer_ = nullptr;
    } else if (closer == nullptr) {
      ::close(fd);
    } else {
      closer->Close(fd, std::move(closer_));
    }
  }
  int fd_ = -1;
  std::shared_ptr<FdCloser> closer_;
};

}  // namespace vmsg::backend
