// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/watchdog.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/backend/simulated_loop.h"

namespace vmsg {
namespace {

class WatchdogTest : public ::testing::Test {
 protected:
  backend::SimulatedLoop loop_;
  std::vector<size_t> hanging_;
  int looked_ = 0;
  int alive_ = 0;
  std::optional<Watchdog> watchdog_{std::in_place, &loop_, absl::Seconds(30),
                                    [this] {
                                      ++looked_;
                                      return hanging_;
                                    },
                                    [this] { ++alive_; }};
};

TEST_F(WatchdogTest, SaysItIsAliveTwiceWithinTheLimit) {
  loop_.Advance(absl::Seconds(14));
  EXPECT_EQ(alive_, 0);
  loop_.Advance(absl::Seconds(1));
  EXPECT_EQ(alive_, 1);
  loop_.Advance(absl::Seconds(60));
  EXPECT_EQ(alive_, 5);
}

TEST_F(WatchdogTest, AThreadThatHangsIsNotHiddenUntilItGetsOn) {
  loop_.Advance(absl::Seconds(15));
  hanging_ = {1};
  loop_.Advance(absl::Minutes(10));
  EXPECT_EQ(alive_, 1);
  EXPECT_EQ(looked_, 41);
  hanging_.clear();
  loop_.Advance(absl::Seconds(15));
  EXPECT_EQ(alive_, 2);
}

TEST_F(WatchdogTest, LeavesNoTimerBehind) {
  watchdog_.reset();
  EXPECT_EQ(loop_.timers(), 0u);
}

}  // namespace
}  // namespace vmsg
