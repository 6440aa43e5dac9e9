// SPDX-License-Identifier: Apache-2.0
// A config that is attached a second time, as the store sees it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/device_entry.h"

namespace vmsg::xenstore {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ConfigAgainTest : public testing::Test {
 protected:
  void SetUp() override { tree_.CreateDomain(5, "g1"); }
  absl::Status Attach(const std::vector<std::string>& entries) {
    std::vector<AttachItem> items;
    for (const std::string& text : entries) items.push_back({text, *ParseDeviceEntry(text)});
    plan_ = PlanAttachment(5, 0, std::move(items));
    return WriteAttachment(*store_, plan_, "/etc/xen/g1.cfg").status();
  }
  std::string Path(int number, uint32_t bus = 0) {
    return absl::StrCat(BusAddress{5, 0, bus}.BackendPath(), "/device/", number, "/");
  }
  void Answer(int number, const std::string& status) {
    tree_.Set(Path(number) + "hotplug-status", status);
  }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  AttachPlan plan_;
};

TEST_F(ConfigAgainTest, WhatWasRefusedMakesRoomForTheRepairedEntry) {
  ASSERT_TRUE(Attach({"type=rng", "type=blk,path=/wrnog", "type=rng"}).ok());
  Answer(0, "connected");
  Answer(1, "error");
  ASSERT_TRUE(Attach({"type=rng", "type=blk,path=/right", "type=rng"}).ok());
  EXPECT_EQ(tree_.Value(Path(1) + "path"), "/right");
  EXPECT_FALSE(tree_.Has(Path(1) + "hotplug-status"));
  EXPECT_EQ(tree_.Value(Path(0) + "hotplug-status"), "connected");
  EXPECT_FALSE(tree_.Has(Path(3) + "type"));
}

TEST_F(ConfigAgainTest, WhatVmsgdFoundOutIsNoChangeOfTheEntry) {
  ASSERT_TRUE(Attach({"type=blk,path=/a"}).ok());
  Answer(0, "connected");
  tree_.Set(Path(0) + "type/found/format", "raw");
  EXPECT_TRUE(Attach({"type=blk,path=/a"}).ok());
  EXPECT_TRUE(plan_.buses[0][0].attached);
}

TEST_F(ConfigAgainTest, OneThatNamesItsNumberIsFoundBeforeThoseThatDoNot) {
  ASSERT_TRUE(Attach({"type=rng", "type=rng,num=9"}).ok());
  ASSERT_TRUE(store_->Remove(Path(0).substr(0, Path(0).size() - 1)).ok());
  ASSERT_TRUE(Attach({"type=rng", "type=rng,num=9"}).ok());
  EXPECT_TRUE(tree_.Has(Path(0) + "type"));
  EXPECT_TRUE(plan_.buses[0][1].attached);
  EXPECT_FALSE(plan_.buses[0][0].attached);
}

TEST_F(ConfigAgainTest, AnEntryThatIsGoneFromTheConfigOnAnyBusIsNamed) {
  ASSERT_TRUE(Attach({"type=rng", "type=blk,path=/a,bus=2"}).ok());
  const absl::Status changed = Attach({"type=rng"});
  EXPECT_TRUE(absl::IsFailedPrecondition(changed)) << changed;
  EXPECT_THAT(std::string(changed.message()),
              AllOf(HasSubstr("/etc/xen/g1.cfg"), HasSubstr("\"type=blk,path=/a\""),
                    HasSubstr("vmsgctl detach 5 0 --bus 2")));
  // On its way out already.
  tree_.Set(Path(0, 2) + "online", "0");
  EXPECT_TRUE(Attach({"type=rng"}).ok());
}

TEST_F(ConfigAgainTest, DevicesThatAreNotFromAConfigAreNobodysToRemove) {
  AttachPlan by_hand = PlanAttachment(5, 0, {{"by hand", *ParseDeviceEntry("type=blk,path=/a")}});
  ASSERT_TRUE(WriteAttachment(*store_, by_hand, "").ok());
  Answer(0, "error");
  ASSERT_TRUE(Attach({"type=rng"}).ok());
  EXPECT_TRUE(tree_.Has(Path(0) + "type"));
  EXPECT_TRUE(tree_.Has(Path(1) + "type"));
}

// Or else its image would be attached twice, and the first could not come back.
TEST_F(ConfigAgainTest, WhatWasRefusedIsTriedAgainUnderItsNumberWhoeverAttachedIt) {
  AttachPlan by_hand =
      PlanAttachment(5, 0, {{"by hand", *ParseDeviceEntry("type=blk,path=/a,num=3")}});
  ASSERT_TRUE(WriteAttachment(*store_, by_hand, "").ok());
  Answer(3, "error");
  ASSERT_TRUE(Attach({"type=rng", "type=blk,path=/a"}).ok());
  EXPECT_TRUE(plan_.buses[0][1].retried);
  EXPECT_EQ(plan_.buses[0][1].number, 3);
  EXPECT_FALSE(tree_.Has(Path(3) + "hotplug-status"));
  EXPECT_FALSE(tree_.Has(Path(1) + "type"));
  // By hand it stays the config's.
  Answer(3, "error");
  ASSERT_TRUE(WriteAttachment(*store_, by_hand, "").ok());
  EXPECT_FALSE(tree_.Has(Path(3) + "hotplug-status"));
  EXPECT_EQ(tree_.Value(Path(3) + "type/from-config"), "/etc/xen/g1.cfg");
}

// Such as a raw disk on which the guest has written what is another format's, and whose file was
// away for a while.
TEST_F(ConfigAgainTest, WhatIsTriedAgainKeepsWhatVmsgdKnewOfIt) {
  ASSERT_TRUE(Attach({"type=blk,path=/a"}).ok());
  tree_.Set(Path(0) + "type/found/format", "raw");
  tree_.Set(Path(0) + "type/opened-as", "file 8:1 inode 7 of 512 bytes");
  Answer(0, "error");
  ASSERT_TRUE(Attach({"type=blk,path=/a"}).ok());
  EXPECT_TRUE(plan_.buses[0][0].retried);
  EXPECT_FALSE(tree_.Has(Path(0) + "hotplug-status"));
  EXPECT_EQ(tree_.Value(Path(0) + "type/found/format"), "raw");
  EXPECT_EQ(tree_.Value(Path(0) + "type/opened-as"), "file 8:1 inode 7 of 512 bytes");
  // Another entry is another disk.
  Answer(0, "error");
  ASSERT_TRUE(Attach({"type=blk,path=/b"}).ok());
  EXPECT_FALSE(tree_.Has(Path(0) + "type/found/format"));
}

TEST_F(ConfigAgainTest, ACommitThatMeetsOthersLooksAgain) {
  ASSERT_TRUE(Attach({"type=rng"}).ok());
  tree_.FailCommits(3);
  ASSERT_TRUE(Attach({"type=rng", "type=rng"}).ok());
  EXPECT_TRUE(plan_.buses[0][0].attached);
  EXPECT_EQ(plan_.buses[0][1].number, 1);
}

}  // namespace
}  // namespace vmsg::xenstore
