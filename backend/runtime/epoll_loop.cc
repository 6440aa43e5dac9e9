// SPDX-License-Identifier: Apache-2.0
// EventLoop on epoll. One thread runs it; only Post and Stop come from others.
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {
namespace {

constexpr int kEventsPerWait = 64;

// While pollers keep the loop from sleeping, descriptors are looked at this often: often enough for
// completions and timers, rarely enough that the system call does not show.
constexpr int64_t kBusyEpollIntervalNs = 50'000;

// Least spin budget, as a part of the largest: below it a hit could never be seen again.
constexpr int64_t kLeastSpinFraction = 16;

// Longest spin of a poller that waits for storage: a few looks, for what a busy guest is about to
// add.
constexpr int64_t kSpinBesideStorageNs = 2'000;

// A poller's idle turn takes a tenth of a microsecond, and reading the clock may take a system call
// (on a PV domain's clock it does).
constexpr int64_t kIdleTurnsPerReading = 16;

int64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class EpollLoop : public ThreadLoop {
 public:
  explicit EpollLoop(absl::Duration max_spin)
      : max_spin_ns_(absl::ToInt64Nanoseconds(max_spin)),
        budget_ns_(max_spin_ns_),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    epoll_event event{.events = EPOLLIN, .data = {.u64 = kWakeKey}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  }

  absl::Status Watch(int fd, uint32_t events,
                     absl::AnyInvocable<void(uint32_t)> callback) override {
    auto [entry, fresh] = watches_.try_emplace(fd);
    if (!fresh) {
      return absl::AlreadyExistsError(absl::StrCat("fd ", fd, " is watched already; unwatch it"));
    }
    entry->second = std::make_shared<Registration>(++generation_, std::move(callback));
    epoll_event event{.events = events, .data = {.u64 = Key(fd, entry->second->generation)}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      watches_.erase(fd);
      return absl::ErrnoToStatus(errno, absl::StrCat("epoll_ctl(add fd ", fd, ")"));
    }
    return absl::OkStatus();
  }

  void Unwatch(int fd) override {
    auto entry = watches_.find(fd);
    if (entry == watches_.end()) return;
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    watches_.erase(entry);
  }

  void Post(absl::AnyInvocable<void()> task) override {
    bool wake;
    {
      std::lock_guard lock(mutex_);
      wake = posted_.empty();
      posted_.push_back(std::move(task));
      has_posted_.store(true, std::memory_order_release);
    }
    if (wake) Wake();
  }

  TimerId RunAfter(absl::Duration delay, absl::AnyInvocable<void()> task) override {
    const TimerId id = ++last_timer_;
    const int64_t due = MonotonicNs() + std::max<int64_t>(0, absl::ToInt64Nanoseconds(delay));
    timers_.emplace(std::make_pair(due, id), std::move(task));
    due_.emplace(id, due);
    return id;
  }

  void Cancel(TimerId timer) override {
    auto due = due_.find(timer);
    if (due == due_.end()) return;
    timers_.erase({due->second, timer});
    due_.erase(due);
  }

  // Monotonic time: it starts anywhere, and only differences mean something.
  absl::Time Now() const override { return absl::FromUnixNanos(MonotonicNs()); }

  void AddPoller(Poller* poller) override { pollers_.try_emplace(poller, false); }

  void RemovePoller(Poller* poller) override {
    auto known = pollers_.find(poller);
    if (known == pollers_.end()) return;
    if (known->second) {
      for (Active& active : active_) {
        if (active.poller == poller) active.poller = nullptr;  // dropped after the turn
      }
    }
    pollers_.erase(known);
  }

  void Activate(Poller* poller) override {
    auto known = pollers_.find(poller);
    if (known == pollers_.end() || known->second) return;
    known->second = true;
    active_.push_back({poller, 0});
  }

  void Run() override {
    now_ns_ = last_epoll_ns_ = MonotonicNs();
    while (!stop_.load(std::memory_order_acquire)) {
      BeginTurn();
      if (has_posted_.load(std::memory_order_acquire)) RunPosted();
      if (now_ns_ != 0 && !timers_.empty()) RunTimers(now_ns_);
      if (active_.empty()) {
        Sleep();
        continue;
      }
      const bool hit = PollActive();
      now_ns_ = 0;
      if (!hit && idle_turns_ % kIdleTurnsPerReading != 0) continue;
      // What is waited for may need this very processor: spinning takes only what nobody else
      // wants.
      if (!hit) sched_yield();
      now_ns_ = MonotonicNs();
      if (!active_.empty() && now_ns_ - last_epoll_ns_ >= kBusyEpollIntervalNs) Dispatch(0);
    }
    stop_.store(false, std::memory_order_relaxed);
  }

  void Stop() override {
    stop_.store(true, std::memory_order_release);
    Wake();
  }

  LoopProgress progress() const override {
    const uint64_t progress = progress_.load(std::memory_order_relaxed);
    // What was posted should have woken it.
    return {
        .turns = progress >> 1,
        .sleeping = (progress & kSleeping) != 0 && !has_posted_.load(std::memory_order_relaxed)};
  }

  void SetMaxSpin(absl::Duration max_spin) override {
    max_spin_ns_ = absl::ToInt64Nanoseconds(max_spin);
    budget_ns_ = max_spin_ns_;
  }

 private:
  static constexpr uint64_t kSleeping = 1;  // in progress_; the turns are above it
  static constexpr uint64_t kWakeKey = ~uint64_t{0};

  struct Registration {
    Registration(uint32_t generation, absl::AnyInvocable<void(uint32_t)> callback)
        : generation(generation), callback(std::move(callback)) {}
    uint32_t generation;
    absl::AnyInvocable<void(uint32_t)> callback;
  };
  struct Active {
    Poller* poller;
    int64_t idle_since_ns;  // 0: not idle, or idle since the last reading of the clock
  };

  static uint64_t Key(int fd, uint32_t generation) {
    return uint64_t{generation} << 32 | static_cast<uint32_t>(fd);
  }

  void Wake() {
    const uint64_t one = 1;
    // EAGAIN means that it is readable already, which is all that is wanted.
    [[maybe_unused]] ssize_t written = write(wake_.get(), &one, sizeof one);
  }

  // Written by this thread only, so no read-modify-write is needed.
  void BeginTurn() {
    progress_.store(progress_.load(std::memory_order_relaxed) + 2, std::memory_order_relaxed);
  }
  void ShowSleeping(bool sleeping) {
    const uint64_t turns = progress_.load(std::memory_order_relaxed) & ~kSleeping;
    progress_.store(turns | (sleeping ? kSleeping : 0), std::memory_order_relaxed);
  }

  void RunPosted() {
    {
      std::lock_guard lock(mutex_);
      running_.swap(posted_);
      has_posted_.store(false, std::memory_order_relaxed);
    }
    for (auto& task : running_) task();
    running_.clear();
  }

  void RunTimers(int64_t now) {
    // A timer that a callback adds is looked at in the next turn, so that it cannot keep us here.
    const TimerId last = last_timer_;
    while (!timers_.empty()) {
      auto first = timers_.begin();
      if (first->first.first > now || first->first.second > last) return;
      auto task = std::move(first->second);
      due_.erase(first->first.second);
      timers_.erase(first);
      task();
    }
  }

  // One turn over what is active; true when there was anything to do. A poller that found nothing
  // for the budget's time arms its notifications and leaves the list, also while others are busy,
  // so that a loop's turn costs what its busy guests cost.
  bool PollActive() {
    bool hit = false;
    const size_t count = active_.size();
    for (size_t i = 0; i < count; ++i) {
      Poller* poller = active_[i].poller;
      if (poller == nullptr) continue;
      if (poller->Poll()) {
        active_[i].idle_since_ns = 0;
        hit = true;
        continue;
      }
      if (active_[i].poller == nullptr || !SpunEnough(active_[i])) continue;
      if (poller->PrepareToSleep()) {
        active_[i].idle_since_ns = 0;
      } else if (active_[i].poller != nullptr) {
        pollers_[poller] = false;
        active_[i].poller = nullptr;
      }
    }
    std::erase_if(active_, [](const Active& active) { return active.poller == nullptr; });
    if (hit) {
      if (idle_turns_ > 0) budget_ns_ = std::min(max_spin_ns_, 2 * budget_ns_);
      idle_turns_ = 0;
    } else {
      ++idle_turns_;
      CpuRelax();
    }
    return hit;
  }

  bool SpunEnough(Active& idle) const {
    if (budget_ns_ == 0) return true;
    if (now_ns_ == 0) return false;
    if (idle.idle_since_ns == 0) idle.idle_since_ns = now_ns_;
    const int64_t idle_ns = now_ns_ - idle.idle_since_ns;
    return idle_ns >= budget_ns_ ||
           (idle_ns >= kSpinBesideStorageNs && idle.poller->AwaitsStorage());
  }

  // Nothing is active. Spinning that led here found nothing, so the next one is shorter; when the
  // sleep turns out so short that spinning would have seen its end, it gets longer again.
  void Sleep() {
    const bool spun = idle_turns_ > 0;
    if (spun) budget_ns_ = std::max(max_spin_ns_ / kLeastSpinFraction, budget_ns_ / 2);
    idle_turns_ = 0;
    int timeout_ms = -1;
    const int64_t start = spun || !timers_.empty() ? MonotonicNs() : 0;
    if (!timers_.empty()) {
      const int64_t wait = std::max<int64_t>(0, timers_.begin()->first.first - start);
      timeout_ms = static_cast<int>(std::min<int64_t>((wait + 999'999) / 1'000'000, 3'600'000));
    }
    Dispatch(timeout_ms);
    if (spun && last_epoll_ns_ - start < max_spin_ns_) {
      budget_ns_ = std::min(max_spin_ns_, 2 * budget_ns_);
    }
  }

  void Dispatch(int timeout_ms) {
    epoll_event events[kEventsPerWait];
    if (timeout_ms != 0) ShowSleeping(true);
    const int count = epoll_wait(epoll_.get(), events, kEventsPerWait, timeout_ms);
    if (timeout_ms != 0) ShowSleeping(false);
    now_ns_ = last_epoll_ns_ = MonotonicNs();
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kWakeKey) {
        uint64_t value;
        [[maybe_unused]] ssize_t got = read(wake_.get(), &value, sizeof value);
        continue;
      }
      auto watch = watches_.find(static_cast<int>(events[i].data.u64 & 0xffffffff));
      if (watch == watches_.end()) continue;
      // An earlier callback of this batch may have closed the fd and its number come back.
      if (watch->second->generation != events[i].data.u64 >> 32) continue;
      std::shared_ptr<Registration> registration = watch->second;
      registration->callback(events[i].events);
    }
  }

  int64_t max_spin_ns_;
  int64_t budget_ns_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> progress_ = 0;

  absl::flat_hash_map<int, std::shared_ptr<Registration>> watches_;
  uint32_t generation_ = 0;

  absl::btree_map<std::pair<int64_t, TimerId>, absl::AnyInvocable<void()>> timers_;
  absl::flat_hash_map<TimerId, int64_t> due_;
  TimerId last_timer_ = 0;

  absl::flat_hash_map<Poller*, bool> pollers_;  // registered; true: in active_
  std::vector<Active> active_;
  int64_t idle_turns_ = 0;  // turns since the last hit
  int64_t last_epoll_ns_ = 0;
  int64_t now_ns_ = 0;  // read at the end of the turn before; 0: was not

  std::mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_;  // guarded by mutex_
  std::atomic<bool> has_posted_ = false;
  std::vector<absl::AnyInvocable<void()>> running_;
};

}  // namespace

std::unique_ptr<ThreadLoop> NewEpollLoop(absl::Duration max_spin) {
  return std::make_unique<EpollLoop>(max_spin);
}

}  // namespace vmsg::backend
