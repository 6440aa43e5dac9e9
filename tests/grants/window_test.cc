// SPDX-License-Identifier: Apache-2.0
// Addresses of the window: what is inside, what is not, and what the pieces are.
#include "grants/window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

using testing::HasSubstr;

class WindowTest : public testing::Test {
 protected:
  // Appends a segment and returns its first byte in this process.
  std::byte* Append(size_t pages) {
    GrantMapping mapping = mapper_.MapFresh(pages);
    std::byte* start = mapping.bytes().data();
    EXPECT_TRUE(window_.Append(std::move(mapping), 4096).ok());
    return start;
  }

  void ExpectRefused(uint64_t address, uint64_t size) {
    IoVector pieces;
    const absl::Status status = window_.PinSpans(address, size, &pieces);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << "address " << address << " size " << size;
    EXPECT_TRUE(pieces.empty());
    if (size > 0) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(address)));
      EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(size)));
    }
    EXPECT_EQ(window_.PinArea(address, size, 1).status().code(),
              absl::StatusCode::kInvalidArgument);
  }

  FakeMapper mapper_;
  Window window_;
};

TEST_F(WindowTest, EmptyWindowRefusesEveryAddress) {
  EXPECT_EQ(window_.size_bytes(), 0u);
  ExpectRefused(0, 1);
  ExpectRefused(0, 0);
  ExpectRefused(UINT64_MAX, UINT64_MAX);
}

// Bits 48 to 63 of an address are reserved: with one of them it is no address, whatever the rest.
TEST_F(WindowTest, AddressWithAReservedBitIsRefused) {
  Append(8);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(kPageSize, 16, &pieces).ok()) << "the rest of it is one";
  window_.Unpin(kPageSize, 16);
  for (int bit = 48; bit < 64; ++bit) ExpectRefused(kPageSize | uint64_t{1} << bit, 16);
  ExpectRefused(kPageSize | uint64_t{0xffff} << 48, 16);
}

TEST_F(WindowTest, BufferOfManyPagesIsOnePiece) {
  std::byte* start = Append(8);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(100, 7 * kPageSize, &pieces).ok());
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].iov_base, start + 100);
  EXPECT_EQ(pieces[0].iov_len, 7 * kPageSize);
  window_.Unpin(100, 7 * kPageSize);
}

TEST_F(WindowTest, AddressZeroIsABuffer) {
  std::byte* start = Append(1);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(0, 1, &pieces).ok());
  EXPECT_EQ(pieces[0].iov_base, start);
  window_.Unpin(0, 1);
}

TEST_F(WindowTest, ExactEndIsInsideAndOneMoreIsNot) {
  Append(2);
  IoVector pieces;
  EXPECT_TRUE(window_.PinSpans(0, 2 * kPageSize, &pieces).ok());
  EXPECT_TRUE(window_.PinSpans(2 * kPageSize - 1, 1, &pieces).ok());
  window_.Unpin(0, 2 * kPageSize);
  window_.Unpin(2 * kPageSize - 1, 1);
  ExpectRefused(0, 2 * kPageSize + 1);
  ExpectRefused(1, 2 * kPageSize);
  ExpectRefused(2 * kPageSize - 1, 2);
  ExpectRefused(2 * kPageSize, 1);
}

TEST_F(WindowTest, ZeroLengthIsRefusedEverywhere) {
  Append(2);
  ExpectRefused(0, 0);
  ExpectRefused(5, 0);
  ExpectRefused(2 * kPageSize, 0);
  ExpectRefused(UINT64_MAX, 0);
}

TEST_F(WindowTest, SumsThatWrapAreRefused) {
  Append(2);
  ExpectRefused(UINT64_MAX, 1);
  ExpectRefused(UINT64_MAX, 2);
  ExpectRefused(1, UINT64_MAX);
  ExpectRefused(kPageSize, UINT64_MAX - kPageSize + 1);  // wraps to 0
  ExpectRefused(kPageSize, UINT64_MAX - kPageSize + 2);  // wraps to 1
  ExpectRefused(UINT64_MAX - 7, 16);
  ExpectRefused(uint64_t{1} << 63, uint64_t{1} << 63);
  ExpectRefused(0, UINT64_MAX);
}

