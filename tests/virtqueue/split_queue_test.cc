// SPDX-License-Identifier: Apache-2.0
// What an honest driver gets: setting up, chains of every shape, returning, sizes, wrap-around,
// stopping.
#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using SplitQueueTest = QueueTest;

std::string CreateError(GuestMemory& memory, backend::QueueLayout layout,
                        backend::QueueFeatures features = {}) {
  auto queue = backend::SplitQueue::Create(memory.window(), layout, features);
  if (queue.ok()) return "";
  EXPECT_EQ(queue.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(queue.status().message());
}

TEST(SplitQueueCreate, RefusesSizesThatAreNoPowerOfTwoUpTo32768) {
  GuestMemory memory(512);
  for (const uint32_t size : {0u, 3u, 6u, 65536u, UINT32_MAX}) {
    EXPECT_THAT(CreateError(memory, {.size = size, .desc = 4096, .driver = 8192, .device = 12288}),
                HasSubstr("is not a power of two"))
        << size;
  }
}

TEST(SplitQueueCreate, RefusesAnAreaAtAddressZero) {
  GuestMemory memory(16);
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 0, .driver = 8192, .device = 12288}),
              HasSubstr("descriptor area is at address 0"));
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 0, .device = 12288}),
              HasSubstr("driver area is at address 0"));
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = 0}),
              HasSubstr("device area is at address 0"));
}

TEST(SplitQueueCreate, RefusesMisalignedAreas) {
  GuestMemory memory(16);
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4104, .driver = 8192, .device = 12288}),
              HasSubstr("descriptor area at 4104"));
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8193, .device = 12288}),
              HasSubstr("driver area at 8193"));
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = 12290}),
              HasSubstr("device area at 12290"));
}

TEST(SplitQueueCreate, RefusesAreasOutsideTheWindow) {
  GuestMemory memory(16);
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 65536, .driver = 8192, .device = 12288}),
              HasSubstr("descriptor area at 65536"));
  EXPECT_THAT(
      CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = UINT64_MAX - 3}),
      HasSubstr("device area"));
}

TEST(SplitQueueCreate, RefusesOverlappingAreas) {
  GuestMemory memory(16);
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 4096 + 126, .device = 12288}),
              HasSubstr("overlaps the driver area"));
  EXPECT_THAT(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = 8208}),
              HasSubstr("overlaps the device area"));
}

TEST(SplitQueueCreate, TheEventWordIsPartOfAnAreaOnlyWithEventIdx) {
  GuestMemory memory(16);
  // 4 + 8 * 2 bytes up to the end of the driver area without its event word.
  const backend::QueueLayout tight{.size = 8, .desc = 4096, .driver = 8192, .device = 8212};
  EXPECT_EQ(CreateError(memory, tight, {.event_idx = false}), "");
  EXPECT_THAT(CreateError(memory, tight, {.event_idx = true}), HasSubstr("overlaps"));
}

TEST(SplitQueueCreate, ARefusedOrDestroyedQueueLeavesNothingPinned) {
  GuestMemory memory(16);
  EXPECT_NE(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = 8200}), "");
  EXPECT_EQ(CreateError(memory, {.size = 8, .desc = 4096, .driver = 8192, .device = 12288}), "");
  auto withdrawn = memory.window().Withdraw(0, 16);
  ASSERT_TRUE(withdrawn.ok());
  EXPECT_TRUE(*withdrawn) << "a pin kept the segment";
}

TEST_F(SplitQueueTest, EmptyQueueGivesNothing) {
  EXPECT_FALSE(Pop().has_value());
  EXPECT_FALSE(queue->HasAvailable());
}

