// SPDX-License-Identifier: Apache-2.0
// The directory under faults and under a guest that rewrites it meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "grants/directory.h"
#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

constexpr DirectoryLimits kFaultLimits{.max_pages = 8192};
constexpr uint32_t kPages = 4000;  // 4 directory pages

TEST(DirectoryFaults, AMapThatFailsAtAnyCallLeavesNothingMapped) {
  for (size_t k = 0; k < DirectoryPagesFor(kPages) + 1; ++k) {
    FakeMapper mapper;
    mapper.GrantRange(5000, kPages);
    PutDirectory(mapper, Sequence(100, DirectoryPagesFor(kPages)), Sequence(5000, kPages));
    mapper.fail_call = k;
    const auto mapping = MapWindow(mapper, FakeMapper::kGuest, 100, kPages, kFaultLimits);
    ASSERT_FALSE(mapping.ok()) << "call " << k;
    // The mapper's own code, and the position.
    EXPECT_EQ(mapping.status().code(), absl::StatusCode::kUnavailable);
    const std::string position = k < DirectoryPagesFor(kPages)
                                     ? "directory page " + std::to_string(k) + " of 4"
                                     : "window of 4000 pages";
    EXPECT_THAT(std::string(mapping.status().message()), testing::HasSubstr(position));
    EXPECT_EQ(mapper.calls().size(), k + 1) << "went on after the failure";
    EXPECT_EQ(mapper.live_mappings(), 0u);
  }
}

TEST(DirectoryFaults, EveryMappingIsReleasedOnceWithItsStartAndCount) {
  FakeMapper mapper;
  mapper.GrantRange(5000, kPages);
  PutDirectory(mapper, Sequence(100, DirectoryPagesFor(kPages)), Sequence(5000, kPages));
  for (int round = 0; round < 3; ++round) {
    auto mapping = MapWindow(mapper, FakeMapper::kGuest, 100, kPages, kFaultLimits);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    EXPECT_EQ(mapper.live_mappings(), 1u);
    EXPECT_EQ(mapper.live_pages(), kPages);
    // Moves hand the duty on; the moved-from one must not unmap.
    GrantMapping moved = *std::move(mapping);
    GrantMapping target = std::move(moved);
    target.Reset();
    target.Reset();
    EXPECT_EQ(mapper.live_mappings(), 0u);
    EXPECT_EQ(mapper.wrong_unmaps(), 0u);
  }
}

TEST(DirectoryFaults, AssigningOverAMappingReleasesTheOldOne) {
  FakeMapper mapper;
  GrantMapping first = mapper.MapFresh(2);
  first = mapper.MapFresh(3);
  EXPECT_EQ(mapper.live_pages(), 3u);
}

TEST(DirectoryRewrite, WhatWasCopiedIsWhatCounts) {
  FakeMapper mapper;
  const std::span<std::byte> view = PutDirectory(mapper, Sequence(100, 2), Sequence(5000, 2000));
  // As soon as a page has been copied out, the guest turns it into something to refuse.
  mapper.after_copy = [&](GrantRef ref) {
    for (size_t i = 0; i <= kRefsPerDirectoryPage; ++i) DirectoryWord(view, ref - 100, i) = 1;
  };
  const auto refs = WalkDirectory(mapper, FakeMapper::kGuest, 100, 2000, kFaultLimits);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(*refs, Sequence(5000, 2000));
}

TEST(DirectoryRewrite, AThreadThatFlipsEntriesNeverGetsARefusedOneThrough) {
  FakeMapper mapper;
  const std::span<std::byte> view = PutDirectory(mapper, Sequence(100, 2), Sequence(5000, 1100));
  // Entry 500 between a good grant and a reserved one, entry 501 between its own grant and a
  // duplicate, the link between the next page and the end of the list.
  std::atomic_ref<uint32_t> reserved(DirectoryWord(view, 0, 501));
  std::atomic_ref<uint32_t> duplicate(DirectoryWord(view, 0, 502));
  std::atomic_ref<uint32_t> link(DirectoryWord(view, 0, 0));
  std::atomic<bool> stop = false;
  std::thread guest([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      reserved = 3;
      reserved = 5500;
      duplicate = 5000;
      duplicate = 5501;
      link = 0;
      link = 101;
    }
  });
  const std::vector<GrantRef> good = Sequence(5000, 1100);
  for (int walk = 0; walk < 3000; ++walk) {
    const auto refs = WalkDirectory(mapper, FakeMapper::kGuest, 100, 1100, kFaultLimits);
    if (refs.ok()) {
      ASSERT_EQ(*refs, good);
    } else {
      ASSERT_EQ(refs.status().code(), absl::StatusCode::kInvalidArgument) << refs.status();
    }
  }
  stop = true;
  guest.join();
  EXPECT_EQ(mapper.live_mappings(), 0u);
}

}  // namespace
}  // namespace vmsg::grants
