// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/memory/guest_memory.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace vmsg::frontend {
namespace {

class GuestMemoryTest : public testing::Test {
 protected:
  void Add(uint32_t first_page, uint32_t pages) {
    backing_.emplace_back(new std::byte[pages * 4096]);
    ASSERT_TRUE(memory_.AddMemory(first_page, {backing_.back().get(), pages * 4096}).ok());
  }
  std::vector<std::unique_ptr<std::byte[]>> backing_;
  GuestMemory memory_;
};

TEST_F(GuestMemoryTest, AQueueAreaIsNeverAtAddressZero) {
  Add(0, 1);
  EXPECT_EQ(memory_.Allocate(64, 16, 1).value().address() % 16, 0u);
  EXPECT_NE(memory_.Allocate(64, 16, 1).value().address(), 0u);
  EXPECT_EQ(memory_.Allocate(64).value().address(), 0u);  // but a buffer may be
}

TEST_F(GuestMemoryTest, BlocksAreAlignedAndWithinOneSegment) {
  Add(0, 2);
  Add(2, 2);
  GuestBlock first = memory_.Allocate(100, 4096).value();
  GuestBlock large = memory_.Allocate(8192, 4096).value();
  EXPECT_EQ(large.address(), 8192u);
  EXPECT_EQ(large.bytes().data(), backing_[1].get());
  EXPECT_EQ(memory_.At(large.address(), 8192), large.bytes().data());
  EXPECT_EQ(memory_.At(4096, 8192), nullptr);  // two segments: not contiguous here
  EXPECT_EQ(memory_.At(16384, 1), nullptr);
  EXPECT_EQ(memory_.At(UINT64_MAX, 2), nullptr);
}

TEST_F(GuestMemoryTest, ExhaustionSaysWhatToDo) {
  Add(0, 1);
  const absl::Status status = memory_.Allocate(8192).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("--pages"), absl::string_view::npos);
  EXPECT_FALSE(memory_.Allocate(0).ok());
  EXPECT_FALSE(memory_.Allocate(UINT64_MAX).ok());
}

TEST_F(GuestMemoryTest, ASegmentInUseIsNotRetired) {
  Add(0, 1);
  Add(5, 1);
  GuestBlock block = memory_.Allocate(4096, 4096, 5 * 4096).value();
  EXPECT_EQ(memory_.RetireSegment(5, 1).code(), absl::StatusCode::kFailedPrecondition);
  block.Reset();
  EXPECT_EQ(memory_.RetireSegment(5, 2).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(memory_.RetireSegment(5, 1).ok());
  EXPECT_EQ(memory_.Allocate(16, 16, 5 * 4096).status().code(),
            absl::StatusCode::kResourceExhausted);
  memory_.ReviveSegment(5);
  EXPECT_TRUE(memory_.Allocate(16, 16, 5 * 4096).ok());
}

TEST_F(GuestMemoryTest, OverlappingSegmentsAreRefused) {
  Add(4, 4);
  std::vector<std::byte> bytes(2 * 4096);
  EXPECT_FALSE(memory_.AddMemory(3, bytes).ok());
  EXPECT_FALSE(memory_.AddMemory(7, bytes).ok());
  EXPECT_TRUE(memory_.AddMemory(8, bytes).ok());
}

// Blocks never overlap, and everything that was freed can be had again in one piece.
TEST_F(GuestMemoryTest, RandomAllocationsNeverOverlapAndCoalesce) {
  Add(0, 8);
  std::mt19937 random(1);
  std::map<uint64_t, GuestBlock> held;
  for (int step = 0; step < 5000; ++step) {
    if (held.empty() || random() % 2 == 0) {
      absl::StatusOr<GuestBlock> block =
          memory_.Allocate(1 + random() % 3000, size_t{16} << random() % 5);
      if (!block.ok()) continue;
      const auto after = held.lower_bound(block->address());
      if (after != held.end()) {
        ASSERT_LE(block->address() + block->size(), after->first);
      }
      if (after != held.begin()) {
        const auto before = std::prev(after);
        ASSERT_LE(before->first + before->second.size(), block->address());
      }
      const uint64_t address = block->address();
      held.emplace(address, *std::move(block));
    } else {
      held.erase(std::next(held.begin(), static_cast<ptrdiff_t>(random() % held.size())));
    }
  }
  held.clear();
  EXPECT_EQ(memory_.Allocate(8 * 4096).value().address(), 0u);
}

}  // namespace
}  // namespace vmsg::frontend
