// SPDX-License-Identifier: Apache-2.0
// From xl's configs to devices: when a domain is attached, and when not.
#include "xenstore/introduction/introductions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/toolstack/introductions_rig.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class IntroductionsTest : public IntroductionsRig {};

TEST_F(IntroductionsTest, IntroducedDomainIsAttachedInOneCall) {
  const std::string path = Config("g1.cfg", "g1", R"("type=blk,path=/a", "type=rng,bus=1")");
  Start();
  tree_.CreateDomain(5, "g1");
  ASSERT_TRUE(introductions_->Process().ok());
  EXPECT_THAT(lines_, ElementsAre("attached 5 g1 /g1.cfg 2"));
  EXPECT_EQ(Type(5, 0), "blk");
  EXPECT_EQ(Type(5, 0, 0, 1), "rng");
  EXPECT_EQ(Mark(5, "config"), path);
  EXPECT_EQ(Mark(5, "error"), "");
}

TEST_F(IntroductionsTest, DomainThatWasThereBeforeIsAttachedAndNoOtherIsTouched) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Write("g2.cfg", "name = \"g2\"\nmemory = 64\n");
  tree_.CreateDomain(5, "g1");
  tree_.CreateDomain(6, "g2");
  tree_.CreateDomain(7, "unknown");
  Start();
  EXPECT_EQ(Type(5, 0), "rng");
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/6"));
  EXPECT_FALSE(tree_.Has("/libxl/7/virtio-msg"));
}

TEST_F(IntroductionsTest, WhatAnAdministratorDetachedIsNotAttachedAgain) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  ASSERT_TRUE(RemoveBus(*store_, {5, 0, 0}).ok());
  EXPECT_THAT(Settle(), IsEmpty());
  introductions_.reset();
  Start();
  EXPECT_EQ(Type(5, 0), "(none)");
}

TEST_F(IntroductionsTest, RebootedDomainIsAttachedAnew) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  tree_.DestroyDomain(5);
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 6 g1 /g1.cfg 1"));
  // And one that has an old one's id.
  tree_.DestroyDomain(6);
  Settle();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
}

TEST_F(IntroductionsTest, NameThatComesLateIsWaitedForAndRestoredGuestsGetTheirsLast) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  const size_t watches = tree_.watch_count();
  tree_.CreateDomain(5, "");
  EXPECT_THAT(Settle(), IsEmpty());
  tree_.Set("/local/domain/5/name", "g1--incoming");
  EXPECT_THAT(Settle(), IsEmpty());
  tree_.Set("/local/domain/5/name", "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  EXPECT_EQ(tree_.watch_count(), watches) << "nobody is watched any more";
}

TEST_F(IntroductionsTest, RenamingAnAttachedDomainChangesNothing) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Config("g2.cfg", "g2", R"("type=rng,num=7")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  tree_.Set("/local/domain/5/name", "g2");
  EXPECT_THAT(Settle(), IsEmpty());
  EXPECT_EQ(Type(5, 7), "(none)");
}

TEST_F(IntroductionsTest, WatchesOfDomainsWithoutAConfigEndWithThem) {
  Start();
  const size_t watches = tree_.watch_count();
  for (uint16_t id = 5; id < 15; ++id) tree_.CreateDomain(id, absl::StrCat("x", id));
  Settle();
  EXPECT_EQ(tree_.watch_count(), watches + 10);
  for (uint16_t id = 5; id < 15; ++id) tree_.DestroyDomain(id);
  Settle();
  EXPECT_EQ(tree_.watch_count(), watches);
}

TEST_F(IntroductionsTest, BackendOfAnotherDomainGetsTheNodes) {
  Write("g1.cfg",
        "name = \"g1\"\nvirtio_msg = [ \"type=rng\" ]\nvirtio_msg_backend = \"driver\"\n");
  Start();
  tree_.CreateDomain(3, "driver");
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  EXPECT_EQ(Type(5, 0, 3), "rng");
  EXPECT_EQ(tree_.Value("/local/domain/5/device/virtio-msg/0/backend-id"), "3");
}

TEST_F(IntroductionsTest, MissingBackendDomainIsNamed) {
  Write("g1.cfg",
        "name = \"g1\"\nvirtio_msg = [ \"type=rng\" ]\nvirtio_msg_backend = \"driver\"\n");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("g1.cfg"), HasSubstr("virtio_msg_backend"),
                                          HasSubstr("driver"))));
}

TEST_F(IntroductionsTest, BadEntryRefusesAllOfThemWithFileIndexKeyAndReason) {
  const std::string path = Config("g1.cfg", "g1", R"("type=rng", "type=blk,path=")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("refused 5 g1"), HasSubstr(path),
                                          HasSubstr("virtio_msg[1]"), HasSubstr("path"))));
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
  EXPECT_EQ(Mark(5, "config"), path);
  EXPECT_THAT(Mark(5, "error"), HasSubstr("virtio_msg[1]"));
  // Said once, also when we start again.
  introductions_.reset();
  Start();
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(IntroductionsTest, WhatTheCheckRefusesLeavesNothingAttachedButAtAnotherBackend) {
  Config("g1.cfg", "g1", R"("type=rng", "type=blk,path=/none")");
  check_ = absl::InvalidArgumentError("virtio_msg[1]: path=\"/none\": No such file or directory");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("refused 5"), HasSubstr("No such file"))));
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
  EXPECT_THAT(Mark(5, "error"), HasSubstr("No such file"));
  tree_.CreateDomain(7, "driver");
  Write("g2.cfg", "name = 'g2'\nvirtio_msg = [ 'type=rng' ]\nvirtio_msg_backend = 'driver'\n");
  tree_.CreateDomain(6, "g2");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("attached 6")));
}

TEST_F(IntroductionsTest, NumberGivenTwiceWritesNothingOnAnyBus) {
  Config("g1.cfg", "g1", R"("type=rng", "type=rng,bus=1,num=4", "type=rng,bus=1,num=4")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("given twice")));
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
}

// Root's own files, and still: whatever lies there does not end the service.
TEST_F(IntroductionsTest, HandAttachedConfigIsNotAttachedTwiceAndDetachedOnesAgain) {
  const std::string path = Config("g1.cfg", "g1", R"("type=rng")");
  tree_.CreateDomain(5, "g1");
  auto config = ReadXlConfig(path);
  ASSERT_TRUE(config.ok());
  const auto attach = [&] {
    AttachPlan plan = PlanAttachment(5, 0, ItemsOfConfig(path, *config));
    return WriteAttachment(*store_, plan, path).status();
  };
  EXPECT_TRUE(attach().ok());
  Start();
  EXPECT_EQ(Type(5, 1), "(none)");
  EXPECT_TRUE(attach().ok());
  EXPECT_EQ(Type(5, 1), "(none)");
  ASSERT_TRUE(RemoveBus(*store_, {5, 0, 0}).ok());
  EXPECT_TRUE(attach().ok());
}

TEST_F(IntroductionsTest, DriverDomainIsToldThatItIsNotItsTask) {
  tree_.CreateDomain(3, "driver");
  auto store = tree_.Connect(3);
  EXPECT_TRUE(absl::IsPermissionDenied(
      Introductions::Start(store.get(), this, ConfigCatalog({directory_}), 3, nullptr).status()));
}

TEST_F(IntroductionsTest, LostStoreIsReported) {
  Start();
  tree_.LoseConnections();
  EXPECT_TRUE(absl::IsUnavailable(introductions_->Process().status()));
  introductions_.reset();
}

}  // namespace
}  // namespace vmsg::xenstore
