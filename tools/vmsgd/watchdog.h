// SPDX-License-Identifier: Apache-2.0
// Tells the service manager that the service is alive, as long as it is: the control thread's loop
// runs, for it calls this, and every I/O thread sleeps or has got on.
#pragma once

#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "backend/runtime/event_loop.h"

namespace vmsg {

// On the loop's thread. Wakes that thread, and no other, twice in `limit`.
class Watchdog {
 public:
  // `hanging`: the I/O threads that have neither slept nor got on since it was called last.
  // `alive` is called when there are none.
  Watchdog(backend::EventLoop* loop, absl::Duration limit,
           absl::AnyInvocable<std::vector<size_t>()> hanging, absl::AnyInvocable<void()> alive);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void Look();
  void LookLater();

  backend::EventLoop* const loop_;
  const absl::Duration interval_;
  absl::AnyInvocable<std::vector<size_t>()> hanging_;
  absl::AnyInvocable<void()> alive_;
  std::vector<size_t> told_;  // what the log says hangs
  backend::EventLoop::TimerId timer_ = 0;
};

}  // namespace vmsg
