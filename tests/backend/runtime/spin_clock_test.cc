// SPDX-License-Identifier: Apache-2.0
// The clock of a spinning thread, on a processor and a kernel that the test makes.
#include "backend/runtime/spin_clock.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace vmsg::backend {
namespace {

constexpr int64_t kMs = 1'000'000;

struct Machine {
  static uint64_t Cycles() { return cycles; }
  static int64_t Nanoseconds() {
    ++calls;
    return ns;
  }
  // Time passes; the counter has a rate of three cycles a nanosecond.
  static void Pass(int64_t passed) {
    ns += passed;
    cycles += 3 * static_cast<uint64_t>(passed);
  }
  inline static uint64_t cycles = 0;
  inline static int64_t ns = 0;
  inline static int calls = 0;
};

class SpinClockTest : public ::testing::Test {
 protected:
  SpinClockTest() {
    Machine::cycles = 1ull << 40;
    Machine::ns = 5'000'000'000;
    Machine::calls = 0;
    clock_.ReadExactly();
    Machine::Pass(kMs);
    clock_.ReadExactly();
  }
  SpinClockOf<Machine> clock_;
};

TEST_F(SpinClockTest, TellsTheTimeWithFewCalls) {
  Machine::calls = 0;
  for (int i = 0; i < 10'000; ++i) {
    Machine::Pass(1'000);
    EXPECT_NEAR(clock_.Read(), Machine::ns, 10);
  }
  // Ten milliseconds: once each, and once in 1,024 readings.
  EXPECT_LE(Machine::calls, 22);
}

TEST_F(SpinClockTest, ACounterThatStandsStillIsFoundOut) {
  for (int i = 0; i < 5'000; ++i) {
    Machine::ns += 1'000;
    clock_.Read();
  }
  Machine::ns += kMs;
  EXPECT_EQ(clock_.Read(), Machine::ns);
}

TEST_F(SpinClockTest, NeverGoesBack) {
  int64_t before = 0;
  for (const uint64_t jump : {uint64_t{0}, ~uint64_t{4'000}, uint64_t{2'900'000}, ~uint64_t{0} / 2,
                              uint64_t{1} << 50, uint64_t{0}}) {
    Machine::cycles += jump;  // another processor's
    for (int i = 0; i < 3'000; ++i) {
      Machine::Pass(1'000);
      const int64_t now = clock_.Read();
      EXPECT_GE(now, before);
      EXPECT_LE(now, Machine::ns + kMs);
      before = now;
    }
    EXPECT_NEAR(before, Machine::ns, kMs);
  }
}

TEST_F(SpinClockTest, FollowsACounterThatChangesItsRate) {
  for (int i = 0; i < 3'000; ++i) {
    Machine::ns += 1'000;
    Machine::cycles += 500;
    clock_.Read();
  }
  for (int i = 0; i < 100; ++i) {
    Machine::ns += 1'000;
    Machine::cycles += 500;
    EXPECT_NEAR(clock_.Read(), Machine::ns, 1'000);
  }
}

TEST_F(SpinClockTest, ALongSleepIsSeenAtOnce) {
  Machine::Pass(3'600 * int64_t{1'000} * kMs);
  EXPECT_EQ(clock_.Read(), Machine::ns);
  Machine::Pass(1'000);
  EXPECT_NEAR(clock_.Read(), Machine::ns, 10);
}

}  // namespace
}  // namespace vmsg::backend
