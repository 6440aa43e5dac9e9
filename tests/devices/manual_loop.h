// SPDX-License-Identifier: Apache-2.0
// An event loop that a test turns by hand: real descriptors, simulated time.
#pragma once

#include <poll.h>
#include <sys/epoll.h>

#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "backend/runtime/event_loop.h"

namespace vmsg::testing {

class ManualLoop final : public backend::EventLoop {
 public:
  absl::Status Watch(int fd, uint32_t events,
                     absl::AnyInvocable<void(uint32_t)> callback) override {
    if (watches_.contains(fd)) return absl::AlreadyExistsError("watched already");
    watches_[fd] = std::make_shared<Registration>(events, std::move(callback));
    return absl::OkStatus();
  }
  void Unwatch(int fd) override { watches_.erase(fd); }
  void Post(absl::AnyInvocable<void()> task) override {
    RunAfter(absl::ZeroDuration(), std::move(task));
  }
  TimerId RunAfter(absl::Duration delay, absl::AnyInvocable<void()> task) override {
    timers_.emplace(std::make_pair(now_ + delay, ++last_), std::move(task));
    return last_;
  }
  void Cancel(TimerId timer) override {
    std::erase_if(timers_, [timer](const auto& entry) { return entry.first.second == timer; });
  }
  absl::Time Now() const override { return now_; }
  void AddPoller(backend::Poller* poller) override { pollers_[poller] = false; }
  void RemovePoller(backend::Poller* poller) override { pollers_.erase(poller); }
  void Activate(backend::Poller* poller) override {
    if (pollers_.contains(poller)) pollers_[poller] = true;
  }

  // Lets simulated time pass and runs what fell due.
  void Advance(absl::Duration by) {
    now_ += by;
    RunTimers();
  }
  size_t timers() const { return timers_.size(); }
  bool watches(int fd) const { return watches_.contains(fd); }
  size_t watch_count() const { return watches_.size(); }

  // Runs what is there now. True: there was something. Waits for up to wait_ms for descriptors.
  bool Turn(int wait_ms = 0) {
    bool worked = RunTimers();
    for (auto [poller, active] : std::map(pollers_)) {
      if (!active || !pollers_.contains(poller)) continue;
      if (!poller->Poll() && pollers_.contains(poller) && !poller->PrepareToSleep()) {
        pollers_[poller] = false;
      } else {
        worked = true;
      }
    }
    std::vector<pollfd> fds;
    for (const auto& [fd, registration] : watches_) {
      // epoll's bits and poll's are the same for these.
      fds.push_back({.fd = fd, .events = static_cast<short>(registration->events), .revents = 0});
    }
    if (poll(fds.data(), fds.size(), worked ? 0 : wait_ms) <= 0) return worked;
    for (const pollfd& ready : fds) {
      auto found = watches_.find(ready.fd);
      if (ready.revents == 0 || found == watches_.end()) continue;
      auto registration = found->second;
      registration->callback(static_cast<uint32_t>(ready.revents));
      worked = true;
    }
    return worked;
  }

  // One look of each poller, without descriptors and without going to sleep.
  void Look() {
    for (auto [poller, active] : std::map(pollers_)) {
      if (pollers_.contains(poller)) poller->Poll();
    }
  }

  // Turns until `done`, waiting for descriptors; false: nothing happened for ten seconds.
  template <class Done>
  bool RunUntil(Done done) {
    while (!done()) {
      if (!Turn(10000)) return done();
    }
    return true;
  }

  // Turns until nothing is left to do; false: it never is (a busy loop).
  bool Settle() {
    for (int turns = 0; turns < 1000; ++turns) {
      if (!Turn()) return true;
    }
    return false;
  }

 private:
  struct Registration {
    Registration(uint32_t events, absl::AnyInvocable<void(uint32_t)> callback)
        : events(events), callback(std::move(callback)) {}
    uint32_t events;
    absl::AnyInvocable<void(uint32_t)> callback;
  };

  bool RunTimers() {
    bool ran = false;
    const TimerId last = last_;
    for (auto it = timers_.begin(); it != timers_.end() && it->first.first <= now_;) {
      if (it->first.second > last) {
        ++it;
        continue;
      }
      auto task = std::move(it->second);
      timers_.erase(it);
      task();
      ran = true;
      it = timers_.begin();
    }
    return ran;
  }

  absl::Time now_ = absl::UnixEpoch();
  TimerId last_ = 0;
  std::map<int, std::shared_ptr<Registration>> watches_;
  std::map<std::pair<absl::Time, TimerId>, absl::AnyInvocable<void()>> timers_;
  std::map<backend::Poller*, bool> pollers_;
};

}  // namespace vmsg::testing
