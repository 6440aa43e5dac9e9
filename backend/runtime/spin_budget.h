// SPDX-License-Identifier: Apache-2.0
// How long a loop may look for work before it sleeps: longer while that finds any, shorter while it
// does not (as KVM's halt polling), and in all no more than a share of the thread's time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {

// Of one thread; arithmetic only. Times are nanoseconds of one clock, which may start anywhere.
class SpinBudget {
 public:
  // Spinning spares a sleep and being woken, which cost some tens of system calls, so it is worth
  // no more than a multiple of that. `call_ns`: what a system call takes on this machine.
  static constexpr int64_t kCallsOfLongest = 500;
  static constexpr int64_t kLeastLongestNs = 200'000;
  static constexpr int64_t kMostLongestNs = 5'000'000;

  SpinBudget(const SpinLimits& limits, int64_t call_ns) {
    longest_ns_ = limits.longest == absl::InfiniteDuration()
                      ? std::clamp(kCallsOfLongest * call_ns, kLeastLongestNs, kMostLongestNs)
                      : absl::ToInt64Nanoseconds(limits.longest);
    share_ = std::min<int64_t>(limits.share_percent, 100);
    budget_ns_ = longest_ns_;
    most_credit_ns_ = kBurst * longest_ns_;
    credit_ns_ = most_credit_ns_;
  }

  // How long something may be found idle now before it is left.
  int64_t Allowed(int64_t now) {
    Earn(now);
    // All of it or nothing: what is too short to find anything is only lost.
    return share_ == 100 || credit_ns_ >= budget_ns_ ? budget_ns_ : 0;
  }
  // Spinning for so long has found work.
  void Found(int64_t now, int64_t spun) {
    Spend(now, spun);
    budget_ns_ = std::min(longest_ns_, 2 * budget_ns_);
  }
  // It has not, so the next one is shorter. But when the sleep was so short that spinning would
  // have seen its end, it gets longer again.
  void Slept(int64_t now, int64_t spun, int64_t slept) {
    Spend(now, spun);
    budget_ns_ = std::max(longest_ns_ / kLeastFraction, budget_ns_ / 2);
    if (slept < longest_ns_) budget_ns_ = std::min(longest_ns_, 4 * budget_ns_);
  }

 private:
  // Below this part of the longest, a hit could never be seen again.
  static constexpr int64_t kLeastFraction = 16;
  // Spins in a row before the share counts.
  static constexpr int64_t kBurst = 4;

  void Earn(int64_t now) {
    if (earned_at_ != 0 && now > earned_at_) {
      const int64_t passed = std::min(now - earned_at_, 100 * most_credit_ns_);
      credit_ns_ = std::min(most_credit_ns_, credit_ns_ + passed * share_ / 100);
    }
    earned_at_ = now;
  }
  void Spend(int64_t now, int64_t spun) {
    Earn(now);
    credit_ns_ -= std::min(spun, most_credit_ns_);
  }

  int64_t longest_ns_;
  int64_t share_;
  int64_t budget_ns_;
  int64_t most_credit_ns_;
  int64_t credit_ns_;  // below 0: so much was spun too long
  int64_t earned_at_ = 0;
};

}  // namespace vmsg::backend