TEST_F(WindowTest, SumsThatWrapAreRefusedWithSeveralSegments) {
  Append(1);
  Append(1);
  ExpectRefused(UINT64_MAX, 2);
  ExpectRefused(1, UINT64_MAX);
  ExpectRefused(kPageSize, UINT64_MAX - kPageSize + 2);
  ExpectRefused(kPageSize - 1, UINT64_MAX);
  ExpectRefused(0, 2 * kPageSize + 1);
}

TEST_F(WindowTest, BufferAcrossSegmentsIsSplitAtTheirBounds) {
  std::byte* first = Append(2);
  std::byte* second = Append(1);
  std::byte* third = Append(3);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(2 * kPageSize - 10, 10 + kPageSize + 20, &pieces).ok());
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].iov_base, first + 2 * kPageSize - 10);
  EXPECT_EQ(pieces[0].iov_len, 10u);
  EXPECT_EQ(pieces[1].iov_base, second);
  EXPECT_EQ(pieces[1].iov_len, kPageSize);
  EXPECT_EQ(pieces[2].iov_base, third);
  EXPECT_EQ(pieces[2].iov_len, 20u);
  window_.Unpin(2 * kPageSize - 10, 10 + kPageSize + 20);
}

TEST_F(WindowTest, BufferThatEndsAtASegmentsEndDoesNotTouchTheNext) {
  Append(1);
  Append(1);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(0, kPageSize, &pieces).ok());
  EXPECT_EQ(pieces.size(), 1u);
  // The second segment is not pinned: it is given back at once.
  const auto withdrawn = window_.Withdraw(1, 1);
  ASSERT_TRUE(withdrawn.ok());
  EXPECT_TRUE(*withdrawn);
  window_.Unpin(0, kPageSize);
}

TEST_F(WindowTest, PiecesAreAppendedAndARefusalLeavesThemAlone) {
  std::byte* first = Append(1);
  std::byte* second = Append(1);
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(0, 16, &pieces).ok());
  ASSERT_TRUE(window_.PinSpans(kPageSize, 32, &pieces).ok());
  EXPECT_FALSE(window_.PinSpans(kPageSize, kPageSize + 1, &pieces).ok());
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].iov_base, first);
  EXPECT_EQ(pieces[1].iov_base, second);
  window_.Unpin(0, 16);
  window_.Unpin(kPageSize, 32);
}

TEST_F(WindowTest, RefusalAcrossSegmentsPinsNothing) {
  Append(1);
  Append(1);
  IoVector pieces;
  EXPECT_FALSE(window_.PinSpans(0, 2 * kPageSize + 1, &pieces).ok());
  EXPECT_TRUE(*window_.Withdraw(0, 1));
  EXPECT_TRUE(*window_.Withdraw(1, 1));
}

TEST_F(WindowTest, AreaIsWhereTheBufferIs) {
  std::byte* start = Append(2);
  const auto area = window_.PinArea(kPageSize + 64, 128, 16);
  ASSERT_TRUE(area.ok()) << area.status();
  EXPECT_EQ(area->size(), 128u);
  area->Store<uint32_t>(4, 0x11223344, std::memory_order_release);
  EXPECT_EQ(start[kPageSize + 64 + 4], std::byte{0x44});  // little-endian
  EXPECT_EQ(start[kPageSize + 64 + 7], std::byte{0x11});
  EXPECT_EQ(area->Load<uint16_t>(6, std::memory_order_acquire), 0x1122);
  EXPECT_EQ(area->Load<uint64_t>(0), uint64_t{0x11223344} << 32);
  window_.Unpin(kPageSize + 64, 128);
}

TEST_F(WindowTest, AreaMustBeAligned) {
  Append(1);
  const auto odd = window_.PinArea(17, 16, 2);
  EXPECT_EQ(odd.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(odd.status().message()),
              HasSubstr("address 17 with 16 bytes is not aligned to 2"));
  EXPECT_FALSE(window_.PinArea(8, 16, 16).ok());
  EXPECT_TRUE(window_.PinArea(8, 16, 8).ok());
  window_.Unpin(8, 16);
}

