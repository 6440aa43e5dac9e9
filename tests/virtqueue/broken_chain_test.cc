// SPDX-License-Identifier: Apache-2.0
// One test for each way in which a chain or the available ring can break the rules.
#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using BrokenChainTest = QueueTest;

TEST_F(BrokenChainTest, Loop) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kNext, .next = 1});
  driver->WriteDesc(1, {.address = kBuffers, .length = 16, .flags = kNext, .next = 0});
  ExpectBroken(0, "more descriptors than the queue size 8");
}

TEST_F(BrokenChainTest, LoopToItself) {
  driver->WriteDesc(3, {.address = kBuffers, .length = 16, .flags = kNext, .next = 3});
  ExpectBroken(3, "more descriptors than the queue size 8");
}

TEST_F(BrokenChainTest, DirectAndIndirectBuffersTogetherExceedTheQueueSize) {
  const uint64_t table = kBuffers + 4096;
  for (uint16_t i = 0; i < 8; ++i) {
    driver->WriteTableEntry(table, i,
                            {.address = kBuffers,
                             .length = 1,
                             .flags = uint16_t(i < 7 ? kNext : 0),
                             .next = uint16_t(i + 1)});
  }
  driver->WriteDesc(0, {.address = kBuffers, .length = 1, .flags = kNext, .next = 1});
  driver->WriteDesc(1, {.address = table, .length = 8 * 16, .flags = kIndirect});
  ExpectBroken(0, "more buffers than the queue size 8");
}

TEST_F(BrokenChainTest, NextOutOfRange) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kNext, .next = 8});
  ExpectBroken(0, "continues at 8");
}

TEST_F(BrokenChainTest, NextOutOfRangeInIndirectTable) {
  driver->WriteTableEntry(kBuffers, 0,
                          {.address = kBuffers, .length = 1, .flags = kNext, .next = 1});
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kIndirect});
  ExpectBroken(0, "continues at 1 of 1");
}

TEST_F(BrokenChainTest, LoopInIndirectTable) {
  driver->WriteTableEntry(kBuffers, 0,
                          {.address = kBuffers, .length = 1, .flags = kNext, .next = 1});
  driver->WriteTableEntry(kBuffers, 1,
                          {.address = kBuffers, .length = 1, .flags = kNext, .next = 0});
  driver->WriteDesc(0, {.address = kBuffers, .length = 32, .flags = kIndirect});
  ExpectBroken(0, "loops");
}

TEST_F(BrokenChainTest, IndirectNotNegotiated) {
  Build(8, {.event_idx = false, .indirect = false});
  driver->WriteTableEntry(kBuffers, 0, {.address = kBuffers, .length = 1});
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kIndirect});
  ExpectBroken(0, "not negotiated");
}

TEST_F(BrokenChainTest, NestedIndirect) {
  driver->WriteTableEntry(kBuffers, 0,
                          {.address = kBuffers + 64, .length = 16, .flags = kIndirect});
  driver->WriteTableEntry(kBuffers + 64, 0, {.address = kBuffers, .length = 1});
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kIndirect});
  ExpectBroken(0, "itself indirect");
}

TEST_F(BrokenChainTest, IndirectWithNext) {
  driver->WriteTableEntry(kBuffers, 0, {.address = kBuffers, .length = 1});
  driver->WriteDesc(0, {.address = kBuffers, .length = 16, .flags = kIndirect | kNext, .next = 1});
  driver->WriteDesc(1, {.address = kBuffers, .length = 1});
  ExpectBroken(0, "indirect and has a next one");
}

TEST_F(BrokenChainTest, IndirectTableLargerThanTheQueue) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 9 * 16, .flags = kIndirect});
  ExpectBroken(0, "9 entries is larger than the queue size 8");
}

TEST_F(BrokenChainTest, IndirectTableOfOddLength) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 24, .flags = kIndirect});
  ExpectBroken(0, "24 bytes is not a multiple of 16");
}

