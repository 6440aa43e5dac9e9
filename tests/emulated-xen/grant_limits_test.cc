// SPDX-License-Identifier: Apache-2.0
// What the emulation promises beyond the contract: limits, reuse and zombies as Xen has them.
#include <errno.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/emulated-xen/machine_test.h"

namespace vmsg::test {
namespace {

using grants::Access;
using grants::GrantRef;
using grants::kPageSize;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using GrantLimits = MachineTest;

TEST_F(GrantLimits, LowestFreeReferencesFirst) {
  Boot();
  auto sharer = Sharer();
  auto first = sharer->Share(0, 2, Access::kReadWrite);
  auto second = sharer->Share(0, 2, Access::kReadWrite);
  EXPECT_THAT(first->refs(), ElementsAre(8, 9));
  EXPECT_THAT(second->refs(), ElementsAre(10, 11));
  first->Reset();
  auto third = sharer->Share(0, 3, Access::kReadWrite);
  EXPECT_THAT(third->refs(), ElementsAre(8, 9, 12));
}

TEST_F(GrantLimits, ReferenceEndedWhileMappedIsReusedOnlyAfterItsUnmap) {
  Boot();
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto first = sharer->Share(0, 2, Access::kReadWrite);
  auto mapping = mapper->Map(guest_, first->refs(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  first->Reset();
  EXPECT_EQ(xen_->DomainCounts(guest_)->deferred, 2);
  EXPECT_THAT(sharer->Share(0, 1, Access::kReadWrite)->refs(), ElementsAre(10));
  mapping->Reset();
  EXPECT_EQ(xen_->DomainCounts(guest_)->deferred, 0);
  EXPECT_THAT(sharer->Share(0, 1, Access::kReadWrite)->refs(), ElementsAre(8));
}

TEST_F(GrantLimits, RefusesMoreThanTheGrantFrames) {
  Boot({"--max-grant-frames", "1"});
  auto sharer = Sharer();
  auto most = sharer->Share(0, 512 - 8, Access::kReadWrite);
  ASSERT_TRUE(most.ok()) << most.status();
  const absl::Status status = sharer->Share(0, 1, Access::kReadWrite).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_grant_frames"));
  most->Reset();
  EXPECT_TRUE(sharer->Share(0, 1, Access::kReadWrite).ok());
}

TEST_F(GrantLimits, DefaultIsThirtyTwoThousandReferences) {
  Boot();
  auto sharer = Sharer();
  auto all = sharer->Share(0, 32'768 - 8, Access::kReadWrite);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->refs().back(), 32'767u);
  EXPECT_EQ(sharer->Share(0, 1, Access::kReadWrite).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(GrantLimits, RefusesMoreThanGntallocsLimit) {
  Boot({"--gntalloc-limit", "1024"});
  auto sharer = Sharer();
  const absl::Status status = sharer->Share(0, 1025, Access::kReadWrite).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("limit"));
  auto most = sharer->Share(0, 1024, Access::kReadWrite);
  EXPECT_TRUE(most.ok());
  EXPECT_FALSE(sharer->Share(0, 1, Access::kReadWrite).ok());
}

TEST_F(GrantLimits, RefusesMoreThanTheMemory) {
  Boot({}, /*memory_mib=*/1);
  auto sharer = Sharer();
  auto all = sharer->Share(0, 256, Access::kReadWrite);
  ASSERT_TRUE(all.ok());
  const absl::Status status = sharer->Share(0, 1, Access::kReadWrite).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("memory"));
}

TEST_F(GrantLimits, RefusesMoreThanTheMaptrack) {
  Boot({"--max-maptrack-frames", "1"});
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 257, Access::kReadWrite);
  const absl::Status status = mapper->Map(guest_, shared->refs(), Access::kReadWrite).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_maptrack_frames"));
  const auto fitting = absl::MakeConstSpan(shared->refs()).first(256);
  auto mapping = mapper->Map(guest_, fitting, Access::kReadWrite);
  EXPECT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_FALSE(mapper->Map(guest_, {shared->refs()[256]}, Access::kReadWrite).ok());
  mapping->Reset();
  EXPECT_TRUE(mapper->Map(guest_, {shared->refs()[256]}, Access::kReadWrite).ok());
}

TEST_F(GrantLimits, ReadOnlyMappingCannotBeMadeWritable) {
  Boot();
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 1, Access::kReadOnly);
  auto mapping = mapper->Map(guest_, shared->refs(), Access::kReadOnly);
  ASSERT_TRUE(mapping.ok());
  EXPECT_NE(mprotect(mapping->bytes().data(), kPageSize, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(errno, EACCES);
}

TEST_F(GrantLimits, MappingsAreNotInherited) {
  Boot();
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 1, Access::kReadWrite);
  auto mapping = mapper->Map(guest_, shared->refs(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  const pid_t child = fork();
  if (child == 0) {
    unsigned char resident;
    const int gone = mincore(mapping->bytes().data(), kPageSize, &resident) != 0 && errno == ENOMEM;
    _exit(gone ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(GrantLimits, DestroyedDomainIsAZombieUntilTheLastUnmap) {
  Boot();
  auto mapper = Mapper();
  auto other_mapper = Mapper();
  auto sharer = Sharer();
  auto shared = sharer->Share(0, 2, Access::kReadWrite);
  auto one = mapper->Map(guest_, shared->refs(), Access::kReadWrite);
  auto two = other_mapper->Map(guest_, shared->refs(), Access::kReadWrite);
  ASSERT_TRUE(one.ok() && two.ok());
  ASSERT_TRUE(xen_->Destroy(guest_).ok());
  EXPECT_EQ(xen_->DomainCounts(guest_)->state, "zombie");
  EXPECT_THAT(*xen_->List(), HasSubstr("(null) zombie"));
  // Meanwhile a new guest of the same name, with another domid.
  auto next = xen_->CreateDomain("g1");
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_NE(*next, guest_);
  one->Reset();
  EXPECT_EQ(xen_->DomainCounts(guest_)->state, "zombie");
  two->Reset();
  EXPECT_EQ(xen_->DomainCounts(guest_)->state, "");
}

TEST_F(GrantLimits, HandlesOfADestroyedDomainAreDead) {
  Boot();
  auto sharer = Sharer();
  auto shared = sharer->Share(0, 2, Access::kReadWrite);
  ASSERT_TRUE(xen_->Destroy(guest_).ok());
  EXPECT_EQ(sharer->Share(0, 1, Access::kReadWrite).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_FALSE(grants::OpenPlatform(xen_->XenOption(guest_)).ok());
  shared->bytes()[0] = std::byte{1};  // its process may still touch its memory
}

TEST_F(GrantLimits, ManyDomainsMemoriesPassThroughOneMapper) {
  Boot();
  auto mapper = Mapper();
  std::vector<grants::DomainId> domains;
  std::vector<std::unique_ptr<grants::GrantSharer>> sharers;
  std::vector<grants::SharedPages> pages;
  for (int i = 0; i < 40; ++i) {
    domains.push_back(*xen_->CreateDomain("", 1));
    sharers.push_back(*Platform(domains.back())->OpenGrantSharer());
    pages.push_back(*sharers.back()->Share(0, 2, Access::kReadWrite));
    pages.back().bytes()[kPageSize] = std::byte(i);
  }
  // Twice, so that files that were dropped meanwhile are needed again.
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 40; ++i) {
      auto mapping = mapper->Map(domains[i], pages[i].refs(), Access::kReadWrite);
      ASSERT_TRUE(mapping.ok()) << mapping.status();
      EXPECT_EQ(mapping->bytes()[kPageSize], std::byte(i));
    }
  }
}

}  // namespace
}  // namespace vmsg::test
