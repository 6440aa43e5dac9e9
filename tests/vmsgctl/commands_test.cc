// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vmsgctl/vmsgctl_rig.h"

namespace vmsg::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class VmsgctlTest : public VmsgctlRig {};

TEST_F(VmsgctlTest, AttachByNameCreatesTheBusAndTakesTheLowestFreeNumbers) {
  EXPECT_EQ(Run({"attach", "g1", "type=rng", "type=rng,num=0", "type=rng"}), kExitDone) << err();
  EXPECT_EQ(tree_.Value(Device("0/hotplug-status")), "connected");
  EXPECT_TRUE(tree_.Has(Device("1/type")));
  EXPECT_TRUE(tree_.Has(Device("2/type")));
  EXPECT_THAT(out(), AllOf(HasSubstr("g1: bus 0 device 0 (rng) attached"), HasSubstr("device 1"),
                           HasSubstr("device 2")));
  EXPECT_EQ(Run({"attach", "5", "type=rng"}), kExitDone) << err();
  EXPECT_TRUE(tree_.Has(Device("3/type")));
}

TEST_F(VmsgctlTest, MalformedEntryIsRefusedBeforeAnythingIsWritten) {
  const size_t before = tree_.nodes().size();
  EXPECT_EQ(Run({"attach", "g1", "type=rng", "type=blk,path="}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("\"type=blk,path=\""), HasSubstr("key \"path\""),
                           HasSubstr("value is empty")));
  EXPECT_EQ(tree_.nodes().size(), before);
}

TEST_F(VmsgctlTest, SecondAttachOfANumberIsRefusedBeforeAnythingIsWritten) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng,num=4"}), kExitDone);
  const size_t before = tree_.nodes().size();
  EXPECT_EQ(Run({"attach", "g1", "type=rng,bus=1", "type=rng,num=4"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("\"type=rng,num=4\""), HasSubstr("key \"num\""),
                           HasSubstr("attached already")));
  EXPECT_EQ(tree_.nodes().size(), before);
}

