// SPDX-License-Identifier: Apache-2.0
// Withdrawing segments while buffers and queue areas point into them.
#include <gtest/gtest.h>

#include "grants/window.h"
#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

class WithdrawTest : public testing::Test {
 protected:
  WithdrawTest() {
    EXPECT_TRUE(window_.Append(mapper_.MapFresh(2), 100).ok());  // pages 0, 1
    EXPECT_TRUE(window_.Append(mapper_.MapFresh(3), 100).ok());  // pages 2, 3, 4
    EXPECT_TRUE(window_.Append(mapper_.MapFresh(1), 100).ok());  // page 5
  }
  bool Pin(uint64_t address, uint64_t size) {
    IoVector pieces;
    return window_.PinSpans(address, size, &pieces).ok();
  }

  FakeMapper mapper_;
  Window window_;
};

TEST_F(WithdrawTest, IdleSegmentIsGivenBackAtOnceAndItsAddressesAreRefused) {
  auto mapping = window_.Withdraw(2, 3);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->pages(), 3u);
  EXPECT_EQ(mapper_.live_pages(), 6u) << "unmapped before the caller did";
  mapping->Reset();
  EXPECT_EQ(mapper_.live_pages(), 3u);
  EXPECT_FALSE(Pin(2 * kPageSize, 1));
  EXPECT_FALSE(Pin(5 * kPageSize - 1, 1));
  EXPECT_FALSE(Pin(2 * kPageSize - 1, 2));      // runs into the gap
  EXPECT_FALSE(Pin(kPageSize, 5 * kPageSize));  // spans the gap
  EXPECT_TRUE(Pin(0, 2 * kPageSize));
  EXPECT_TRUE(Pin(5 * kPageSize, kPageSize));
  window_.Unpin(0, 2 * kPageSize);
  window_.Unpin(5 * kPageSize, kPageSize);
  EXPECT_FALSE(window_.has_drained());
}

TEST_F(WithdrawTest, OnlyAWholeSegmentCanBeWithdrawn) {
  const std::pair<uint32_t, uint32_t> none[] = {{0, 1}, {0, 3}, {1, 1},          {2, 2},
                                                {3, 2}, {0, 0}, {0, UINT32_MAX}, {6, 1},
                                                {4, 1}, {0, 6}, {2, 0},          {UINT32_MAX, 1}};
  for (const auto& [first, pages] : none) {
    EXPECT_EQ(window_.Withdraw(first, pages).status().code(), absl::StatusCode::kNotFound)
        << first << " " << pages;
  }
  EXPECT_EQ(window_.mapped_pages(), 6u);
}