TEST_F(SplitQueueTest, ReadableThenWritableBuffersInOrder) {
  driver->WriteChain(2, {{.address = kBuffers, .length = 16},
                         {.address = kBuffers + 100, .length = 7},
                         {.address = kBuffers + 4096, .length = 512, .flags = kWrite},
                         {.address = 0, .length = 1, .flags = kWrite}});
  driver->MakeAvailable(2);
  EXPECT_TRUE(queue->HasAvailable());
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  EXPECT_EQ(chain->head, 2);
  ASSERT_EQ(chain->readable.size(), 2u);
  EXPECT_EQ(chain->readable[0].iov_base, memory->At(kBuffers));
  EXPECT_EQ(chain->readable[1].iov_base, memory->At(kBuffers + 100));
  EXPECT_EQ(chain->readable[1].iov_len, 7u);
  EXPECT_EQ(chain->readable_bytes, 23u);
  ASSERT_EQ(chain->writable.size(), 2u);
  EXPECT_EQ(chain->writable[1].iov_base, memory->At(0)) << "address 0 is a valid buffer";
  EXPECT_EQ(chain->writable_bytes, 513u);
  queue->Return(*std::move(chain), 513);
  EXPECT_THAT(driver->TakeAllUsed(), IsEmpty()) << "not visible before Publish";
  EXPECT_TRUE(queue->Publish());
  EXPECT_THAT(driver->TakeAllUsed(), ElementsAre(UsedEntry{2, 513}));
  EXPECT_FALSE(queue->Publish()) << "nothing new";
}

TEST_F(SplitQueueTest, ChainsReturnInAnyOrder) {
  for (uint16_t i = 0; i < 4; ++i) {
    driver->WriteDesc(i, {.address = kBuffers, .length = 16, .flags = kWrite});
    driver->Offer(i);
  }
  driver->Expose();
  for (int i = 0; i < 4; ++i) held.push_back(*Pop());
  EXPECT_EQ(queue->in_flight(), 4u);
  for (const int i : {2, 0, 3, 1}) queue->Return(std::move(held[i]), i);
  held.clear();
  EXPECT_EQ(queue->in_flight(), 0u);
  (void)queue->Publish();
  EXPECT_THAT(driver->TakeAllUsed(),
              ElementsAre(UsedEntry{2, 2}, UsedEntry{0, 0}, UsedEntry{3, 3}, UsedEntry{1, 1}));
}

// [device:Virtqueues / The Virtqueue Descriptor Table / Indirect Descriptors] the write flag of the
// descriptor that refers to the table is ignored.
TEST_F(SplitQueueTest, IndirectTableIgnoresItsOwnWriteFlag) {
  driver->WriteTableEntry(kBuffers, 0,
                          {.address = kBuffers + 512, .length = 8, .flags = kNext, .next = 1});
  driver->WriteTableEntry(kBuffers, 1, {.address = kBuffers + 520, .length = 8, .flags = kWrite});
  driver->WriteDesc(5, {.address = kBuffers, .length = 32, .flags = kIndirect | kWrite});
  driver->MakeAvailable(5);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  EXPECT_EQ(chain->readable_bytes, 8u);
  EXPECT_EQ(chain->writable_bytes, 8u);
  queue->Return(*std::move(chain), 0);
}

// [device:Virtqueues / The Virtqueue Descriptor Table / Indirect Descriptors] ordinary descriptors
// may come before the one that refers to a table.
TEST_F(SplitQueueTest, DirectDescriptorsFollowedByAnIndirectOne) {
  driver->WriteTableEntry(kBuffers, 0, {.address = kBuffers + 520, .length = 8, .flags = kWrite});
  driver->WriteDesc(0, {.address = kBuffers + 512, .length = 8, .flags = kNext, .next = 6});
  driver->WriteDesc(6, {.address = kBuffers, .length = 16, .flags = kIndirect});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  EXPECT_EQ(chain->readable.size(), 1u);
  EXPECT_EQ(chain->writable.size(), 1u);
  queue->Return(*std::move(chain), 0);
}

TEST_F(SplitQueueTest, IndirectTableOfAnyAlignment) {
  std::byte* const table = memory->At(kBuffers + 3);
  const struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
  } entry = {kBuffers + 512, 77, kWrite, 0};
  std::memcpy(table, &entry, 16);
  driver->WriteDesc(0, {.address = kBuffers + 3, .length = 16, .flags = kIndirect});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  EXPECT_EQ(chain->writable_bytes, 77u);
  queue->Return(*std::move(chain), 0);
}

