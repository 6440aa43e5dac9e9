// SPDX-License-Identifier: Apache-2.0
// The directory's layout, and what a correct one gives.
#include "grants/directory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>

#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

constexpr DirectoryLimits kLimits{.max_pages = 65536};

TEST(DirectoryPagesFor, CountsPagesOf1023Entries) {
  EXPECT_EQ(DirectoryPagesFor(1), 1u);
  EXPECT_EQ(DirectoryPagesFor(1023), 1u);
  EXPECT_EQ(DirectoryPagesFor(1024), 2u);
  EXPECT_EQ(DirectoryPagesFor(16384), 17u);
  EXPECT_EQ(DirectoryPagesFor(UINT32_MAX), 4198405u);
}

TEST(WriteDirectory, GoldenBytesOfAPage) {
  alignas(kPageSize) std::byte page[kPageSize];
  std::fill(std::begin(page), std::end(page), std::byte{0xee});
  ASSERT_TRUE(WriteDirectory({0x01020304, 9}, page, {50}).ok());
  const uint8_t expected[] = {0, 0, 0, 0, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(std::memcmp(page, expected, sizeof(expected)), 0);
  EXPECT_TRUE(std::all_of(page + sizeof(expected), page + kPageSize,
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST(WriteDirectory, LinksPagesAndEndsTheListWith0) {
  FakeMapper mapper;
  const std::vector<GrantRef> window = Sequence(1000, 2047);
  const std::span<std::byte> view = PutDirectory(mapper, Sequence(50, 3), window);
  EXPECT_EQ(DirectoryWord(view, 0, 0), 51u);
  EXPECT_EQ(DirectoryWord(view, 1, 0), 52u);
  EXPECT_EQ(DirectoryWord(view, 2, 0), 0u);
  EXPECT_EQ(DirectoryWord(view, 1, 1), 1000u + 1023u);
  EXPECT_EQ(DirectoryWord(view, 2, 1), 1000u + 2046u);
  EXPECT_EQ(DirectoryWord(view, 2, 2), 0u);
}

TEST(WriteDirectory, RefusesNoPagesAndSizesThatDoNotFit) {
  alignas(kPageSize) std::byte page[kPageSize] = {};
  EXPECT_EQ(WriteDirectory({}, page, {50}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteDirectory({9}, page, {50, 51}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteDirectory({9}, std::span(page).first(4095), {50}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteDirectory(Sequence(9, 1024), page, {50}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::all_of(page, page + kPageSize, [](std::byte b) { return b == std::byte{0}; }));
}

class WalkDirectoryOfSize : public testing::TestWithParam<uint32_t> {};

TEST_P(WalkDirectoryOfSize, GivesTheListInOrder) {
  FakeMapper mapper;
  std::vector<GrantRef> window = Sequence(5000, GetParam());
  std::shuffle(window.begin(), window.end(), std::mt19937(1));
  const std::vector<GrantRef> directory = Sequence(100, DirectoryPagesFor(GetParam()));
  PutDirectory(mapper, directory, window);

  const auto refs = WalkDirectory(mapper, FakeMapper::kGuest, 100, GetParam(), kLimits);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(*refs, window);
  // Each directory page once, alone, read-only, and unmapped.
  ASSERT_EQ(mapper.calls().size(), directory.size());
  for (size_t i = 0; i < directory.size(); ++i) {
    EXPECT_EQ(mapper.calls()[i].refs, std::vector<GrantRef>{directory[i]});
    EXPECT_TRUE(mapper.calls()[i].copy);
  }
  EXPECT_EQ(mapper.live_mappings(), 0u);
}

INSTANTIATE_TEST_SUITE_P(AroundPageBounds, WalkDirectoryOfSize,
                         testing::Values(1, 2, 1022, 1023, 1024, 2046, 2047, 5000));

TEST(WalkDirectory, IgnoresUnusedEntriesOfTheLastPage) {
  FakeMapper mapper;
  const std::span<std::byte> view =
      PutDirectory(mapper, std::vector<GrantRef>{100}, Sequence(200, 3));
  DirectoryWord(view, 0, 4) = 200;  // a duplicate, were it used
  DirectoryWord(view, 0, 5) = 3;    // reserved
  DirectoryWord(view, 0, 1023) = 0xffffffff;
  const auto refs = WalkDirectory(mapper, FakeMapper::kGuest, 100, 3, kLimits);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(*refs, Sequence(200, 3));
}

TEST(WalkDirectory, TakesReferencesUpToTheHighest) {
  FakeMapper mapper;
  const std::vector<GrantRef> window = {0xffffffff, 8, 0x80000000};
  PutDirectory(mapper, std::vector<GrantRef>{0xfffffffe}, window);
  const auto refs = WalkDirectory(mapper, FakeMapper::kGuest, 0xfffffffe, 3, kLimits);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(*refs, window);
}

TEST(WalkDirectory, TakesExactlyTheCap) {
  FakeMapper mapper;
  PutDirectory(mapper, std::vector<GrantRef>{100}, Sequence(200, 16));
  EXPECT_TRUE(WalkDirectory(mapper, FakeMapper::kGuest, 100, 16, {.max_pages = 16}).ok());
}

TEST(MapWindow, MapsAllPagesWritableInOneBatchInListOrder) {
  FakeMapper mapper;
  std::vector<GrantRef> window = Sequence(5000, 1500);
  std::shuffle(window.begin(), window.end(), std::mt19937(2));
  for (const GrantRef ref : window) {
    std::memcpy(mapper.Grant(ref).data(), &ref, sizeof(ref));
  }
  PutDirectory(mapper, Sequence(100, 2), window);

  auto mapping = MapWindow(mapper, FakeMapper::kGuest, 100, 1500, kLimits);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_EQ(mapping->pages(), 1500u);
  for (size_t i = 0; i < window.size(); ++i) {
    GrantRef tag = 0;
    std::memcpy(&tag, mapping->bytes().data() + i * kPageSize, sizeof(tag));
    ASSERT_EQ(tag, window[i]) << "page " << i;
  }
  ASSERT_EQ(mapper.calls().size(), 3u);
  EXPECT_EQ(mapper.calls()[2].refs, window);
  EXPECT_EQ(mapper.calls()[2].access, Access::kReadWrite);
  EXPECT_EQ(mapper.live_mappings(), 1u);
}

TEST(MapWindow, PagesThatAreNotAdmittedAreNotMapped) {
  FakeMapper mapper;
  mapper.GrantRange(1000, 3);
  PutDirectory(mapper, Sequence(100, 1), Sequence(1000, 3));
  std::vector<GrantRef> asked;
  const auto window =
      MapWindow(mapper, FakeMapper::kGuest, 100, 3, kLimits, [&](absl::Span<const GrantRef> refs) {
        asked.assign(refs.begin(), refs.end());
        return absl::InvalidArgumentError("page 1: no");
      });
  EXPECT_EQ(asked, Sequence(1000, 3));
  EXPECT_EQ(window.status(), absl::InvalidArgumentError("window page 1: no"));
  ASSERT_EQ(mapper.calls().size(), 1u) << "the directory's copy";
  EXPECT_TRUE(mapper.calls()[0].copy);
}

// Whoever counts what is mapped is told when it is not any more, wherever the mapping went.
TEST(GrantMapping, KeepsWhatItWasGivenUntilItIsUnmapped) {
  FakeMapper mapper;
  size_t mapped_at_the_end = 99;
  const auto keep = [&] {
    return std::shared_ptr<const void>(
        &mapper, [&](const void*) { mapped_at_the_end = mapper.live_mappings(); });
  };
  GrantMapping first = mapper.MapFresh(2);
  first.KeepUntilUnmapped(keep());
  GrantMapping second = std::move(first);
  first.Reset();
  EXPECT_EQ(mapped_at_the_end, 99u);
  second.Reset();
  EXPECT_EQ(mapped_at_the_end, 0u);
  {
    GrantMapping third = mapper.MapFresh(1);
    third.KeepUntilUnmapped(keep());
    GrantMapping other = mapper.MapFresh(1);
    mapped_at_the_end = 99;
    third = std::move(other);
    EXPECT_EQ(mapped_at_the_end, 1u) << "the other is mapped";
  }
}

}  // namespace
}  // namespace vmsg::grants