TEST_F(BrokenChainTest, EmptyIndirectTable) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 0, .flags = kIndirect});
  ExpectBroken(0, "0 bytes is not a multiple of 16");
}

TEST_F(BrokenChainTest, IndirectTableOutsideTheWindow) {
  driver->WriteDesc(0, {.address = memory->size() - 8, .length = 16, .flags = kIndirect});
  ExpectBroken(0, "indirect table");
}

TEST_F(BrokenChainTest, ZeroLength) {
  driver->WriteChain(0, {{.address = kBuffers, .length = 16}, {.address = kBuffers, .length = 0}});
  ExpectBroken(0, "length 0");
}

TEST_F(BrokenChainTest, ReadableBehindWritable) {
  driver->WriteChain(0, {{.address = kBuffers, .length = 16, .flags = kWrite},
                         {.address = kBuffers + 16, .length = 16}});
  ExpectBroken(0, "follows a device-writable one");
}

TEST_F(BrokenChainTest, OutsideTheWindow) {
  driver->WriteDesc(0, {.address = memory->size(), .length = 1});
  ExpectBroken(0, "window address");
}

TEST_F(BrokenChainTest, LastByteOutsideTheWindow) {
  driver->WriteDesc(0, {.address = memory->size() - 15, .length = 16});
  ExpectBroken(0, "window address");
}

TEST_F(BrokenChainTest, AddressPlusLengthWrapsAround) {
  driver->WriteDesc(0, {.address = UINT64_MAX, .length = 16});
  ExpectBroken(0, "window address 18446744073709551615");
}

TEST_F(BrokenChainTest, LargestLength) {
  driver->WriteDesc(0, {.address = kBuffers, .length = UINT32_MAX});
  ExpectBroken(0, "window address");
}

TEST_F(BrokenChainTest, MoreThanFourGigabytes) {
  // 32768 buffers of 256 KiB are 8 GiB in a window of 1 MiB.
  Build(32768, {.event_idx = false, .indirect = true}, 512);
  const uint64_t buffers = driver->end();
  ASSERT_LE(buffers + 262144, memory->size());
  for (uint32_t i = 0; i < 32768; ++i) {
    driver->WriteDesc(i, {.address = buffers,
                          .length = 262144,
                          .flags = uint16_t(i < 32767 ? kNext : 0),
                          .next = uint16_t(i + 1)});
  }
  driver->MakeAvailable(0);
  EXPECT_FALSE(Pop().has_value());
  EXPECT_EQ(queue->broken_chains(), 1u);
  EXPECT_THAT(std::string(queue->last_broken().message()), HasSubstr("2^32"));
}

// 256 buffers of 256 pieces each would be a megabyte of ours for a chain, and 256 chains may wait.
TEST_F(BrokenChainTest, BuffersThatCrossTheSameSegmentsOverAndOver) {
  Build(8, {.event_idx = false, .indirect = true}, 16, grants::kMaxWindowSegments);
  const uint32_t all = static_cast<uint32_t>(memory->size()) - 2;
  driver->WriteChain(0, {{.address = 1, .length = all}, {.address = 1, .length = all}});
  driver->MakeAvailable(0);
  EXPECT_FALSE(Pop().has_value());
  EXPECT_THAT(std::string(queue->last_broken().message()), HasSubstr("more than 264 pieces"));
  // Nothing stays pinned.
  auto withdrawn = memory->window().Withdraw(5 * 16, 16);
  ASSERT_TRUE(withdrawn.ok());
  EXPECT_TRUE(*withdrawn);
}

TEST_F(BrokenChainTest, ABrokenChainLeavesNothingPinned) {
  Build(8, {.event_idx = false, .indirect = true}, 64, 2);
  const uint64_t second = 64 * 4096;
  driver->WriteChain(0, {{.address = second, .length = 16}, {.address = 0, .length = 0}});
  driver->MakeAvailable(0);
  EXPECT_FALSE(Pop().has_value());
  auto withdrawn = memory->window().Withdraw(64, 64);
  ASSERT_TRUE(withdrawn.ok());
  EXPECT_TRUE(*withdrawn) << "a pin kept the segment";
}

