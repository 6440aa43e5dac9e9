// SPDX-License-Identifier: Apache-2.0
// An EventLoop for tests: time moves only when the test says so, descriptors are ready only when
// the test says so. Post may come from other threads; everything else belongs to the test's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {

class SimulatedLoop : public EventLoop {
 public:
  absl::Status Watch(int fd, uint32_t events,
                     absl::AnyInvocable<void(uint32_t)> callback) override {
    auto [entry, fresh] = watches_.try_emplace(fd);
    if (!fresh) return absl::AlreadyExistsError(absl::StrCat("fd ", fd));
    entry->second = std::make_shared<Registration>(events, std::move(callback));
    return absl::OkStatus();
  }
  void Unwatch(int fd) override { watches_.erase(fd); }

  void Post(absl::AnyInvocable<void()> task) override {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }

  TimerId RunAfter(absl::Duration delay, absl::AnyInvocable<void()> task) override {
    const TimerId id = ++last_timer_;
    timers_.emplace(std::make_pair(now_ + std::max(delay, absl::ZeroDuration()), id),
                    std::move(task));
    return id;
  }
  void Cancel(TimerId timer) override {
    std::erase_if(timers_, [&](const auto& entry) { return entry.first.second == timer; });
  }
  absl::Time Now() const override { return now_; }

  void AddPoller(Poller* poller) override { pollers_.insert(poller); }
  void RemovePoller(Poller* poller) override {
    pollers_.erase(poller);
    active_.erase(poller);
  }
  void Activate(Poller* poller) override {
    if (pollers_.contains(poller)) active_.insert(poller);
  }

  // The descriptor becomes ready once. False: nobody watches it (for these events).
  bool Fire(int fd, uint32_t events) {
    auto entry = watches_.find(fd);
    if (entry == watches_.end() || (entry->second->events & events) == 0) return false;
    std::shared_ptr<Registration> registration = entry->second;
    registration->callback(events);
    return true;
  }
  bool watches(int fd) const { return watches_.contains(fd); }
  bool is_active(Poller* poller) const { return active_.contains(poller); }
  size_t timers() const { return timers_.size(); }

  // Runs posted tasks, due timers and active pollers until there is nothing to do, as a loop that
  // then goes to sleep. Gives up after `max_turns`, false: something keeps the loop awake for ever.
  bool RunUntilIdle(int max_turns = 10'000) {
    for (int turn = 0; turn < max_turns; ++turn) {
      bool worked = RunPosted();
      worked |= RunDueTimers();
      worked |= PollOnce();
      if (worked) continue;
      bool arrived = false;
      for (Poller* poller : std::vector<Poller*>(active_.begin(), active_.end())) {
        if (!active_.contains(poller)) continue;
        if (poller->PrepareToSleep()) {
          arrived = true;
        } else {
          active_.erase(poller);
        }
      }
      if (!arrived && !HasPosted()) return true;
    }
    return false;
  }

  // One Poll of each active poller.
  bool PollOnce() {
    bool hit = false;
    for (Poller* poller : std::vector<Poller*>(active_.begin(), active_.end())) {
      if (active_.contains(poller)) hit |= poller->Poll();
    }
    return hit;
  }

  // Moves time and runs what became due, timer by timer, in order.
  void Advance(absl::Duration duration) {
    const absl::Time until = now_ + duration;
    while (!timers_.empty() && timers_.begin()->first.first <= until) {
      now_ = std::max(now_, timers_.begin()->first.first);
      RunDueTimers();
      RunUntilIdle();
    }
    now_ = until;
  }

 private:
  struct Registration {
    Registration(uint32_t events, absl::AnyInvocable<void(uint32_t)> callback)
        : events(events), callback(std::move(callback)) {}
    uint32_t events;
    absl::AnyInvocable<void(uint32_t)> callback;
  };

  bool HasPosted() {
    std::lock_guard lock(mutex_);
    return !posted_.empty();
  }
  bool RunPosted() {
    std::vector<absl::AnyInvocable<void()>> tasks;
    {
      std::lock_guard lock(mutex_);
      tasks.swap(posted_);
    }
    for (auto& task : tasks) task();
    return !tasks.empty();
  }
  bool RunDueTimers() {
    bool ran = false;
    const TimerId last = last_timer_;
    while (!timers_.empty()) {
      auto first = timers_.begin();
      if (first->first.first > now_ || first->first.second > last) break;
      auto task = std::move(first->second);
      timers_.erase(first);
      task();
      ran = true;
    }
    return ran;
  }

  std::map<int, std::shared_ptr<Registration>> watches_;
  std::map<std::pair<absl::Time, TimerId>, absl::AnyInvocable<void()>> timers_;
  TimerId last_timer_ = 0;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  std::set<Poller*> pollers_;
  std::set<Poller*> active_;
  std::mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_;  // guarded by mutex_
};

}  // namespace vmsg::backend
