// SPDX-License-Identifier: Apache-2.0
// How long a loop may spin, over time that the test makes.
#include "backend/runtime/spin_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace vmsg::backend {
namespace {

constexpr int64_t kUs = 1'000;
constexpr int64_t kStart = 1'000 * kUs;

// A thread whose work comes every so often and takes no time, and what it spins.
struct Thread {
  SpinBudget budget;
  int64_t now = kStart;
  int64_t spun = 0;
  int found = 0;

  // The next work comes after `idle`.
  void Wait(int64_t idle) {
    const int64_t allowed = budget.Allowed(now);
    const int64_t spins = std::min(idle, allowed);
    spun += spins;
    now += idle;
    if (idle <= allowed) {
      ++found;
      budget.Found(now, spins);
    } else {
      budget.Slept(now, spins, idle - spins);
    }
  }
};

TEST(SpinBudget, TheLongestIsAMultipleOfACallBetweenBounds) {
  const SpinLimits limits;
  EXPECT_EQ(SpinBudget(limits, 300).Allowed(kStart), 200 * kUs) << "a processor";
  EXPECT_EQ(SpinBudget(limits, 2 * kUs).Allowed(kStart), 1'000 * kUs);
  EXPECT_EQ(SpinBudget(limits, 40 * kUs).Allowed(kStart), 5'000 * kUs) << "an interpreter";
  EXPECT_EQ(SpinBudget({absl::Microseconds(7)}, 40 * kUs).Allowed(kStart), 7 * kUs);
  EXPECT_EQ(SpinBudget({absl::ZeroDuration()}, 40 * kUs).Allowed(kStart), 0);
}

// Work that comes just late enough, or just in time, or at any pace: the share holds.
TEST(SpinBudget, AThreadSpinsNoMoreThanItsShare) {
  for (const uint32_t share : {10u, 50u, 75u}) {
    for (int64_t idle = 10 * kUs; idle < 3'000 * kUs; idle += 10 * kUs) {
      Thread thread{SpinBudget({absl::Microseconds(200), share}, 0)};
      while (thread.now - kStart < 2'000'000 * kUs) thread.Wait(idle);
      // Four in a row count for nothing.
      EXPECT_LE(thread.spun, (thread.now - kStart) * share / 100 + 5 * 200 * kUs)
          << "work each " << idle << " ns, " << share << "%";
    }
  }
}

TEST(SpinBudget, WorkThatComesSoonIsFoundWithoutSleeping) {
  Thread thread{SpinBudget({absl::Microseconds(200), 75}, 0)};
  // It comes after 100 us, and takes 100 us: less than the share.
  for (int i = 0; i < 1'000; ++i) {
    thread.Wait(100 * kUs);
    thread.now += 100 * kUs;
  }
  EXPECT_EQ(thread.found, 1'000);
}

TEST(SpinBudget, WorkThatComesSeldomIsHardlySpunFor) {
  Thread thread{SpinBudget({absl::Microseconds(200), 75}, 0)};
  for (int i = 0; i < 1'000; ++i) thread.Wait(10'000 * kUs);
  EXPECT_LT(thread.spun, 1'000 * 15 * kUs);
}

TEST(SpinBudget, GrowsAgainWhenSleepsAreShort) {
  Thread thread{SpinBudget({absl::Microseconds(200), 75}, 0)};
  for (int i = 0; i < 100; ++i) thread.Wait(10'000 * kUs);
  for (int i = 0; i < 10; ++i) {
    thread.Wait(150 * kUs);
    thread.now += 100 * kUs;
  }
  EXPECT_GE(thread.found, 5);
}

}  // namespace
}  // namespace vmsg::backend
