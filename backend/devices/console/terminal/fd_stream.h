// SPDX-License-Identifier: Apache-2.0
// A non-blocking stream descriptor in the event loop, watched for just what is wanted.
#pragma once

#include <sys/uio.h>

#include "absl/functional/any_invocable.h"
#include "absl/types/span.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {

class FdStream {
 public:
  // `on_events` gets epoll's bits: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR.
  FdStream(EventLoop* loop, absl::AnyInvocable<void(uint32_t)> on_events);
  ~FdStream() { Close(); }

  // The descriptor stays the caller's, and open until Close.
  void Open(int fd, bool is_socket);
  void Close();
  bool is_open() const { return fd_ >= 0; }

  void WantInput(bool wanted);
  void ResumeInput();
  // Bytes; 0: it would block (then EPOLLOUT is watched for, once); -1: the other end is gone.
  ssize_t Write(absl::Span<const iovec> pieces);
  // Bytes; 0: nothing there; -1: the other end is gone or will send no more. Input is not watched
  // for any longer then, until ResumeInput; EPOLLHUP tells when it is gone.
  ssize_t Read(absl::Span<const iovec> pieces);

 private:
  void Update();
  void OnEvents(uint32_t events);

  EventLoop* const loop_;
  absl::AnyInvocable<void(uint32_t)> on_events_;
  int fd_ = -1;
  bool is_socket_ = false;
  bool want_input_ = false;
  bool want_room_ = false;
  bool input_ended_ = false;
  uint32_t watched_ = 0;
  bool watching_ = false;
};

}  // namespace vmsg::backend
