// SPDX-License-Identifier: Apache-2.0
// A loop whose long timers run when the test says so, instead of when their time has come.
#pragma once

#include <map>
#include <utility>

#include "backend/runtime/event_loop.h"

namespace vmsg::testing {

class HeldTimers final : public backend::EventLoop {
 public:
  static constexpr absl::Duration kLong = absl::Seconds(5);

  explicit HeldTimers(backend::EventLoop* loop) : loop_(loop) {}

  // On the loop's thread. How many there were.
  size_t RunHeld() {
    auto held = std::exchange(held_, {});
    for (auto& [id, task] : held) task();
    return held.size();
  }
  size_t held() const { return held_.size(); }

  absl::Status Watch(int fd, uint32_t events,
                     absl::AnyInvocable<void(uint32_t)> callback) override {
    return loop_->Watch(fd, events, std::move(callback));
  }
  void Unwatch(int fd) override { loop_->Unwatch(fd); }
  void Post(absl::AnyInvocable<void()> task) override { loop_->Post(std::move(task)); }
  TimerId RunAfter(absl::Duration delay, absl::AnyInvocable<void()> task) override {
    if (delay < kLong) return loop_->RunAfter(delay, std::move(task));
    held_.emplace(--last_, std::move(task));
    return last_;
  }
  void Cancel(TimerId timer) override {
    if (held_.erase(timer) == 0) loop_->Cancel(timer);
  }
  absl::Time Now() const override { return loop_->Now(); }
  void AddPoller(backend::Poller* poller) override { loop_->AddPoller(poller); }
  void RemovePoller(backend::Poller* poller) override { loop_->RemovePoller(poller); }
  void Activate(backend::Poller* poller) override { loop_->Activate(poller); }

 private:
  backend::EventLoop* const loop_;
  std::map<TimerId, absl::AnyInvocable<void()>> held_;
  TimerId last_ = ~TimerId{0};  // downwards, so that they are none of the loop's
};

}  // namespace vmsg::testing