TEST_F(VmsgctlTest, NumberTwiceOnOneCommandLineIsRefused) {
  EXPECT_EQ(Run({"attach", "g1", "type=rng,num=4", "type=rng,num=4"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("given twice"));
  EXPECT_FALSE(tree_.Has(kBusPath));
}

TEST_F(VmsgctlTest, RefusalByTheServiceNamesTheEntryAndItsNodesAreRemoved) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  EXPECT_EQ(Run({"attach", "g1", "type=nonsense", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("\"type=nonsense\""), HasSubstr("key \"type\""),
                           HasSubstr("is no type")));
  EXPECT_FALSE(tree_.Has(Device("1")));
  // The other entry of the same call stays.
  EXPECT_EQ(tree_.Value(Device("2/hotplug-status")), "connected");
  EXPECT_THAT(out(), HasSubstr("device 2 (rng) attached"));
  // And the number is free again.
  EXPECT_EQ(Run({"attach", "g1", "type=rng,num=1"}), kExitDone) << err();
}

TEST_F(VmsgctlTest, TheSameEntryAgainHasARefusedDeviceTriedAgainUnderItsNumber) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/a", "type=blk,path=/b"}), kExitDone) << err();
  // Its image was away when vmsgd started anew.
  service_->refused_type = "blk";
  tree_.Set(Device("0/hotplug-status"), "error");
  EXPECT_EQ(Run({"attach", "g1", "type=rng,num=0"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("\"type=blk,path=/a\" and was refused; attach that again"),
                           HasSubstr("vmsgctl detach 5 0")));
  // Still away: the entry stays.
  EXPECT_EQ(Run({"attach", "g1", "type=blk,path=/a"}), kExitRefused);
  EXPECT_EQ(tree_.Value(Device("0/path")), "/a");
  EXPECT_EQ(tree_.Value(Device("0/hotplug-status")), "error");
  EXPECT_FALSE(tree_.Has(Device("2")));
  service_->refused_type = "nonsense";
  EXPECT_EQ(Run({"attach", "g1", "type=blk,path=/a,num=0"}), kExitDone) << err();
  EXPECT_THAT(out(), HasSubstr("g1: bus 0 device 0 (blk) attached"));
  EXPECT_EQ(tree_.Value(Device("0/hotplug-status")), "connected");
  EXPECT_FALSE(tree_.Has(Device("2")));
}

// Somebody else may detach what this command wrote, and attach another device under its number.
TEST_F(VmsgctlTest, AnotherEntryUnderTheNumberIsNotRemovedAfterARefusal) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  store_->before_events = [this] {
    if (!tree_.Has(Device("1/type")) || tree_.Value(Device("1/type")) == "rng") return;
    tree_.Erase(Device("1"));
    tree_.Set(Device("1/type"), "rng");
    tree_.Set(Device("1/type/entry-id"), "another");
    tree_.Set(Device("1/hotplug-status"), "error");
  };
  EXPECT_EQ(Run({"attach", "g1", "type=nonsense"}), kExitRefused);
  EXPECT_THAT(err(),
              HasSubstr("was detached by somebody else, and device 1 is another one by now"));
  EXPECT_EQ(tree_.Value(Device("1/type")), "rng");
}

TEST_F(VmsgctlTest, AnotherEntryUnderTheNumberIsNotRemovedAfterTheTimeIsOver) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  StopService();
  // Between the last look and the removal.
  store_->before_unwatch = [this] {
    if (!tree_.Has(Device("1/type/entry-id"))) return;
    tree_.Set(Device("1/type/entry-id"), "another");
  };
  EXPECT_EQ(Run({"attach", "g1", "type=rng", "--timeout=0"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no vmsgd is running"));
  EXPECT_TRUE(tree_.Has(Device("1/type")));
}

TEST_F(VmsgctlTest, AnEntryMadeAnewMeanwhileIsNotWaitedForNorRemoved) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  store_->before_events = [this] {
    tree_.Erase(Device("0"));
    tree_.Set(Device("0/type"), "rng");
    tree_.Set(Device("0/type/entry-id"), "another");
    tree_.Set(Device("0/online"), "0");
  };
  EXPECT_EQ(Run({"detach", "g1", "0", "--force"}), kExitDone) << err();
  EXPECT_THAT(out(), HasSubstr("device 0 detached"));
  EXPECT_TRUE(tree_.Has(Device("0/type")));
}

TEST_F(VmsgctlTest, BusMadeForRefusedEntriesIsRemovedAgain) {
  EXPECT_EQ(Run({"attach", "g1", "type=nonsense"}), kExitRefused);
  EXPECT_FALSE(tree_.Has(kBusPath));
  EXPECT_FALSE(tree_.Has(kFrontPath));
}

TEST_F(VmsgctlTest, ABusThatVmsgdRefusesIsRefusedWithItsReasonAtOnceAndLeavesNothing) {
  service_->bus_error = "this domain may watch no more (--watch-nb)";
  EXPECT_EQ(Run({"attach", "g1", "type=rng", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("--watch-nb"), Not(HasSubstr("running"))));
  EXPECT_FALSE(tree_.Has(kBusPath));
  EXPECT_FALSE(tree_.Has(kFrontPath));
}

TEST_F(VmsgctlTest, WithoutAServiceAttachSaysSoAndLeavesNothing) {
  StopService();
  EXPECT_EQ(Run({"--timeout", "0", "attach", "g1", "type=rng", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no answer within 0: no vmsgd is running in domain 0"));
  EXPECT_FALSE(tree_.Has(kBusPath));
  EXPECT_FALSE(tree_.Has(kFrontPath));
}

TEST_F(VmsgctlTest, UnknownDomainIsRefused) {
  EXPECT_EQ(Run({"attach", "g2", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no domain \"g2\""));
  EXPECT_EQ(Run({"attach", "77", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no domain \"77\""));
  EXPECT_EQ(Run({"--backend", "driver", "attach", "g1", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no domain \"driver\""));
}

TEST_F(VmsgctlTest, AmbiguousNameIsRefused) {
  tree_.CreateDomain(6, "g1");
  EXPECT_EQ(Run({"attach", "g1", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("fits the domains 5, 6"));
}

TEST_F(VmsgctlTest, DetachWaitsUntilTheEntryIsGone) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng", "type=rng"}), kExitDone);
  EXPECT_EQ(Run({"detach", "g1", "0"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has(Device("0")));
  EXPECT_TRUE(tree_.Has(Device("1/type")));
  EXPECT_THAT(out(), HasSubstr("g1: bus 0 device 0 detached"));
}

TEST_F(VmsgctlTest, DetachOfABusyDeviceSaysSoAndForceRemovesIt) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  service_->busy.insert(0);
  EXPECT_EQ(Run({"detach", "g1", "0", "--timeout=1"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("device 0 is still there"), HasSubstr("--force"),
                           HasSubstr("driver has not let go of device 0 (rng)"),
                           Not(HasSubstr("running"))));
  EXPECT_TRUE(tree_.Has(Device("0/type")));
  EXPECT_EQ(Run({"detach", "g1", "0", "--force"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has(Device("0")));
}

TEST_F(VmsgctlTest, DetachOfABusWaitsForItsBusyDevicesAndNamesThem) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng", "type=blk,path=/srv/a.img"}), kExitDone);
  service_->busy.insert(1);
  EXPECT_EQ(Run({"detach", "g1", "all", "--timeout=1"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("driver has not let go of device 1 (blk /srv/a.img)"));
  EXPECT_TRUE(tree_.Has(Device("1/type")));
  EXPECT_EQ(Run({"detach", "g1", "all", "--force"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has(kBusPath));
}

TEST_F(VmsgctlTest, ForcedDetachOfAHangingDiskSaysThatItsImageIsStillHeld) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/srv/a.img", "type=rng"}), kExitDone);
  service_->hanging.insert(0);
  EXPECT_EQ(Run({"detach", "g1", "0", "--timeout=1"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("requests to device 0 (blk /srv/a.img) have not ended"));
  EXPECT_EQ(Run({"detach", "g1", "all", "--force", "--timeout=1"}), kExitDone);
  EXPECT_THAT(
      err(), AllOf(HasSubstr("/srv/a.img"), HasSubstr("vmsgd, process 12, still holds the image")));
  EXPECT_FALSE(tree_.Has(kBusPath));
}

TEST_F(VmsgctlTest, ForceWithoutAServiceRemovesTheNodes) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  StopService();
  EXPECT_EQ(Run({"detach", "g1", "0", "--force", "--timeout=0"}), kExitDone) << err();
  EXPECT_THAT(err(), AllOf(HasSubstr("no vmsgd is running in domain 0. The entry was removed"),
                           Not(HasSubstr("holds"))));
  EXPECT_THAT(out(), HasSubstr("device 0 detached"));
  EXPECT_FALSE(tree_.Has(Device("0")));
  EXPECT_EQ(Run({"detach", "g1", "all", "--timeout=0"}), kExitRefused);
  EXPECT_TRUE(tree_.Has(kBusPath));
  EXPECT_EQ(Run({"detach", "g1", "all", "--force", "--timeout=0"}), kExitDone);
  EXPECT_FALSE(tree_.Has(kBusPath));
  EXPECT_FALSE(tree_.Has(kFrontPath));
}

TEST_F(VmsgctlTest, WhichVmsgdDidNotAnswerAndWhyIsSaid) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  StopService();
  const auto expect = [this](Liveness liveness, const std::string& text) {
    liveness_ = std::move(liveness);
    EXPECT_EQ(Run({"--timeout=0", "attach", "g1", "type=rng"}), kExitRefused);
    EXPECT_THAT(err(), HasSubstr("no answer within 0: " + text));
    EXPECT_EQ(Run({"--timeout=0", "detach", "g1", "0"}), kExitRefused);
    EXPECT_THAT(err(), HasSubstr("device 0 is still there after 0: " + text));
  };
  expect({.answer = Liveness::Answer::kLives, .pid = 12},
         "vmsgd in domain 0, process 12, is running and has not answered");
  expect({.answer = Liveness::Answer::kEnding, .pid = 12},
         "vmsgd in domain 0, process 12, is ending, and the kernel still holds its disks for it");
  expect({.answer = Liveness::Answer::kCannotTell, .why = "permission denied"},
         "vmsgd in domain 0 has not answered (whether it is running cannot be told: permission "
         "denied)");
  tree_.CreateDomain(7, "driver");
  EXPECT_EQ(Run({"--timeout=0", "--backend=driver", "attach", "g1", "type=rng,bus=1"}),
            kExitRefused);
  EXPECT_THAT(err(), HasSubstr("vmsgd in domain 7 has not answered (whether it is running cannot "
                               "be told: only domain 7 itself can see that)"));
}

TEST_F(VmsgctlTest, ForceSaysWhoStillHoldsTheImageAndThatOnlyTheEntryIsGone) {
  for (const Liveness::Answer answer : {Liveness::Answer::kLives, Liveness::Answer::kEnding}) {
    if (service_ == nullptr) StartService();
    ASSERT_EQ(Run({"attach", "g1", "type=rng,num=0"}), kExitDone) << err();
    StopService();
    liveness_ = {.answer = answer, .pid = 12};
    EXPECT_EQ(Run({"detach", "g1", "0", "--force", "--timeout=0"}), kExitDone) << err();
    EXPECT_THAT(err(), HasSubstr("The entry was removed, but vmsgd, process 12, still holds"));
    EXPECT_EQ(out(), "g1: bus 0 device 0: the entry was removed\n");
    EXPECT_FALSE(tree_.Has(Device("0")));
  }
}

// What a vmsgd that has ended wrote of a driver would be waited for without limit.
TEST_F(VmsgctlTest, ADriverThatADeadVmsgdAskedIsNotWaitedFor) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  service_->busy.insert(0);
  EXPECT_EQ(Run({"detach", "g1", "0", "--timeout=0"}), kExitRefused);
  service_->Run();
  ASSERT_EQ(tree_.Value(Device("0/hotplug-status")), "asked");
  StopService();
  liveness_ = {.answer = Liveness::Answer::kNone};
  patience_ = absl::ZeroDuration();
  EXPECT_EQ(Run({"detach", "g1", "0"}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("no vmsgd is running"), Not(HasSubstr("driver has not"))));
}

TEST_F(VmsgctlTest, DetachAllRemovesBothDirectoriesOfEveryBus) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng", "type=rng,bus=3"}), kExitDone);
  EXPECT_EQ(Run({"detach", "g1", "all", "--bus", "3"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has("/local/domain/5/device/virtio-msg/3"));
  EXPECT_TRUE(tree_.Has(kBusPath));
  EXPECT_EQ(Run({"detach", "g1", "all"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
  EXPECT_FALSE(tree_.Has("/local/domain/5/device/virtio-msg"));
}

TEST_F(VmsgctlTest, WhatADestroyedGuestLeftCanBeRemovedById) {
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  StopService();
  tree_.DestroyDomain(5);
  EXPECT_EQ(Run({"detach", "5", "all", "--force", "--timeout=0"}), kExitDone) << err();
  EXPECT_FALSE(tree_.Has(kBusPath));
}

TEST_F(VmsgctlTest, DetachOfWhatIsNotThereIsRefused) {
  EXPECT_EQ(Run({"detach", "g1", "0"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no virtio-msg bus 0"));
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  EXPECT_EQ(Run({"detach", "g1", "1"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no device 1"));
  EXPECT_FALSE(tree_.Has(Device("1")));
}

TEST_F(VmsgctlTest, ListAsJson) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/srv/a.img"}), kExitDone);
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  for (const char* piece :
       {R"("domain": 5)", R"("name": "g1")", R"("backend_state": "InitWait")", R"("type": "blk")",
        R"("status": "connected")", R"("path": "/srv/a.img")"}) {
    EXPECT_THAT(out(), HasSubstr(piece));
  }
  tree_.Set(Device("0/path"), "no utf-8: \xff");
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
}

TEST_F(VmsgctlTest, ListShowsTheErrorsOfADisk) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/srv/a.img"}), kExitDone);
  tree_.Set(Device("0/type/io-errors"), "3");
  tree_.Set(Device("0/type/io-error"), "write of 512 bytes at 0: No space left on device (ENOSPC)");
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("connected, I/O errors: 3 "),
                           HasSubstr("device 0: last I/O error: write of 512 bytes at 0"),
                           Not(HasSubstr("io-errors="))));
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr(R"("io_errors": 3)"), HasSubstr("(ENOSPC)")));
}

TEST_F(VmsgctlTest, LostStoreIsAnError) {
  tree_.LoseConnections();
  EXPECT_EQ(Run({"list"}), kExitRefused);
  EXPECT_EQ(Run({"attach", "g1", "type=rng"}), kExitRefused);
  EXPECT_EQ(Run({"detach", "g1", "0"}), kExitRefused);
  EXPECT_THAT(err(), Not(IsEmpty()));
}

}  // namespace
}  // namespace vmsg::ctl
