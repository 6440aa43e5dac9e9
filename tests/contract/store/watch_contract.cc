// SPDX-License-Identifier: Apache-2.0
// Watches.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/contract/store/store_under_test.h"

namespace vmsg::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using xenstore::NodeAccess;
using xenstore::Store;

TEST_P(StoreContract, WatchFiresAtOnceThenForChangesBelow) {
  // Its node need not be there.
  ASSERT_TRUE(store_->Watch(Absolute("w"), "token").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Absolute("w")));
  ASSERT_TRUE(store_->Write(Node("w/a/b"), "1").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Absolute("w/a/b")));
  ASSERT_TRUE(store_->Write(Node("w2"), "1").ok());  // not below
  ASSERT_TRUE(store_->MakeDirectory(Node("w/c")).ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Absolute("w/c")));
}

TEST_P(StoreContract, RelativeWatchGivesRelativePaths) {
  ASSERT_TRUE(store_->Watch(Node("w"), "token").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Node("w")));
  ASSERT_TRUE(store_->Write(Absolute("w/x"), "1").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Node("w/x")));
}

TEST_P(StoreContract, EventsOfAnotherConnectionComeInOrder) {
  std::unique_ptr<Store> writer = Open();
  ASSERT_TRUE(store_->Watch(Node("w"), "token").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Node("w")));
  for (const char* name : {"w/c", "w/a", "w/b"}) ASSERT_TRUE(writer->Write(Node(name), "").ok());
  EXPECT_THAT(Events(*store_, 3),
              ElementsAre("token " + Node("w/c"), "token " + Node("w/a"), "token " + Node("w/b")));
}

TEST_P(StoreContract, RemovalAboveFiresOnceForEachWatch) {
  ASSERT_TRUE(store_->Write(Node("w/a/b/c"), "1").ok());
  ASSERT_TRUE(store_->Watch(kBase, "above").ok());
  Events(*store_);
  ASSERT_TRUE(store_->Watch(Node("w/a/b"), "below").ok());
  Events(*store_);
  ASSERT_TRUE(store_->Watch(Node("w/a/b/nothing"), "missing").ok());
  Events(*store_);
  ASSERT_TRUE(store_->Remove(Node("w")).ok());
  ASSERT_TRUE(store_->Write(Node("end"), "").ok());
  EXPECT_THAT(Events(*store_, 3),
              testing::UnorderedElementsAre("above " + Node("w"), "below " + Node("w/a/b"),
                                            "above " + Node("end")));
}

TEST_P(StoreContract, EventsOfATransactionComeWithItsCommit) {
  std::unique_ptr<Store> writer = Open();
  ASSERT_TRUE(store_->Watch(Node("w"), "token").ok());
  Events(*store_);
  EXPECT_TRUE(absl::IsInternal(writer->Transaction([&](NodeAccess& nodes) -> absl::Status {
    EXPECT_TRUE(nodes.Write(Node("w/aborted"), "").ok());
    return absl::InternalError("no");
  })));
  ASSERT_TRUE(writer
                  ->Transaction([&](NodeAccess& nodes) -> absl::Status {
                    EXPECT_TRUE(nodes.Write(Node("w/a"), "").ok());
                    EXPECT_TRUE(writer->Write(Node("before"), "").ok());
                    EXPECT_THAT(*store_->TakeWatchEvents(), IsEmpty());
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Node("w/a")));
}

TEST_P(StoreContract, PermissionsAreAChange) {
  ASSERT_TRUE(store_->Write(Node("w"), "").ok());
  ASSERT_TRUE(store_->Watch(Node("w"), "token").ok());
  Events(*store_);
  ASSERT_TRUE(store_->SetPermissions(Node("w"), *store_->GetPermissions(Node("w"))).ok());
  EXPECT_THAT(Events(*store_), ElementsAre("token " + Node("w")));
}

TEST_P(StoreContract, NoEventAfterUnwatch) {
  ASSERT_TRUE(store_->Watch(Node("w"), "1").ok());
  ASSERT_TRUE(store_->Watch(Node("v"), "2").ok());
  Events(*store_, 2);
  ASSERT_TRUE(store_->Unwatch(Node("w"), "1").ok());
  ASSERT_TRUE(store_->Write(Node("w"), "1").ok());
  ASSERT_TRUE(store_->Write(Node("v"), "1").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("2 " + Node("v")));
}

TEST_P(StoreContract, WatchesOfTwoConnectionsAreTheirOwn) {
  std::unique_ptr<Store> second = Open();
  ASSERT_TRUE(store_->Watch(Node("w"), "same").ok());
  ASSERT_TRUE(second->Watch(Node("w"), "same").ok());
  Events(*store_);
  Events(*second);
  ASSERT_TRUE(second->Unwatch(Node("w"), "same").ok());
  ASSERT_TRUE(store_->Write(Node("w"), "1").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("same " + Node("w")));
  EXPECT_THAT(*second->TakeWatchEvents(), IsEmpty());
}

}  // namespace
}  // namespace vmsg::test