TEST_F(WithdrawTest, TwiceIsNotFound) {
  EXPECT_TRUE(*window_.Withdraw(2, 3));
  EXPECT_EQ(window_.Withdraw(2, 3).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(WithdrawTest, PinnedSegmentDrainsWithItsLastPin) {
  ASSERT_TRUE(Pin(2 * kPageSize, 10));
  ASSERT_TRUE(Pin(3 * kPageSize, 10));
  const auto mapping = window_.Withdraw(2, 3);
  ASSERT_TRUE(mapping.ok());
  EXPECT_FALSE(*mapping);
  // Closed for new buffers, mapped for those in flight, not to be withdrawn again.
  EXPECT_FALSE(Pin(2 * kPageSize, 10));
  EXPECT_FALSE(window_.PinArea(2 * kPageSize, 16, 16).ok());
  EXPECT_EQ(window_.Withdraw(2, 3).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(window_.mapped_pages(), 6u);

  window_.Unpin(2 * kPageSize, 10);
  EXPECT_FALSE(window_.has_drained());
  EXPECT_TRUE(window_.TakeDrained().empty());
  window_.Unpin(3 * kPageSize, 10);
  EXPECT_TRUE(window_.has_drained());
  std::vector<Window::Drained> drained = window_.TakeDrained();
  ASSERT_EQ(drained.size(), 1u);
  EXPECT_EQ(drained[0].first_page, 2u);
  EXPECT_EQ(drained[0].mapping.pages(), 3u);
  EXPECT_FALSE(window_.has_drained());
  EXPECT_EQ(window_.mapped_pages(), 3u);
}

TEST_F(WithdrawTest, QueueAreaHoldsItsSegment) {
  ASSERT_TRUE(window_.PinArea(2 * kPageSize, 256, 16).ok());
  EXPECT_FALSE(*window_.Withdraw(2, 3));
  EXPECT_FALSE(window_.PinArea(2 * kPageSize, 256, 16).ok());
  EXPECT_FALSE(window_.PinArea(3 * kPageSize, 256, 16).ok());
  window_.Unpin(2 * kPageSize, 256);
  EXPECT_EQ(window_.TakeDrained().size(), 1u);
}

TEST_F(WithdrawTest, BufferAcrossSegmentsHoldsEachOfThem) {
  ASSERT_TRUE(Pin(kPageSize, 5 * kPageSize));  // all three
  EXPECT_FALSE(*window_.Withdraw(0, 2));
  EXPECT_FALSE(*window_.Withdraw(2, 3));
  EXPECT_FALSE(*window_.Withdraw(5, 1));
  window_.Unpin(kPageSize, 5 * kPageSize);
  const std::vector<Window::Drained> drained = window_.TakeDrained();
  ASSERT_EQ(drained.size(), 3u);
  EXPECT_EQ(drained[0].first_page, 0u);
  EXPECT_EQ(drained[1].first_page, 2u);
  EXPECT_EQ(drained[2].first_page, 5u);
  EXPECT_EQ(window_.mapped_pages(), 0u);
}

TEST_F(WithdrawTest, UnpinFindsItsSegmentsWhenOthersWentMeanwhile) {
  ASSERT_TRUE(Pin(5 * kPageSize, 8));
  ASSERT_TRUE(Pin(2 * kPageSize, 8));
  EXPECT_TRUE(*window_.Withdraw(0, 2));
  EXPECT_FALSE(*window_.Withdraw(5, 1));
  window_.Unpin(2 * kPageSize, 8);
  EXPECT_TRUE(window_.TakeDrained().empty());
  window_.Unpin(5 * kPageSize, 8);
  ASSERT_EQ(window_.TakeDrained().size(), 1u);
  EXPECT_TRUE(*window_.Withdraw(2, 3)) << "a pin was left";
}

TEST_F(WithdrawTest, ExtendAndWithdrawForEverTakesNoMemory) {
  for (uint32_t i = 0; i < 2000; ++i) {
    EXPECT_EQ(*window_.Append(mapper_.MapFresh(1), 7), 6 + i);
    EXPECT_TRUE(*window_.Withdraw(6 + i, 1));
  }
  EXPECT_EQ(window_.mapped_pages(), 6u);
  EXPECT_EQ(mapper_.live_pages(), 6u);
}

TEST_F(WithdrawTest, PagesThatDrainStillCountAgainstTheCap) {
  ASSERT_TRUE(Pin(2 * kPageSize, 8));
  EXPECT_FALSE(*window_.Withdraw(2, 3));
  EXPECT_FALSE(window_.Append(mapper_.MapFresh(1), 6).ok());
  window_.Unpin(2 * kPageSize, 8);
  window_.TakeDrained();
  EXPECT_TRUE(window_.Append(mapper_.MapFresh(1), 6).ok());
}

TEST_F(WithdrawTest, EndOfSessionTakesEverything) {
  ASSERT_TRUE(Pin(2 * kPageSize, 8));
  EXPECT_FALSE(*window_.Withdraw(2, 3));
  window_.Unpin(2 * kPageSize, 8);  // drained, but nobody took it
  std::vector<GrantMapping> all = window_.TakeAll();
  EXPECT_EQ(all.size(), 3u);
  EXPECT_EQ(mapper_.live_pages(), 6u);
  all.clear();
  EXPECT_EQ(mapper_.live_pages(), 0u);
  EXPECT_FALSE(window_.has_drained());
  EXPECT_FALSE(Pin(0, 1));
  EXPECT_TRUE(window_.TakeAll().empty());
}

TEST_F(WithdrawTest, DestructionUnmapsWhatWasNotTaken) {
  FakeMapper mapper;
  {
    Window window;
    EXPECT_TRUE(window.Append(mapper.MapFresh(2), 100).ok());
  }
  EXPECT_EQ(mapper.live_pages(), 0u);
}

}  // namespace
}  // namespace vmsg::grants
