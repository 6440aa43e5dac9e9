// SPDX-License-Identifier: Apache-2.0
// Nodes and transactions.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/contract/store/store_under_test.h"

namespace vmsg::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;
using xenstore::NodeAccess;
using xenstore::Permission;
using xenstore::Store;

TEST_P(StoreContract, ValuesAreBytes) {
  const std::string value("a\0b\n\xff", 5);
  ASSERT_TRUE(store_->Write(Node("x"), value).ok());
  EXPECT_EQ(*store_->Read(Node("x")), value);
  ASSERT_TRUE(store_->Write(Node("x"), "").ok());
  EXPECT_EQ(*store_->Read(Node("x")), "");
}

TEST_P(StoreContract, RelativePathsBeginAtTheOwnHome) {
  std::unique_ptr<Store> second = Open();
  ASSERT_TRUE(store_->Write(Node("x"), "1").ok());
  EXPECT_EQ(*second->Read(Absolute("x")), "1");
  ASSERT_TRUE(second->Write(Absolute("y"), "2").ok());
  EXPECT_EQ(*store_->Read(Node("y")), "2");
}

TEST_P(StoreContract, MissingNodeIsNotFoundAndNamed) {
  const absl::Status status = store_->Read(Node("nothing")).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr(Node("nothing")));
  EXPECT_TRUE(absl::IsNotFound(store_->List(Node("nothing")).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->GetPermissions(Node("nothing")).status()));
  EXPECT_TRUE(absl::IsNotFound(
      store_->SetPermissions(Node("nothing"), {{xen_->domain, xenstore::Access::kNone}})));
  EXPECT_TRUE(absl::IsNotFound(store_->Remove(Node("nothing/at/all"))));
  EXPECT_TRUE(store_->Remove(Node("nothing")).ok()) << "its parent is there, and that is all";
}

TEST_P(StoreContract, WriteMakesWhatIsAboveAndRemoveTakesWhatIsBelow) {
  ASSERT_TRUE(store_->Write(Node("a/b/c"), "1").ok());
  EXPECT_EQ(*store_->Read(Node("a")), "");
  ASSERT_TRUE(store_->MakeDirectory(Node("a/d")).ok());
  EXPECT_THAT(*store_->List(Node("a")), UnorderedElementsAre("b", "d"));
  EXPECT_THAT(*store_->List(Node("a/b/c")), ElementsAre());
  // One that is there keeps what it has.
  EXPECT_TRUE(store_->MakeDirectory(Node("a/b/c")).ok());
  EXPECT_EQ(*store_->Read(Node("a/b/c")), "1");
  ASSERT_TRUE(store_->Remove(Node("a")).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Read(Node("a/b/c")).status()));
  EXPECT_THAT(*store_->List(kBase), ElementsAre());
}

TEST_P(StoreContract, MalformedPathsAreInvalidAndTheConnectionStays) {
  for (const std::string& path :
       {std::string(), std::string("/a//b"), std::string("/a/"), std::string("/a b"),
        std::string("/a\0b", 4), "/" + std::string(3072, 'x'), std::string(2049, 'x'),
        std::string("data/"), std::string("data//x"), std::string("data/\xc3\xa4")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Read(path).status())) << path.substr(0, 20);
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Write(path, "1"))) << path.substr(0, 20);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Watch(std::string("/a\0b", 4), "t")));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Watch("/a", absl::string_view("t\0u", 3))));
  EXPECT_TRUE(store_->Read("domid").ok());
}

TEST_P(StoreContract, LongestPathAndTooLongValue) {
  const std::string longest = Node(std::string(2048 - Node("").size(), 'x'));
  const absl::Status status = store_->Write(longest + "x", "");
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_TRUE(absl::IsNotFound(store_->Read(longest).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Write(Node("x"), std::string(4096, 'v'))));
  EXPECT_TRUE(store_->Write(Node("x"), std::string(1000, 'v')).ok());
}

