// SPDX-License-Identifier: Apache-2.0
// What runs a thread of the service: file descriptors, tasks, timers and adaptive polling, behind
// one interface so that tests run on simulated time.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace vmsg::backend {

// Work that can be looked for without a system call. While something is active, the loop spins for
// a short, bounded time (SpinLimits) before it sleeps.
class Poller {
 public:
  virtual ~Poller() = default;
  // Does a bounded batch of what is there; true when it did anything.
  virtual bool Poll() = 0;
  // Called once before the loop sleeps: arm notifications. True when work arrived meanwhile: the
  // loop does not sleep.
  virtual bool PrepareToSleep() = 0;
  // True: what comes next comes most likely from storage. Its end is an interrupt that wakes the
  // thread, so spinning for it saves little, takes a processor for as long as the disk works, and
  // in a virtual machine may delay that very interrupt. Asked after each turn of a short spin.
  virtual bool AwaitsStorage() const { return false; }
};

// All methods but Post belong to the loop's own thread. A callback may remove anything, itself
// included.
class EventLoop {
 public:
  using TimerId = uint64_t;
  virtual ~EventLoop() = default;

  // Level-triggered; `events` as epoll(7). One registration per fd.
  virtual absl::Status Watch(int fd, uint32_t events,
                             absl::AnyInvocable<void(uint32_t)> callback) = 0;
  virtual void Unwatch(int fd) = 0;

  // From any thread. Runs in order of posting, on the loop's thread.
  virtual void Post(absl::AnyInvocable<void()> task) = 0;

  virtual TimerId RunAfter(absl::Duration delay, absl::AnyInvocable<void()> task) = 0;
  virtual void Cancel(TimerId timer) = 0;
  virtual absl::Time Now() const = 0;

  virtual void AddPoller(Poller* poller) = 0;
  virtual void RemovePoller(Poller* poller) = 0;
  // Tells the loop that `poller` has work that Poll must look for: an idle loop calls no poller.
  virtual void Activate(Poller* poller) = 0;
};

// How long a loop may look for work after the last, before it sleeps (spin_budget.h).
struct SpinLimits {
  // Zero: never. Infinite: as long as 500 system calls take here, which on a processor is the least
  // of 200 us, and 5 ms where each goes through an interpreter.
  absl::Duration longest = absl::InfiniteDuration();
  // Of the thread's time, in percent, from 1; 100: no bound but `longest`.
  uint32_t share_percent = 75;
};

// How far a loop has come. One that neither sleeps nor gets on hangs in what it called.
struct LoopProgress {
  uint64_t turns = 0;     // grows with each turn
  bool sleeping = false;  // in the kernel, with nothing to do
};

// The epoll implementation, with a thread's run and stop.
class ThreadLoop : public EventLoop {
 public:
  virtual void Run() = 0;   // until Stop
  virtual void Stop() = 0;  // from any thread

  // From any thread, without waking it.
  virtual LoopProgress progress() const = 0;
  // On the loop's thread.
  virtual void SetSpinLimits(const SpinLimits& limits) = 0;
};
std::unique_ptr<ThreadLoop> NewEpollLoop(const SpinLimits& limits);

}  // namespace vmsg::backend