TEST_F(SplitQueueTest, BuffersAndIndirectTablesCrossSegments) {
  Build(8, {.event_idx = false, .indirect = true}, 64, 2);
  const uint64_t border = 64 * 4096;
  // One table entry on each side of the border, and a buffer that straddles it.
  driver->WriteTableEntry(border - 16, 0, {.address = 16, .length = 8, .flags = kNext, .next = 1});
  driver->WriteTableEntry(border - 16, 1,
                          {.address = border - 100, .length = 300, .flags = kWrite});
  driver->WriteDesc(0, {.address = border - 16, .length = 32, .flags = kIndirect});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  ASSERT_EQ(chain->writable.size(), 2u);
  EXPECT_EQ(chain->writable[0].iov_len, 100u);
  EXPECT_EQ(chain->writable[1].iov_base, memory->At(border));
  EXPECT_EQ(chain->writable_bytes, 300u);
  queue->Return(*std::move(chain), 0);
}

TEST_F(SplitQueueTest, ASegmentIsWithdrawnWhenItsLastChainReturned) {
  Build(8, {.event_idx = false, .indirect = true}, 64, 2);
  const uint64_t second = 64 * 4096;
  driver->WriteDesc(0, {.address = second, .length = 300, .flags = kWrite});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value());
  auto withdrawn = memory->window().Withdraw(64, 64);
  ASSERT_TRUE(withdrawn.ok());
  EXPECT_FALSE(*withdrawn);
  *static_cast<char*>(chain->writable[0].iov_base) = 'x';  // still mapped
  EXPECT_FALSE(memory->window().has_drained());
  queue->Return(*std::move(chain), 0);
  EXPECT_TRUE(memory->window().has_drained());
  EXPECT_EQ(memory->window().TakeDrained().size(), 1u);
  driver->WriteDesc(1, {.address = second, .length = 300});
  driver->MakeAvailable(1);
  EXPECT_FALSE(Pop().has_value()) << "addresses in it are refused from then on";
  EXPECT_EQ(queue->broken_chains(), 1u);
}

TEST_F(SplitQueueTest, AChainAsLongAsTheQueue) {
  for (uint16_t i = 0; i < 8; ++i) {
    driver->WriteDesc(i, {.address = kBuffers + i,
                          .length = 1,
                          .flags = uint16_t(i < 7 ? kNext : 0),
                          .next = uint16_t(i + 1)});
  }
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  EXPECT_EQ(chain->readable_bytes, 8u);
  queue->Return(*std::move(chain), 0);
}

