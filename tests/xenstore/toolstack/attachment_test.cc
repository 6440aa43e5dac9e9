// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/attachment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/memory_store.h"

namespace vmsg::xenstore {
namespace {

using ::testing::HasSubstr;

AttachItem Rng(std::optional<uint16_t> number = std::nullopt) {
  AttachItem item;
  item.label = "entry \"type=rng\"";
  item.entry.type = "rng";
  item.entry.number = number;
  return item;
}

class AttachmentTest : public testing::Test {
 protected:
  void SetUp() override { tree_.CreateDomain(5, "g1"); }
  // The number that the first item got.
  static uint16_t NumberOf(const AttachPlan& plan) { return plan.buses.begin()->second[0].number; }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> one_ = tree_.Connect(0), other_ = tree_.Connect(0);
};

TEST_F(AttachmentTest, NumbersAreChosenWhereTheyAreWritten) {
  AttachPlan first = PlanAttachment(5, 0, {Rng(), Rng(1)});
  AttachPlan second = PlanAttachment(5, 0, {Rng()});
  ASSERT_TRUE(WriteAttachment(*one_, first, "").ok());
  ASSERT_TRUE(WriteAttachment(*other_, second, "").ok());
  EXPECT_EQ(NumberOf(first), 0);
  EXPECT_EQ(NumberOf(second), 2);
}

TEST_F(AttachmentTest, CommitThatMeetsOthersChoosesAgain) {
  AttachPlan plan = PlanAttachment(5, 0, {Rng()});
  tree_.FailCommits(3);
  ASSERT_TRUE(WriteAttachment(*one_, plan, "").ok());
  EXPECT_EQ(NumberOf(plan), 0);
}

TEST_F(AttachmentTest, NumberThatIsTakenIsRefusedByItsEntry) {
  AttachPlan plan = PlanAttachment(5, 0, {Rng(3)});
  ASSERT_TRUE(WriteAttachment(*one_, plan, "").ok());
  const absl::Status again = WriteAttachment(*other_, plan, "").status();
  EXPECT_TRUE(absl::IsInvalidArgument(again)) << again;
  EXPECT_THAT(again.message(), HasSubstr("device 3 of bus 0 is attached already"));
}

}  // namespace
}  // namespace vmsg::xenstore
