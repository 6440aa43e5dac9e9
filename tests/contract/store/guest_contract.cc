// SPDX-License-Identifier: Apache-2.0
// What a guest may not, and how much it may have.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/contract/store/store_under_test.h"

namespace vmsg::test {
namespace {

using testing::ElementsAre;
using xenstore::NodeAccess;
using xenstore::Permission;

TEST_P(GuestStoreContract, ForeignNodesAreDeniedWhetherTheyAreThereOrNot) {
  const std::string of_dom0 = "/local/domain/0";
  const std::string of_a_guest = absl::StrCat("/local/domain/", xen_->domain + 1);
  for (const std::string& path :
       {of_dom0 + "/name", of_dom0 + "/nothing", of_a_guest + "/data", of_a_guest + "/domid",
        of_a_guest + "/nothing", std::string("/tool/nothing"), std::string("/local/domain/7777")}) {
    EXPECT_TRUE(absl::IsPermissionDenied(store_->Read(path).status())) << path;
    EXPECT_TRUE(absl::IsPermissionDenied(store_->List(path).status())) << path;
    EXPECT_TRUE(absl::IsPermissionDenied(store_->GetPermissions(path).status())) << path;
    EXPECT_TRUE(absl::IsPermissionDenied(store_->Write(path, "1"))) << path;
    EXPECT_TRUE(absl::IsPermissionDenied(store_->MakeDirectory(path))) << path;
    EXPECT_TRUE(absl::IsPermissionDenied(
        store_->SetPermissions(path, {{xen_->domain, xenstore::Access::kBoth}})))
        << path;
    EXPECT_FALSE(store_->Remove(path).ok()) << path;
  }
}

TEST_P(GuestStoreContract, ReadsItsHomeAndWritesOnlyWhereItMay) {
  EXPECT_EQ(*store_->Read("domid"), absl::StrCat(xen_->domain));
  EXPECT_TRUE(absl::IsPermissionDenied(store_->Write("domid", "0")));
  EXPECT_TRUE(absl::IsPermissionDenied(store_->Write("new", "")));
  EXPECT_TRUE(absl::IsPermissionDenied(store_->Write("device/new", "")));
  EXPECT_TRUE(absl::IsPermissionDenied(store_->Remove("device")));
  EXPECT_TRUE(store_->List("device").ok());
}

TEST_P(GuestStoreContract, CannotGiveItsNodesAway) {
  ASSERT_TRUE(store_->Write(Node("x"), "").ok());
  const std::vector<Permission> before = *store_->GetPermissions(Node("x"));
  EXPECT_TRUE(absl::IsPermissionDenied(
      store_->SetPermissions(Node("x"), {{xen_->other, xenstore::Access::kBoth}})));
  EXPECT_EQ(*store_->GetPermissions(Node("x")), before);
  EXPECT_EQ(before.at(0).domain, xen_->domain);
}

TEST_P(GuestStoreContract, WatchesOfForeignNodesSayNothing) {
  const std::string foreign = absl::StrCat("/local/domain/", xen_->domain + 1);
  ASSERT_TRUE(store_->Watch(Node("w"), "own").ok());
  Events(*store_);
  // Only the first event, which tells nothing.
  ASSERT_TRUE(store_->Watch(foreign, "foreign").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("foreign " + foreign));
}

TEST_P(GuestStoreContract, NodeQuota) {
  absl::Status status;
  int made = 0;
  for (; made < 2000; ++made) {
    status = store_->Write(Node(absl::StrCat(made)), "");
    if (!status.ok()) break;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status << " after " << made;
  ASSERT_GT(made, 1);
  // What is there is served on, and room is used again.
  EXPECT_TRUE(store_->Write(Node("0"), "changed").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->MakeDirectory(Node("x"))));
  ASSERT_TRUE(store_->Remove(Node("1")).ok());
  EXPECT_TRUE(store_->Write(Node("x"), "").ok());
}

TEST_P(GuestStoreContract, QuotaOfANodesSizeAndPermissions) {
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Write(Node("x"), std::string(3000, 'v'))));
  ASSERT_TRUE(store_->Write(Node("x"), std::string(1900, 'v')).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(store_->SetPermissions(
      Node("x"), std::vector<Permission>(6, {xen_->domain, xenstore::Access::kNone}))));
  EXPECT_EQ(store_->Read(Node("x"))->size(), 1900u);
}

TEST_P(GuestStoreContract, TransactionQuota) {
  // Opens one inside the other until one is refused.
  std::function<absl::Status(int)> open = [&](int depth) -> absl::Status {
    if (depth == 20) return absl::OkStatus();
    return store_->Transaction([&](NodeAccess&) { return open(depth + 1); });
  };
  const absl::Status status = open(0);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(store_->Transaction([](NodeAccess&) { return absl::OkStatus(); }).ok());
}

TEST_P(GuestStoreContract, WatchQuota) {
  ASSERT_TRUE(store_->Watch(Node("first"), "first").ok());
  absl::Status status;
  int made = 0;
  for (; made < 300; ++made) {
    status = store_->Watch(Node("w"), absl::StrCat(made));
    if (!status.ok()) break;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status << " after " << made;
  ASSERT_GT(made, 1);
  Events(*store_, static_cast<size_t>(made) + 1);
  // Those before it are served on, and room is used again.
  ASSERT_TRUE(store_->Write(Node("first"), "").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("first " + Node("first")));
  ASSERT_TRUE(store_->Unwatch(Node("w"), "0").ok());
  EXPECT_TRUE(store_->Watch(Node("again"), "again").ok());
  EXPECT_THAT(Events(*store_), ElementsAre("again " + Node("again")));
}

}  // namespace
}  // namespace vmsg::test