TEST_F(BrokenChainTest, AGarbageQueueCostsABoundedTurn) {
  Build(64, {.event_idx = false, .indirect = true});
  for (uint16_t i = 0; i < 64; ++i) {
    driver->WriteDesc(i, {.address = kBuffers, .length = 0});
    driver->Offer(i);
  }
  driver->Expose();
  EXPECT_FALSE(Pop().has_value());
  EXPECT_EQ(queue->broken_chains(), backend::SplitQueue::kMaxBrokenPerPop);
  EXPECT_TRUE(queue->HasAvailable()) << "the rest is for the next turn";
  while (queue->HasAvailable()) EXPECT_FALSE(Pop().has_value());
  (void)queue->Publish();
  EXPECT_EQ(driver->TakeAllUsed().size(), 64u);
}

TEST_F(BrokenChainTest, HeadOutOfRange) {
  driver->WriteDesc(1, {.address = kBuffers, .length = 16});
  driver->Offer(8);
  driver->Offer(65535);
  driver->Offer(1);
  driver->Expose();
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  EXPECT_EQ(chain->head, 1);
  EXPECT_EQ(queue->broken_chains(), 2u);
  EXPECT_THAT(std::string(queue->last_broken().message()), HasSubstr("head 65535"));
  queue->Return(*std::move(chain), 0);
  (void)queue->Publish();
  EXPECT_THAT(driver->TakeAllUsed(), ElementsAre(UsedEntry{1, 0}))
      << "a head that is no descriptor must not be returned";
}

TEST_F(BrokenChainTest, HeadMadeAvailableTwiceIsReturnedOnce) {
  driver->WriteDesc(2, {.address = kBuffers, .length = 16});
  driver->Offer(2);
  driver->Offer(2);
  driver->Expose();
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  EXPECT_FALSE(Pop().has_value());
  EXPECT_EQ(queue->broken_chains(), 1u);
  EXPECT_THAT(std::string(queue->last_broken().message()), HasSubstr("while it is in flight"));
  queue->Return(*std::move(chain), 0);
  (void)queue->Publish();
  EXPECT_THAT(driver->TakeAllUsed(), ElementsAre(UsedEntry{2, 0}));
  // Once returned it may come again.
  driver->MakeAvailable(2);
  chain = Pop();
  ASSERT_TRUE(chain.has_value());
  queue->Return(*std::move(chain), 0);
}

TEST_F(BrokenChainTest, AvailableIndexJumps) {
  driver->ExposeIdx(9);
  auto popped = queue->Pop();
  ASSERT_FALSE(popped.ok());
  EXPECT_EQ(popped.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(popped.status().message()), HasSubstr("available index is 9"));
  // For good, also when the index looks right again, and without a busy loop.
  driver->ExposeIdx(1);
  EXPECT_EQ(queue->Pop().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(queue->HasAvailable());
  EXPECT_FALSE(queue->EnableKicks());
}

// [driver:Virtqueues / The Virtqueue Available Ring] the index never goes back.
TEST_F(BrokenChainTest, AvailableIndexGoesBack) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 16});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  driver->ExposeIdx(0);
  EXPECT_EQ(queue->Pop().status().code(), absl::StatusCode::kDataLoss);
  queue->Return(*std::move(chain), 0);
}

TEST_F(BrokenChainTest, AvailableIndexGoesBackInTheLargestQueue) {
  Build(32768, {.event_idx = false, .indirect = true}, 512);
  driver->WriteDesc(0, {.address = 0, .length = 16});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  driver->ExposeIdx(0);
  EXPECT_EQ(queue->Pop().status().code(), absl::StatusCode::kDataLoss);
  queue->Return(*std::move(chain), 0);
}

}  // namespace
}  // namespace vmsg::testing
