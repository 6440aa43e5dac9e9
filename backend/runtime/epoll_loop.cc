// SPDX-License-Identifier: Apache-2.0
// EventLoop on epoll. One thread runs it; only Post and Stop come from others.
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/spin_budget.h"
#include "backend/runtime/spin_clock.h"

namespace vmsg::backend {
namespace {

constexpr int kEventsPerWait = 64;

// While pollers keep the loop from sleeping, descriptors are looked at this often: often enough for
// completions and timers, rarely enough that the system call does not show. The processor is given
// to whoever else wants it more often: what is waited for may need this very one. Where a system
// call takes long, both are as much rarer as keeps them an eighth of the time.
constexpr int64_t kBusyEpollIntervalNs = 50'000;
constexpr int64_t kYieldIntervalNs = 2'000;
constexpr int64_t kCallsBetweenCalls = 8;

// Longest spin of a poller that waits for storage: a few looks, for what a busy guest is about to
// add.
constexpr int64_t kSpinBesideStorageNs = 2'000;

void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class EpollLoop : public ThreadLoop {
 public:
  explicit EpollLoop(const SpinLimits& limits)
      : epoll_(epoll_create1(EPOLL_CLOEXEC)),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        limits_(limits),
        budget_(limits, 0) {
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
    const int64_t due =
        ThisProcessor::Nanoseconds() + std::max<int64_t>(0, absl::ToInt64Nanoseconds(delay));
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
  absl::Time Now() const override { return absl::FromUnixNanos(ThisProcessor::Nanoseconds()); }

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
    MeasureCalls();
    now_ns_ = last_epoll_ns_ = last_yield_ns_ = clock_.ReadExactly();
    while (!stop_.load(std::memory_order_acquire)) {
      BeginTurn();
      if (has_posted_.load(std::memory_order_acquire)) RunPosted();
      if (!timers_.empty() && timers_.begin()->first.first <= now_ns_) {
        now_ns_ = clock_.ReadExactly();
        RunTimers(now_ns_);
      }
      if (active_.empty()) {
        Sleep();
        continue;
      }
      const bool hit = PollActive();
      now_ns_ = clock_.Read();
      if (hit) {
        FoundWork();
      } else {
        ++idle_turns_;
        CpuRelax();
        if (now_ns_ - last_yield_ns_ >= yield_interval_ns_) {
          sched_yield();
          now_ns_ = last_yield_ns_ = clock_.Read();
        }
      }
      if (!active_.empty() && now_ns_ - last_epoll_ns_ >= epoll_interval_ns_) Dispatch(0);
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

  void SetSpinLimits(const SpinLimits& limits) override {
    limits_ = limits;
    budget_ = SpinBudget(limits, call_ns_);
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
    int64_t idle_since_ns;  // 0: not idle
  };

  static uint64_t Key(int fd, uint32_t generation) {
    return uint64_t{generation} << 32 | static_cast<uint32_t>(fd);
  }

  void Wake() {
    const uint64_t one = 1;
    // EAGAIN means that it is readable already, which is all that is wanted.
    [[maybe_unused]] ssize_t written = write(wake_.get(), &one, sizeof one);
  }

  // What a system call takes: the least of a few, so that what else runs does not count.
  void MeasureCalls() {
    constexpr int kRuns = 4, kCalls = 8;
    call_ns_ = std::numeric_limits<int64_t>::max();
    for (int run = 0; run < kRuns; ++run) {
      epoll_event event;
      const int64_t start = clock_.ReadExactly();
      for (int i = 0; i < kCalls; ++i) epoll_wait(epoll_.get(), &event, 1, 0);
      call_ns_ = std::min(call_ns_, (clock_.ReadExactly() - start) / kCalls);
    }
    epoll_interval_ns_ = std::max(kBusyEpollIntervalNs, kCallsBetweenCalls * call_ns_);
    yield_interval_ns_ = std::max(kYieldIntervalNs, kCallsBetweenCalls * call_ns_);
    budget_ = SpinBudget(limits_, call_ns_);
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
    return hit;
  }

  bool SpunEnough(Active& idle) {
    if (idle.idle_since_ns == 0) idle.idle_since_ns = now_ns_;
    const int64_t idle_ns = now_ns_ - idle.idle_since_ns;
    return idle_ns >= budget_.Allowed(now_ns_) ||
           (idle_ns >= kSpinBesideStorageNs && idle.poller->AwaitsStorage());
  }

  void FoundWork() {
    if (idle_turns_ > 0) budget_.Found(now_ns_, now_ns_ - worked_ns_);
    idle_turns_ = 0;
    worked_ns_ = now_ns_;
  }

  // Nothing is active.
  void Sleep() {
    const bool spun = idle_turns_ > 0;
    const int64_t spun_ns = now_ns_ - worked_ns_;
    idle_turns_ = 0;
    int timeout_ms = -1;
    const int64_t start = spun || !timers_.empty() ? clock_.Read() : 0;
    if (!timers_.empty()) {
      const int64_t wait = std::max<int64_t>(0, timers_.begin()->first.first - start);
      timeout_ms = static_cast<int>(std::min<int64_t>((wait + 999'999) / 1'000'000, 3'600'000));
    }
    Dispatch(timeout_ms);
    if (spun) budget_.Slept(now_ns_, spun_ns, now_ns_ - start);
    worked_ns_ = now_ns_;
  }

  void Dispatch(int timeout_ms) {
    epoll_event events[kEventsPerWait];
    if (timeout_ms != 0) ShowSleeping(true);
    const int count = epoll_wait(epoll_.get(), events, kEventsPerWait, timeout_ms);
    if (timeout_ms != 0) ShowSleeping(false);
    now_ns_ = last_epoll_ns_ = last_yield_ns_ = clock_.Read();
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

  SpinLimits limits_;
  SpinBudget budget_;
  SpinClock clock_;
  int64_t call_ns_ = 0;
  int64_t epoll_interval_ns_ = kBusyEpollIntervalNs;
  int64_t yield_interval_ns_ = kYieldIntervalNs;
  int64_t idle_turns_ = 0;  // turns since the last hit
  int64_t worked_ns_ = 0;   // when that was, or the end of the last sleep
  int64_t last_epoll_ns_ = 0;
  int64_t last_yield_ns_ = 0;
  int64_t now_ns_ = 0;  // at the end of the turn before

  std::mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_;  // guarded by mutex_
  std::atomic<bool> has_posted_ = false;
  std::vector<absl::AnyInvocable<void()>> running_;
};

}  // namespace

std::unique_ptr<ThreadLoop> NewEpollLoop(const SpinLimits& limits) {
  return std::make_unique<EpollLoop>(limits);
}

}  // namespace vmsg::backend
