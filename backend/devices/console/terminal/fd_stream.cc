// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/terminal/fd_stream.h"

#include <limits.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace vmsg::backend {

FdStream::FdStream(EventLoop* loop, absl::AnyInvocable<void(uint32_t)> on_events)
    : loop_(loop), on_events_(std::move(on_events)) {}

void FdStream::Open(int fd, bool is_socket) {
  Close();
  fd_ = fd;
  is_socket_ = is_socket;
  input_ended_ = false;
  Update();
}

void FdStream::Close() {
  if (fd_ < 0) return;
  if (watching_) loop_->Unwatch(fd_);
  watching_ = false;
  watched_ = 0;
  want_room_ = false;
  fd_ = -1;
}

void FdStream::WantInput(bool wanted) {
  want_input_ = wanted;
  Update();
}

void FdStream::ResumeInput() {
  input_ended_ = false;
  Update();
}

void FdStream::Update() {
  if (fd_ < 0) return;
  // EPOLLHUP and EPOLLERR are always told.
  const uint32_t wanted =
      (want_input_ && !input_ended_ ? EPOLLIN : 0u) | (want_room_ ? EPOLLOUT : 0u);
  if (watching_ && wanted == watched_) return;
  if (watching_) loop_->Unwatch(fd_);
  watched_ = wanted;
  watching_ = loop_->Watch(fd_, wanted, [this](uint32_t events) { OnEvents(events); }).ok();
}

void FdStream::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    want_room_ = false;
    Update();
  }
  on_events_(events);
}

ssize_t FdStream::Write(absl::Span<const iovec> pieces) {
  const size_t count = std::min<size_t>(pieces.size(), IOV_MAX);
  ssize_t written;
  if (is_socket_) {
    msghdr message = {};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = count;
    written = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else {
    written = writev(fd_, pieces.data(), static_cast<int>(count));
  }
  if (written > 0) return written;
  if (written < 0 && errno != EAGAIN && errno != EINTR) return -1;
  want_room_ = true;
  Update();
  return 0;
}

ssize_t FdStream::Read(absl::Span<const iovec> pieces) {
  const int count = static_cast<int>(std::min<size_t>(pieces.size(), IOV_MAX));
  const ssize_t got = readv(fd_, pieces.data(), count);
  if (got > 0) return got;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  input_ended_ = true;
  Update();
  return -1;
}

}  // namespace vmsg::backend
