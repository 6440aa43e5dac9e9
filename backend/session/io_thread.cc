// SPDX-License-Identifier: Apache-2.0
#include "backend/session/io_thread.h"

#include <pthread.h>
#include <sys/epoll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg::backend {
namespace {

// Ports taken in one turn, so that timers and descriptors of this thread have theirs.
constexpr int kPortsPerTurn = 64;

}  // namespace

class IoThread::Port : public BoundPort {
 public:
  Port(IoThread& thread, grants::EventPort port) : thread_(thread), port_(port) {}
  ~Port() override {
    thread_.ports_.erase(port_);
    if (absl::Status status = thread_.channels_->Unbind(port_); !status.ok()) {
      Log(LogLevel::kError, absl::StrCat("closing event channel ", port_, ": ", status.message()));
    }
  }
  void SetHandler(absl::AnyInvocable<void()> on_event) override {
    on_event_ = std::move(on_event);
    // What came before there was a handler is delivered by this.
    Unmask();
  }
  // Neither fails on a port that is bound, whatever became of the other end.
  void Notify() override { (void)thread_.channels_->Notify(port_); }
  void Unmask() override { (void)thread_.channels_->Unmask(port_); }

  void OnEvent() {
    if (on_event_ != nullptr) on_event_();
  }

 private:
  IoThread& thread_;
  const grants::EventPort port_;
  absl::AnyInvocable<void()> on_event_;
};

absl::StatusOr<std::unique_ptr<IoThread>> IoThread::Start(
    std::unique_ptr<grants::EventChannels> channels, const SpinLimits& spin, int keeps) {
  auto thread = std::unique_ptr<IoThread>(new IoThread(NewEpollLoop(spin), std::move(channels)));
  // Before the thread runs, its loop may be used from here.
  absl::StatusOr<std::unique_ptr<AsyncFileIo>> io = NewUringFileIo(thread->loop_.get(), keeps);
  if (!io.ok()) return io.status();
  thread->io_ = *std::move(io);
  absl::Status status = thread->loop_->Watch(thread->channels_->fd(), EPOLLIN,
                                             [raw = thread.get()](uint32_t) { raw->OnPending(); });
  if (!status.ok()) return status;
  thread->thread_ = std::thread([raw = thread.get()] {
    pthread_setname_np(pthread_self(), "vmsg-io");
    raw->loop_->Run();
  });
  return thread;
}

IoThread::~IoThread() {
  if (thread_.joinable()) {
    loop_->Stop();
    thread_.join();
  }
  loop_->Unwatch(channels_->fd());
  io_.reset();
}

absl::StatusOr<std::unique_ptr<BoundPort>> IoThread::Bind(grants::DomainId remote,
                                                          grants::EventPort remote_port) {
  absl::StatusOr<grants::EventPort> port = channels_->BindInterdomain(remote, remote_port);
  if (!port.ok()) {
    return absl::Status(port.status().code(),
                        absl::StrCat("event-channel ", remote_port, ": ", port.status().message()));
  }
  auto bound = std::make_unique<Port>(*this, *port);
  ports_[*port] = bound.get();
  return bound;
}

void IoThread::OnPending() {
  for (int i = 0; i < kPortsPerTurn; ++i) {
    absl::StatusOr<std::optional<grants::EventPort>> port = channels_->NextPending();
    if (!port.ok()) {
      Log(LogLevel::kError, absl::StrCat("event channels: ", port.status().message()));
      return;
    }
    if (!port->has_value()) return;
    // A port that is not ours any more stays masked: nothing of it is wanted.
    if (auto known = ports_.find(**port); known != ports_.end()) known->second->OnEvent();
  }
}

}  // namespace vmsg::backend
