// SPDX-License-Identifier: Apache-2.0
#include "text/nearest_name.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vmsg {
namespace {

const std::vector<std::string> kNames = {"log-level", "io-threads", "virtio_msg", "spin-us", "xen"};

TEST(NearestNameTest, OneThatWasMistypedIsFound) {
  EXPECT_EQ(NearestName("loglevel", kNames), "log-level");
  EXPECT_EQ(NearestName("log_level", kNames), "log-level");
  EXPECT_EQ(NearestName("Log-Levle", kNames), "log-level");
  EXPECT_EQ(NearestName("virtio-msg", kNames), "virtio_msg");
  EXPECT_EQ(NearestName("virtio_mgs", kNames), "virtio_msg");
  EXPECT_EQ(NearestName("io-thread", kNames), "io-threads");
  EXPECT_EQ(NearestName("xne", kNames), "xen");
}

TEST(NearestNameTest, WhatWasWrittenIsNotSuggested) {
  EXPECT_EQ(NearestName("g8", {"g8"}), std::nullopt);
  EXPECT_EQ(NearestName("guest8", {"guest8", "guest9"}), "guest9");
  EXPECT_EQ(DidYouMean("guest8", {"guest8"}), "");
}

TEST(NearestNameTest, OneThatIsFarFromAllIsNotGuessed) {
  EXPECT_EQ(NearestName("memory", kNames), std::nullopt);
  EXPECT_EQ(NearestName("", kNames), std::nullopt);
  EXPECT_EQ(NearestName("x", kNames), std::nullopt);
  EXPECT_EQ(NearestName("virtio", kNames), std::nullopt);
  EXPECT_EQ(NearestName(std::string(100'000, 'x'), kNames), std::nullopt);
}

TEST(NearestNameTest, TheNearestOfSeveralIsTaken) {
  EXPECT_EQ(NearestName("detahc", {"attach", "detach"}), "detach");
  EXPECT_EQ(NearestName("atach", {"detach", "attach"}), "attach");
}

TEST(DidYouMeanTest, IsTheEndOfAMessage) {
  EXPECT_EQ(DidYouMean("loglevel", kNames), "; did you mean log-level?");
  EXPECT_EQ(DidYouMean("memory", kNames), "");
}

}  // namespace
}  // namespace vmsg
