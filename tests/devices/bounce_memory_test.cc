// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/io/bounce_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

namespace vmsg::testing {
namespace {

using backend::BounceMemory;
constexpr size_t kPage = BounceMemory::kPage;

BounceMemory Reserve(size_t bytes) {
  auto memory = BounceMemory::Reserve(bytes);
  EXPECT_TRUE(memory.ok()) << memory.status();
  return *std::move(memory);
}

TEST(BounceMemoryTest, TheLowestRunThatFits) {
  BounceMemory memory = Reserve(130 * kPage);
  std::byte* const first = memory.Take(1);
  std::byte* const second = memory.Take(2 * kPage);
  std::byte* const third = memory.Take(100 * kPage);
  EXPECT_EQ(second, first + kPage);
  EXPECT_EQ(third, second + 2 * kPage);
  EXPECT_EQ(memory.Take(28 * kPage), nullptr);
  memory.Give(second, 2 * kPage);
  EXPECT_EQ(memory.Take(3 * kPage), third + 100 * kPage) << "the gap is of two";
  EXPECT_EQ(memory.Take(kPage + 1), second);
}

TEST(BounceMemoryTest, AllOfItAndNoMore) {
  BounceMemory memory = Reserve(64 * kPage);
  std::byte* const all = memory.Take(64 * kPage);
  ASSERT_NE(all, nullptr);
  std::memset(all, 'x', 64 * kPage);
  EXPECT_EQ(memory.Take(1), nullptr);
  EXPECT_FALSE(memory.idle());
  memory.Give(all, 64 * kPage);
  EXPECT_TRUE(memory.idle());
}

TEST(BounceMemoryTest, TrimmingForgetsWhatWasThere) {
  BounceMemory memory = Reserve(4 * kPage);
  std::byte* const before = memory.Take(kPage);
  std::memset(before, 'x', kPage);
  memory.Give(before, kPage);
  memory.Trim();
  std::byte* const after = memory.Take(kPage);
  ASSERT_EQ(after, before);
  EXPECT_EQ(after[0], std::byte{0}) << "the page is a new one";
}

// Against a map of what is given out.
TEST(BounceMemoryTest, NoTwoGetTheSamePage) {
  constexpr size_t kPages = 200;
  BounceMemory memory = Reserve(kPages * kPage);
  std::byte* const base = memory.Take(1);
  memory.Give(base, 1);
  std::mt19937 random(1);
  std::map<size_t, size_t> given;  // first page, count
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 || given.empty()) {
      const size_t count = 1 + random() % 70;
      std::byte* const start = memory.Take(count * kPage);
      size_t free_from = 0;
      size_t expected = kPages;
      for (auto it = given.begin(); expected == kPages; ++it) {
        const size_t end = it == given.end() ? kPages : it->first;
        if (end - free_from >= count) expected = free_from;
        if (it == given.end()) break;
        free_from = it->first + it->second;
      }
      if (expected == kPages) {
        ASSERT_EQ(start, nullptr) << step;
      } else {
        ASSERT_EQ(start, base + expected * kPage) << step;
        given[expected] = count;
      }
    } else {
      auto it = std::next(given.begin(), static_cast<std::ptrdiff_t>(random() % given.size()));
      memory.Give(base + it->first * kPage, it->second * kPage);
      given.erase(it);
    }
    ASSERT_EQ(memory.idle(), given.empty());
  }
}

}  // namespace
}  // namespace vmsg::testing