TEST_P(StoreContract, PermissionsAreInheritedAndRoundTrip) {
  const std::vector<Permission> permissions = {{xen_->domain, xenstore::Access::kNone},
                                               {xen_->other, xenstore::Access::kRead},
                                               {xen_->domain, xenstore::Access::kBoth},
                                               {xen_->other, xenstore::Access::kWrite}};
  ASSERT_TRUE(store_->MakeDirectory(Node("p")).ok());
  ASSERT_TRUE(store_->SetPermissions(Node("p"), permissions).ok());
  EXPECT_EQ(*store_->GetPermissions(Node("p")), permissions);
  ASSERT_TRUE(store_->Write(Node("p/below/it"), "1").ok());
  EXPECT_EQ(*store_->GetPermissions(Node("p/below/it")), permissions);
  EXPECT_TRUE(absl::IsInvalidArgument(store_->SetPermissions(Node("p"), {})));
  ASSERT_TRUE(store_->SetPermissions(Node("p"), {{xen_->domain, xenstore::Access::kRead}}).ok());
  EXPECT_EQ(*store_->GetPermissions(Node("p/below/it")), permissions);
}

TEST_P(StoreContract, TransactionIsAllOrNothing) {
  std::unique_ptr<Store> second = Open();
  EXPECT_TRUE(absl::IsInternal(store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    EXPECT_TRUE(nodes.Write(Node("t/a"), "1").ok());
    EXPECT_EQ(*nodes.Read(Node("t/a")), "1");
    return absl::InternalError("no");
  })));
  EXPECT_TRUE(absl::IsNotFound(store_->Read(Node("t/a")).status()));
  EXPECT_TRUE(store_
                  ->Transaction([&](NodeAccess& nodes) -> absl::Status {
                    EXPECT_TRUE(nodes.Write(Node("t/a"), "1").ok());
                    EXPECT_TRUE(nodes.Write(Node("t/b"), "2").ok());
                    EXPECT_TRUE(absl::IsNotFound(second->Read(Node("t/a")).status()));
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(*second->Read(Node("t/a")), "1");
  EXPECT_EQ(*second->Read(Node("t/b")), "2");
}

TEST_P(StoreContract, TransactionRunsAgainAfterAConflict) {
  std::unique_ptr<Store> rival = Open();
  ASSERT_TRUE(store_->Write(Node("counter"), "0").ok());
  int runs = 0;
  const absl::Status status = store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> value = nodes.Read(Node("counter"));
    if (!value.ok()) return value.status();
    if (++runs <= 3) {
      EXPECT_TRUE(rival->Write(Node("counter"), absl::StrCat(runs)).ok());
    }
    return nodes.Write(Node("counter"), *value + "+");
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(*store_->Read(Node("counter")), "3+");
}

TEST_P(StoreContract, WhatATransactionDidNotTouchIsNoConflict) {
  std::unique_ptr<Store> neighbour = Open();
  for (const char* name : {"mine", "theirs"}) ASSERT_TRUE(store_->Write(Node(name), "0").ok());
  int runs = 0;
  const absl::Status status = store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    ++runs;
    EXPECT_EQ(*nodes.Read(Node("mine")), "0");
    EXPECT_TRUE(neighbour->Write(Node("theirs"), "1").ok());
    return nodes.Write(Node("mine"), "1");
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(*store_->Read(Node("theirs")), "1");
}

TEST_P(StoreContract, RivalThatNeverRestsEndsTheTransactionWithAborted) {
  std::unique_ptr<Store> rival = Open();
  ASSERT_TRUE(store_->Write(Node("counter"), "0").ok());
  int runs = 0;
  EXPECT_TRUE(absl::IsAborted(store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> value = nodes.Read(Node("counter"));
    EXPECT_TRUE(rival->Write(Node("counter"), absl::StrCat(++runs)).ok());
    return nodes.Write(Node("counter"), "mine");
  })));
  EXPECT_EQ(runs, 64);
  EXPECT_EQ(*store_->Read(Node("counter")), "64");
}

}  // namespace
}  // namespace vmsg::test
