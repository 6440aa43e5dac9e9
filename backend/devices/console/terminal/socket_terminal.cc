// SPDX-License-Identifier: Apache-2.0
// A terminal on a listening Unix stream socket: the bytes of one client at a time, nothing else in
// the stream, so that socat or nc will do. Others wait in the listener's backlog until it leaves.
// The window size comes as a datagram "COLS ROWS" to a second socket, which takes them as long as
// there is this object. At other times the kernel drops them (size_filter.h): a sender never waits.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "backend/devices/console/terminal/fd_stream.h"
#include "backend/devices/console/terminal/size_filter.h"
#include "backend/devices/console/terminal/terminal.h"
#include "backend/devices/entry_keys.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg::backend {
namespace {

// A client that cannot be accepted is looked at again, because the kernel tells of it all the time.
constexpr absl::Duration kAcceptInterval = absl::Seconds(1);
// Of one turn: whoever sends sizes without end does not keep the thread.
constexpr int kSizesPerTurn = 16;

class SocketTerminal final : public Terminal {
 public:
  SocketTerminal(UniqueFd listener, UniqueFd size_socket, EventLoop* loop)
      : loop_(loop),
        listening_(std::move(listener)),
        size_socket_(std::move(size_socket)),
        stream_(loop, [this](uint32_t events) { OnClient(events); }) {
    TakeSizes(size_socket_.get());
    (void)loop_->Watch(size_socket_.get(), EPOLLIN, [this](uint32_t) { OnSize(); });
  }

  ~SocketTerminal() override {
    Stop();
    loop_->Unwatch(size_socket_.get());
    DropSizes(size_socket_.get());
  }

  WindowSize window_size() const override { return size_; }
  bool attached() const override { return stream_.is_open(); }

  void Start(TerminalListener* listener) override {
    listener_ = listener;
    AwaitClient();
  }

  void Stop() override {
    if (listener_ == nullptr) return;
    listener_ = nullptr;
    if (accept_again_.has_value()) loop_->Cancel(*std::exchange(accept_again_, std::nullopt));
    if (client_) {
      stream_.Close();
      client_ = UniqueFd();
    } else {
      loop_->Unwatch(listening_.get());
    }
  }

  ssize_t Write(absl::Span<const iovec> pieces) override {
    return attached() ? stream_.Write(pieces) : -1;
  }
  ssize_t Read(absl::Span<const iovec> pieces) override {
    return attached() ? stream_.Read(pieces) : -1;
  }
  void WantInput(bool wanted) override { stream_.WantInput(wanted); }

 private:
  void AwaitClient() {
    (void)loop_->Watch(listening_.get(), EPOLLIN, [this](uint32_t) { Accept(); });
  }

  void Accept() {
    UniqueFd client(accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    const int why = client ? 0 : errno;
    // It left again.
    if (why == EAGAIN || why == EINTR || why == ECONNABORTED) return;
    loop_->Unwatch(listening_.get());
    if (!client) {
      if (!std::exchange(refusal_logged_, true)) {
        Log(LogLevel::kError,
            absl::StrCat("a console's client waits, it cannot be accepted: ", std::strerror(why),
                         "; raise the service's limit on open files"));
      }
      accept_again_ = loop_->RunAfter(kAcceptInterval, [this] {
        accept_again_.reset();
        AwaitClient();
      });
      return;
    }
    refusal_logged_ = false;
    client_ = std::move(client);
    stream_.Open(client_.get(), /*is_socket=*/true);
    listener_->OnAttached(true);
  }

  void OnClient(uint32_t events) {
    if (listener_ == nullptr) return;
    if ((events & EPOLLIN) != 0) {
      listener_->OnInput();
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
      Detach();
      return;
    }
    if (listener_ != nullptr && client_ && (events & EPOLLOUT) != 0) listener_->OnRoom();
  }

  void OnSize() {
    const WindowSize before = size_;
    for (int taken = 0; taken < kSizesPerTurn && TakeSize(); ++taken) {
    }
    if (size_ != before && listener_ != nullptr) listener_->OnWindowSize(size_);
  }

  bool TakeSize() {
    char text[32];
    const ssize_t length = recv(size_socket_.get(), text, sizeof text, MSG_DONTWAIT);
    if (length < 0) return false;
    const std::vector<std::string> words =
        absl::StrSplit(absl::StripAsciiWhitespace(absl::string_view(text, length)), ' ');
    uint32_t cols = 0;
    uint32_t rows = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[0], &cols) ||
        !absl::SimpleAtoi(words[1], &rows) || cols == 0 || rows == 0 || cols > UINT16_MAX ||
        rows > UINT16_MAX) {
      return true;
    }
    size_ = {static_cast<uint16_t>(cols), static_cast<uint16_t>(rows)};
    return true;
  }

  void Detach() {
    stream_.Close();
    client_ = UniqueFd();
    listener_->OnAttached(false);
    if (listener_ != nullptr) AwaitClient();
  }

  EventLoop* const loop_;
  const UniqueFd listening_;
  const UniqueFd size_socket_;
  UniqueFd client_;
  FdStream stream_;  // open while attached
  TerminalListener* listener_ = nullptr;
  WindowSize size_;
  std::optional<EventLoop::TimerId> accept_again_;
  bool refusal_logged_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Terminal>> NewSocketTerminal(OpenedDevice opened, EventLoop* loop) {
  if (opened.fds.size() != 3) {
    return absl::InternalError(absl::StrCat("console ", opened.number, " was opened with ",
                                            opened.fds.size(), " descriptors instead of 3"));
  }
  return std::make_unique<SocketTerminal>(std::move(opened.fds[0]), std::move(opened.fds[2]), loop);
}

}  // namespace vmsg::backend