TEST_F(WindowTest, AreaMayNotSpanSegments) {
  Append(1);
  Append(1);
  const auto area = window_.PinArea(kPageSize - 16, 32, 16);
  EXPECT_EQ(area.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(area.status().message()), HasSubstr("end of its segment at 4096"));
  EXPECT_TRUE(window_.PinArea(kPageSize - 16, 16, 16).ok());
  EXPECT_TRUE(window_.PinArea(kPageSize, kPageSize, 16).ok());
  window_.Unpin(kPageSize - 16, 16);
  window_.Unpin(kPageSize, kPageSize);
}

TEST_F(WindowTest, AppendCountsOnFromTheHighestPage) {
  EXPECT_EQ(*window_.Append(mapper_.MapFresh(3), 100), 0u);
  EXPECT_EQ(*window_.Append(mapper_.MapFresh(2), 100), 3u);
  EXPECT_EQ(window_.size_bytes(), 5 * kPageSize);
  EXPECT_EQ(window_.mapped_pages(), 5u);
  EXPECT_TRUE(*window_.Withdraw(3, 2));
  EXPECT_EQ(window_.mapped_pages(), 3u);
  EXPECT_EQ(*window_.Append(mapper_.MapFresh(1), 100), 5u) << "a withdrawn address came back";
}

TEST_F(WindowTest, AppendUpToTheCapAndNotOver) {
  EXPECT_TRUE(window_.Append(mapper_.MapFresh(3), 4).ok());
  const auto over = window_.Append(mapper_.MapFresh(2), 4);
  EXPECT_EQ(over.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(over.status().message()),
              HasSubstr("window of 3 pages and 2 more would pass max-window-pages 4"));
  EXPECT_EQ(mapper_.live_pages(), 3u) << "what was refused stays mapped";
  EXPECT_TRUE(window_.Append(mapper_.MapFresh(1), 4).ok());
  EXPECT_FALSE(window_.Append(mapper_.MapFresh(1), 0).ok());
}

TEST_F(WindowTest, SumsOfPagesThatPass32BitsAreRefused) {
  Append(3);
  EXPECT_THAT(std::string(window_.CheckAppend(UINT32_MAX, 4).message()),
              HasSubstr("would pass max-window-pages 4"));
  EXPECT_TRUE(window_.CheckAppend(UINT32_MAX - 3, UINT32_MAX).ok());
  // Numbers of pages that were withdrawn do not come again.
  ASSERT_TRUE(*window_.Withdraw(0, 3));
  EXPECT_TRUE(window_.CheckAppend(UINT32_MAX - 2, UINT32_MAX).ok());
  const absl::Status over = window_.CheckAppend(UINT32_MAX - 1, UINT32_MAX);
  EXPECT_THAT(std::string(over.message()), HasSubstr("would pass 2^32"));
}

TEST_F(WindowTest, AppendOfNothingIsRefused) {
  EXPECT_EQ(window_.Append(GrantMapping(), 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WindowTest, SegmentsAreCappedSoThatMappingsAreLeftForOthers) {
  for (size_t i = 0; i < kMaxWindowSegments; ++i) Append(1);
  EXPECT_EQ(window_.Append(mapper_.MapFresh(1), 4096).status().code(),
            absl::StatusCode::kResourceExhausted);
  // Across all of them.
  IoVector pieces;
  ASSERT_TRUE(window_.PinSpans(1, kMaxWindowSegments * kPageSize - 1, &pieces).ok());
  EXPECT_EQ(pieces.size(), kMaxWindowSegments);
  window_.Unpin(1, kMaxWindowSegments * kPageSize - 1);
  // And room again once one is gone.
  EXPECT_TRUE(*window_.Withdraw(17, 1));
  EXPECT_TRUE(window_.Append(mapper_.MapFresh(1), 4096).ok());
}

}  // namespace
}  // namespace vmsg::grants
