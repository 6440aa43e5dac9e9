// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>

#include "tests/contract/xen_under_test.h"

namespace vmsg::test {
namespace {

using grants::Access;
using grants::GrantMapping;
using grants::GrantRef;
using grants::kPageSize;
using ::testing::Each;
using ::testing::HasSubstr;

std::byte* Page(std::span<std::byte> bytes, size_t page) { return bytes.data() + page * kPageSize; }

TEST_P(GrantContract, BothSidesSeeTheSameMemory) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 3, Access::kReadWrite);
  ASSERT_TRUE(shared.ok()) << shared.status();
  ASSERT_EQ(shared->bytes().size(), 3 * kPageSize);
  ASSERT_EQ(shared->refs().size(), 3u);
  *Page(shared->bytes(), 1) = std::byte{17};
  auto mapping = mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_EQ(mapping->pages(), 3u);
  EXPECT_EQ(*Page(mapping->bytes(), 1), std::byte{17});
  *(Page(mapping->bytes(), 2) + kPageSize - 1) = std::byte{18};
  EXPECT_EQ(shared->bytes().back(), std::byte{18});
}

TEST_P(GrantContract, FreshPagesAreZeroAlsoWhenAnotherHadThem) {
  auto sharer = Sharer();
  for (int round = 0; round < 2; ++round) {
    auto shared = sharer->Share(xen_->backend.id, 4, Access::kReadWrite);
    ASSERT_TRUE(shared.ok()) << shared.status();
    EXPECT_TRUE(std::all_of(shared->bytes().begin(), shared->bytes().end(),
                            [](std::byte byte) { return byte == std::byte{0}; }));
    memset(shared->bytes().data(), 0xee, shared->bytes().size());
  }
}

TEST_P(GrantContract, PagesComeInTheOrderOfTheReferences) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  constexpr size_t kPages = 9;
  auto shared = sharer->Share(xen_->backend.id, kPages, Access::kReadWrite);
  ASSERT_TRUE(shared.ok()) << shared.status();
  for (size_t i = 0; i < kPages; ++i) *Page(shared->bytes(), i) = std::byte(i);
  const size_t order[kPages] = {8, 0, 1, 2, 7, 6, 3, 4, 5};
  std::vector<GrantRef> refs;
  for (const size_t page : order) refs.push_back(shared->refs()[page]);
  auto mapping = mapper->Map(xen_->guest.id, refs, Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  for (size_t i = 0; i < kPages; ++i) {
    EXPECT_EQ(*Page(mapping->bytes(), i), std::byte(order[i])) << i;
  }
}

TEST_P(GrantContract, AGrantMapsTwice) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 1, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  const std::vector<GrantRef> twice = {shared->refs()[0], shared->refs()[0]};
  auto mapping = mapper->Map(xen_->guest.id, twice, Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  *Page(mapping->bytes(), 0) = std::byte{9};
  EXPECT_EQ(*Page(mapping->bytes(), 1), std::byte{9});
}

TEST_P(GrantContract, ReadOnlyGrantMapsReadOnly) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 2, Access::kReadOnly);
  ASSERT_TRUE(shared.ok()) << shared.status();
  auto mapping = mapper->Map(xen_->guest.id, shared->refs(), Access::kReadOnly);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  *Page(shared->bytes(), 1) = std::byte{3};  // the guest itself may write
  EXPECT_EQ(*Page(mapping->bytes(), 1), std::byte{3});
}