// Every size: indices wrap at 65536 and every head comes back once.
class SplitQueueSizeTest : public QueueTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(SplitQueueSizeTest, WrapsAround) {
  const uint32_t size = GetParam();
  Build(size, {.event_idx = true, .indirect = true}, 512);
  for (uint32_t i = 0; i < size; ++i) driver->WriteDesc(i, {.address = i, .length = 1});
  uint32_t served = 0;
  uint32_t offered = 0;
  while (served < 2 * 65536 + 3) {
    const uint32_t batch = std::min<uint32_t>(size, 1 + served % 977);
    for (uint32_t i = 0; i < batch; ++i) driver->Offer((offered++) & (size - 1));
    driver->Expose();
    for (uint32_t i = 0; i < batch; ++i) {
      std::optional<backend::DescriptorChain> chain = Pop();
      ASSERT_TRUE(chain.has_value()) << served;
      ASSERT_EQ(chain->head, served & (size - 1));
      queue->Return(*std::move(chain), served & 0xff);
      (void)queue->Publish();
      auto used = driver->TakeUsed();
      ASSERT_TRUE(used.has_value());
      ASSERT_EQ(*used, (UsedEntry{served & (size - 1), served & 0xff}));
      ++served;
    }
    ASSERT_FALSE(Pop().has_value());
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SplitQueueSizeTest, ::testing::Values(1, 2, 256, 32768));

TEST_F(SplitQueueTest, AFullQueueOfTheLargestSize) {
  Build(32768, {.event_idx = false, .indirect = false}, 512);
  for (uint32_t i = 0; i < 32768; ++i) {
    driver->WriteDesc(i, {.address = i, .length = 1});
    driver->Offer(i);
  }
  driver->Expose();
  for (uint32_t i = 0; i < 32768; ++i) {
    std::optional<backend::DescriptorChain> chain = Pop();
    ASSERT_TRUE(chain.has_value()) << i;
    held.push_back(*std::move(chain));
  }
  EXPECT_EQ(queue->in_flight(), 32768u);
}

TEST_F(SplitQueueTest, StopWithNothingInFlightDrainsAtOnce) {
  bool drained = false;
  queue->Stop([&] { drained = true; });
  EXPECT_TRUE(drained);
  EXPECT_TRUE(queue->stopped());
}

TEST_F(SplitQueueTest, StopWaitsForChainsAndWritesNothingMore) {
  for (uint16_t i = 0; i < 3; ++i) {
    driver->WriteDesc(i, {.address = kBuffers, .length = 16, .flags = kWrite});
    driver->Offer(i);
  }
  driver->Expose();
  backend::DescriptorChain first = *Pop();
  backend::DescriptorChain second = *Pop();
  int drained = 0;
  queue->Stop([&] { ++drained; });
  EXPECT_FALSE(Pop().has_value()) << "no more chains";
  EXPECT_FALSE(queue->HasAvailable());
  EXPECT_FALSE(queue->EnableKicks());
  queue->Return(std::move(first), 16);
  EXPECT_EQ(drained, 0);
  queue->Return(std::move(second), 16);
  EXPECT_EQ(drained, 1);
  EXPECT_FALSE(queue->Publish());
  EXPECT_THAT(driver->TakeAllUsed(), IsEmpty());
  EXPECT_EQ(memory->Load<uint32_t>(driver->layout().device + 4), 0u) << "no entry was written";
}

TEST_F(SplitQueueTest, DrainedMayDestroyTheQueue) {
  driver->WriteDesc(0, {.address = kBuffers, .length = 16});
  driver->MakeAvailable(0);
  backend::DescriptorChain chain = *Pop();
  queue->Stop([this] { queue.reset(); });
  queue->Return(std::move(chain), 0);
  EXPECT_EQ(queue, nullptr);
}

// [device:Virtqueues / The Virtqueue Descriptor Table] the device writes no descriptor, and nothing
// into readable buffers.
TEST_F(SplitQueueTest, DescriptorsAndAvailableRingStayAsTheyAre) {
  driver->WriteChain(0, {{.address = kBuffers, .length = 16},
                         {.address = kBuffers + 16, .length = 16, .flags = kWrite}});
  driver->MakeAvailable(0);
  std::vector<std::byte> before(memory->At(4096), memory->At(driver->layout().device));
  backend::DescriptorChain chain = *Pop();
  queue->Return(std::move(chain), 16);
  (void)queue->Publish();
  queue->DisableKicks();
  (void)queue->EnableKicks();
  EXPECT_EQ(before, std::vector<std::byte>(memory->At(4096), memory->At(driver->layout().device)));
}

// The most pieces that buffers without overlap can have.
TEST_F(SplitQueueTest, ABufferOfEachByteAtSegmentBoundsIsAChain) {
  Build(8, {.event_idx = false, .indirect = true}, 16, grants::kMaxWindowSegments);
  const uint64_t segment = 16 * 4096;
  const uint64_t start = 2 * segment + 1;
  driver->WriteChain(0, {{.address = start, .length = 1},
                         {.address = start + 1, .length = 1},
                         {.address = start + 2, .length = 1},
                         {.address = start + 3, .length = 1},
                         {.address = start + 4, .length = 1},
                         {.address = start + 5, .length = 1},
                         {.address = start + 6, .length = 1},
                         {.address = start + 7,
                          .length = static_cast<uint32_t>(memory->size() - start - 7),
                          .flags = kWrite}});
  driver->MakeAvailable(0);
  std::optional<backend::DescriptorChain> chain = Pop();
  ASSERT_TRUE(chain.has_value()) << queue->last_broken();
  EXPECT_EQ(chain->readable.size(), 7u);
  EXPECT_EQ(chain->writable.size(), grants::kMaxWindowSegments - 2);
  queue->Return(*std::move(chain), 0);
}

}  // namespace
}  // namespace vmsg::testing
