// SPDX-License-Identifier: Apache-2.0
// A terminal on a pseudo terminal's master side.
//
// Who is attached: the slave has no opener as long as the master polls EPOLLHUP. No event says that
// somebody opens it, so inotify watches the slave's node: an idle console costs no wake-up. The
// window size has no event either for a process that is not in the terminal's session; it is looked
// at when somebody attaches, with each input, and once a second while somebody is attached.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/console/terminal/fd_stream.h"
#include "backend/devices/console/terminal/terminal.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {
namespace {

constexpr absl::Duration kWindowSizeInterval = absl::Seconds(1);
// Only where no inotify instance was left to have.
constexpr absl::Duration kAttachInterval = absl::Seconds(1);

class PtyTerminal final : public Terminal {
 public:
  PtyTerminal(UniqueFd master, UniqueFd opens, EventLoop* loop)
      : loop_(loop),
        master_(std::move(master)),
        opens_(std::move(opens)),
        stream_(loop, [this](uint32_t events) { OnMaster(events); }) {
    size_ = ReadSize();
  }

  ~PtyTerminal() override { Stop(); }

  WindowSize window_size() const override { return size_; }
  bool attached() const override { return stream_.is_open(); }

  void Start(TerminalListener* listener) override {
    listener_ = listener;
    if (opens_) {
      (void)loop_->Watch(opens_.get(), EPOLLIN, [this](uint32_t) { OnOpened(); });
    }
    CheckAttached();
  }

  void Stop() override {
    if (listener_ == nullptr) return;
    listener_ = nullptr;
    if (opens_) loop_->Unwatch(opens_.get());
    if (timer_.has_value()) loop_->Cancel(*std::exchange(timer_, std::nullopt));
    stream_.Close();
  }

  ssize_t Write(absl::Span<const iovec> pieces) override {
    return attached() ? stream_.Write(pieces) : -1;
  }
  ssize_t Read(absl::Span<const iovec> pieces) override {
    return attached() ? stream_.Read(pieces) : -1;
  }
  void WantInput(bool wanted) override { stream_.WantInput(wanted); }

 private:
  void OnOpened() {
    char events[4096];
    while (read(opens_.get(), events, sizeof events) > 0) {
    }
    CheckAttached();
  }

  void CheckAttached() {
    if (listener_ == nullptr) return;
    if (attached()) {
      // One left and another came before the hang-up was seen.
      stream_.ResumeInput();
      return;
    }
    pollfd master = {.fd = master_.get(), .events = 0, .revents = 0};
    if (poll(&master, 1, 0) == 1 && (master.revents & POLLHUP) != 0) {
      if (!opens_) SetTimer(kAttachInterval);
      return;
    }
    // The kernel resets the line discipline with the last close, and with echo on the guest would
    // read its own output.
    termios raw = {};
    if (tcgetattr(master_.get(), &raw) == 0) {
      cfmakeraw(&raw);
      tcsetattr(master_.get(), TCSANOW, &raw);
    }
    stream_.Open(master_.get(), /*is_socket=*/false);
    SetTimer(kWindowSizeInterval);
    CheckSize();
    listener_->OnAttached(true);
  }

  void OnMaster(uint32_t events) {
    if (listener_ == nullptr) return;
    if ((events & EPOLLIN) != 0) {
      CheckSize();
      listener_->OnInput();
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
      // Input that was typed before is read first: EPOLLIN is told together with it, as long as
      // there is any and it is wanted.
      stream_.Close();
      listener_->OnAttached(false);
      // Somebody may have opened it between the hang-up and now.
      CheckAttached();
      return;
    }
    if (listener_ != nullptr && (events & EPOLLOUT) != 0) listener_->OnRoom();
  }

  void SetTimer(absl::Duration after) {
    if (timer_.has_value()) loop_->Cancel(*timer_);
    timer_ = loop_->RunAfter(after, [this] {
      timer_.reset();
      if (!attached()) {
        CheckAttached();
        return;
      }
      SetTimer(kWindowSizeInterval);
      CheckSize();
    });
  }

  WindowSize ReadSize() const {
    winsize size = {};
    if (ioctl(master_.get(), TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
      return {};
    }
    return {size.ws_col, size.ws_row};
  }

  void CheckSize() {
    const WindowSize now = ReadSize();
    if (now == size_) return;
    size_ = now;
    listener_->OnWindowSize(now);
  }

  EventLoop* const loop_;
  const UniqueFd master_;
  const UniqueFd opens_;  // inotify; none: polled for
  FdStream stream_;       // open while attached
  TerminalListener* listener_ = nullptr;
  WindowSize size_;
  std::optional<EventLoop::TimerId> timer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Terminal>> NewPtyTerminal(OpenedDevice opened, EventLoop* loop) {
  if (opened.fds.size() != 3 && opened.fds.size() != 2) {
    return absl::InternalError(absl::StrCat("console ", opened.number, " was opened with ",
                                            opened.fds.size(), " descriptors instead of 2 or 3"));
  }
  UniqueFd opens;
  if (opened.fds.size() == 3) opens = std::move(opened.fds[2]);
  return std::make_unique<PtyTerminal>(std::move(opened.fds[0]), std::move(opens), loop);
}

}  // namespace vmsg::backend