TEST_P(GrantContract, RefusesToMapReadOnlyGrantForWriting) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 1, Access::kReadOnly);
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GrantContract, RefusesGrantMadeForAnotherDomain) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id + 1000, 1, Access::kReadWrite);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GrantContract, RefusesUnusedReference) {
  auto mapper = Mapper();
  for (const GrantRef ref : {GrantRef{30'000}, GrantRef{1} << 20, ~GrantRef{0}}) {
    EXPECT_EQ(mapper->Map(xen_->guest.id, {ref}, Access::kReadWrite).status().code(),
              absl::StatusCode::kInvalidArgument)
        << ref;
  }
}

TEST_P(GrantContract, RefusesReservedReferences) {
  auto mapper = Mapper();
  for (GrantRef ref = 0; ref < grants::kReservedGrantRefs; ++ref) {
    EXPECT_EQ(mapper->Map(xen_->guest.id, {ref}, Access::kReadOnly).status().code(),
              absl::StatusCode::kInvalidArgument)
        << ref;
  }
}

TEST_P(GrantContract, RefusesNoReferences) {
  EXPECT_EQ(Mapper()->Map(xen_->guest.id, {}, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GrantContract, RefusesDomainThatDoesNotExist) {
  auto mapper = Mapper();
  for (const int domain : {0x7000, 0x7ff0, 0x7ff4, 0xffff}) {
    EXPECT_EQ(mapper->Map(domain, {GrantRef{8}}, Access::kReadWrite).status().code(),
              absl::StatusCode::kInvalidArgument)
        << domain;
  }
}

TEST_P(GrantContract, RefusesToShareNothingOrWithNoDomain) {
  auto sharer = Sharer();
  EXPECT_EQ(sharer->Share(xen_->backend.id, 0, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sharer->Share(0x7ff0, 1, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GrantContract, RefusesMorePagesThanTheDriverMapsAtOnce) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 1, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  const std::vector<GrantRef> refs(65'537, shared->refs()[0]);
  const absl::Status status = mapper->Map(xen_->guest.id, refs, Access::kReadOnly).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("limit"));
}

TEST_P(GrantContract, OneBadReferenceAnywhereMapsNothing) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  constexpr size_t kPages = 7;
  auto shared = sharer->Share(xen_->backend.id, kPages, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  for (size_t bad = 0; bad < kPages; ++bad) {
    std::vector<GrantRef> refs = shared->refs();
    refs[bad] = 30'000;
    EXPECT_EQ(mapper->Map(xen_->guest.id, refs, Access::kReadWrite).status().code(),
              absl::StatusCode::kInvalidArgument)
        << bad;
  }
  auto left = xen_->MappingsLeft();
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_EQ(*left, 0);
  EXPECT_TRUE(mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite).ok());
}

TEST_P(GrantContract, MapsSixteenThousandPagesAsOneRange) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  constexpr size_t kPages = 16'384;
  auto shared = sharer->Share(xen_->backend.id, kPages, Access::kReadWrite);
  ASSERT_TRUE(shared.ok()) << shared.status();
  std::vector<GrantRef> refs = shared->refs();
  std::reverse(refs.begin(), refs.begin() + 100);
  for (size_t i = 0; i < kPages; i += 97) *Page(shared->bytes(), i) = std::byte(i % 251);
  auto mapping = mapper->Map(xen_->guest.id, refs, Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  for (size_t i = 0; i < kPages; i += 97) {
    const size_t page = i < 100 ? 99 - i : i;
    EXPECT_EQ(*Page(mapping->bytes(), page), std::byte(i % 251)) << i;
  }
}

TEST_P(GrantContract, PageStaysAliveWhenItsGrantEnds) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 2, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  *Page(shared->bytes(), 0) = std::byte{77};
  const std::vector<GrantRef> refs = shared->refs();
  auto mapping = mapper->Map(xen_->guest.id, refs, Access::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  shared->Reset();
  // The guest goes on to use its memory: nothing of it may be what we still map.
  auto next = sharer->Share(xen_->backend.id, 8, Access::kReadWrite);
  ASSERT_TRUE(next.ok());
  memset(next->bytes().data(), 0xff, next->bytes().size());
  for (const GrantRef ref : refs) EXPECT_THAT(next->refs(), Each(::testing::Ne(ref)));
  EXPECT_EQ(*Page(mapping->bytes(), 0), std::byte{77});
  *Page(mapping->bytes(), 1) = std::byte{78};
  EXPECT_EQ(*Page(mapping->bytes(), 1), std::byte{78});
}

TEST_P(GrantContract, EndedGrantDoesNotMap) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 2, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  const std::vector<GrantRef> refs = shared->refs();
  shared->Reset();
  EXPECT_EQ(mapper->Map(xen_->guest.id, refs, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GrantContract, EveryUnmapReleases) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 3, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  auto one = mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite);
  auto two = mapper->Map(xen_->guest.id, {shared->refs()[1]}, Access::kReadOnly);
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(*xen_->MappingsLeft(), 4);
  one->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 1);
  two->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

TEST_P(GrantContract, AThousandUnmapsInARowRelease) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  constexpr int kMappings = 1000;
  auto shared = sharer->Share(xen_->backend.id, 20, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  std::vector<GrantMapping> mappings;
  for (int i = 0; i < kMappings; ++i) {
    auto mapping = mapper->Map(xen_->guest.id, {shared->refs()[i % 20]}, Access::kReadWrite);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    mappings.push_back(*std::move(mapping));
  }
  EXPECT_EQ(*xen_->MappingsLeft(), kMappings);
  mappings.clear();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

TEST_P(GrantContract, RefusesToMapAPageMoreOftenThanXenCounts) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(xen_->backend.id, 1, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  std::vector<GrantMapping> mappings;
  absl::Status refused;
  while (refused.ok() && mappings.size() < 200) {
    auto mapping = mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite);
    refused = mapping.status();
    if (mapping.ok()) mappings.push_back(*std::move(mapping));
  }
  // 64 where a mapping counts twice (a PV domain maps the page for the kernel, too), else 128.
  EXPECT_THAT(mappings.size(), ::testing::AnyOf(64, 128));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("times"));
  mappings.pop_back();
  EXPECT_TRUE(mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite).ok());
}

TEST_P(GrantContract, ThreadsMapAndShareAtOnce) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        auto shared = sharer->Share(xen_->backend.id, 1 + i % 5, Access::kReadWrite);
        if (!shared.ok()) {
          ++failures;
          continue;
        }
        shared->bytes().back() = std::byte(t);
        auto mapping = mapper->Map(xen_->guest.id, shared->refs(), Access::kReadWrite);
        if (!mapping.ok() || mapping->bytes().back() != std::byte(t)) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

}  // namespace
}  // namespace vmsg::test
