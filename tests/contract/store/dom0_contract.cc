// SPDX-License-Identifier: Apache-2.0
// What only the control domain may do.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/contract/store/store_under_test.h"

namespace vmsg::test {
namespace {

using xenstore::Permission;

TEST_P(Dom0StoreContract, GivesNodesAwayAndStillReadsAndWritesThem) {
  ASSERT_TRUE(store_->Write(Node("x"), "1").ok());
  const std::vector<Permission> theirs = {{xen_->other, xenstore::Access::kNone}};
  ASSERT_TRUE(store_->SetPermissions(Node("x"), theirs).ok());
  EXPECT_EQ(*store_->GetPermissions(Node("x")), theirs);
  EXPECT_EQ(*store_->Read(Node("x")), "1");
  EXPECT_TRUE(store_->Write(Node("x/below"), "2").ok());
  EXPECT_EQ(*store_->GetPermissions(Node("x/below")), theirs) << "the owner, too, is inherited";
}

TEST_P(Dom0StoreContract, ReadsAndWritesInTheHomesOfGuests) {
  const std::string home = absl::StrCat("/local/domain/", xen_->other);
  EXPECT_EQ(*store_->Read(home + "/domid"), absl::StrCat(xen_->other));
  ASSERT_TRUE(store_->Write(home + "/data/by-dom0", "1").ok());
  EXPECT_EQ(store_->GetPermissions(home + "/data/by-dom0")->at(0).domain, xen_->other);
  EXPECT_TRUE(store_->Remove(home + "/data/by-dom0").ok());
}

TEST_P(Dom0StoreContract, ListThatNeedsSeveralPackets) {
  const std::string name(90, 'n');
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(store_->Write(Node(absl::StrCat(name, i)), "").ok());
  EXPECT_EQ(store_->List(kBase)->size(), 100u);
}

TEST_P(Dom0StoreContract, ValueOverThePayloadIsRefusedAndTheConnectionStays) {
  const size_t room = 4096 - Node("x").size() - 1;
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Write(Node("x"), std::string(room + 1, 'v'))));
  EXPECT_TRUE(store_->Write(Node("x"), std::string(room, 'v')).ok());
  EXPECT_EQ(store_->Read(Node("x"))->size(), room);
}

TEST_P(Dom0StoreContract, WatchesOfAGuestsNodes) {
  const std::string path = absl::StrCat("/local/domain/", xen_->other, "/data/by-dom0");
  ASSERT_TRUE(store_->Watch(path, "token").ok());
  EXPECT_THAT(Events(*store_), testing::ElementsAre("token " + path));
  ASSERT_TRUE(store_->Write(path, "1").ok());
  EXPECT_THAT(Events(*store_), testing::ElementsAre("token " + path));
  EXPECT_TRUE(store_->Remove(path).ok());
}

TEST_P(Dom0StoreContract, WatchTwiceAndUnwatchOfNoneAreRefused) {
  ASSERT_TRUE(store_->Watch(Node("w"), "1").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(store_->Watch(Node("w"), "1")));
  EXPECT_TRUE(store_->Watch(Node("w"), "2").ok());
  EXPECT_TRUE(store_->Unwatch(Node("w"), "1").ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Unwatch(Node("w"), "1")));
}

TEST_P(Dom0StoreContract, KnowsWhichDomainsAreIntroduced) {
  EXPECT_TRUE(*store_->IsDomainIntroduced(xen_->domain));
  EXPECT_TRUE(*store_->IsDomainIntroduced(xen_->other));
  EXPECT_FALSE(*store_->IsDomainIntroduced(7777));
}

TEST_P(Dom0StoreContract, SpecialWatchesFireAtOnce) {
  for (const std::string name : {"@introduceDomain", "@releaseDomain"}) {
    ASSERT_TRUE(store_->Watch(name, "token").ok());
    EXPECT_THAT(Events(*store_), testing::ElementsAre("token " + name));
  }
}

}  // namespace
}  // namespace vmsg::test
