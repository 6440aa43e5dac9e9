// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/vmsgctl/vmsgctl_rig.h"

namespace vmsg::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class VmsgctlListTest : public VmsgctlRig {};

TEST_F(VmsgctlListTest, ListShowsWhatTheStoreSays) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/srv/a.img,readonly=1"}), kExitDone);
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("g1 (5)"), HasSubstr("Initialising / InitWait"),
                           HasSubstr("connected"), HasSubstr("path=/srv/a.img,readonly=1")));
  tree_.Set(Device("0/hotplug-status"), "error");
  tree_.Set(Device("0/hotplug-error"), "the disk\x1b[31m\x9b\xc2\x9b\xe2\x80\xae failed");
  tree_.Set(std::string(kFrontPath) + "/state", "garbage");
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(
      out(),
      AllOf(HasSubstr("\n\ng1 (5) bus 0 device 0: the disk\\x1b[31m\\x9b\\u009b\\u202e failed\n"),
            HasSubstr("Unknown / InitWait")));
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  const std::string json = out();
  EXPECT_THAT(json, HasSubstr("the disk\\u001b[31m\\ufffd\\u009b\\u202e failed"));
  EXPECT_TRUE(std::all_of(json.begin(), json.end(),
                          [](char c) { return c == '\n' || (c >= ' ' && c < 0x7f); }));
}

TEST_F(VmsgctlListTest, AReasonFromAnotherDomainTellsTheTerminalNothing) {
  service_->bus_error = "no\x1b[2Jroom\n\xe2\x80\xaeg1: bus 0 device 0 (rng) attached";
  EXPECT_EQ(Run({"attach", "g1", "type=rng"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no\\x1b[2Jroom\\n\\u202eg1: bus 0"));
  tree_.CreateDomain(6, "g\x1b[31m2");
  service_->bus_error.clear();
  EXPECT_EQ(Run({"attach", "6", "type=rng"}), kExitDone);
  EXPECT_EQ(out(), "g\\x1b[31m2: bus 0 device 0 (rng) attached\n");
  EXPECT_EQ(Run({"detach", "6", "0"}), kExitDone);
  EXPECT_EQ(out(), "g\\x1b[31m2: bus 0 device 0 detached\n");
}

TEST_F(VmsgctlListTest, WhatADeadVmsgdLeftIsNotShownAsIfItServed) {
  tree_.CreateDomain(7, "driver");
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_EQ(err(), "");
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  EXPECT_THAT(out(), HasSubstr("\"vmsgd\": \"running\""));
  liveness_ = {.answer = Liveness::Answer::kNone};
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(err(), HasSubstr("no vmsgd is running"));
  EXPECT_THAT(out(), HasSubstr("connected (no vmsgd)"));
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  EXPECT_THAT(out(), HasSubstr("\"vmsgd\": \"not running\""));
  liveness_ = {.answer = Liveness::Answer::kCannotTell, .why = "permission denied"};
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(err(), AllOf(HasSubstr("cannot be told"), HasSubstr("permission denied")));
  // Another domain's cannot be asked for.
  ASSERT_EQ(Run({"detach", "g1", "all"}), kExitDone);
  tree_.Set("/local/domain/7/backend/virtio-msg/5/0/state", "2");
  liveness_ = {.answer = Liveness::Answer::kNone};
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(err(), HasSubstr("in domain 7 cannot be asked from here"));
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  EXPECT_THAT(out(), HasSubstr("\"vmsgd\": \"unknown\""));
}

TEST_F(VmsgctlListTest, ListOfADomainShowsItAlone) {
  tree_.CreateDomain(6, "g2");
  tree_.CreateDomain(7, "guest3");
  tree_.Set("/libxl/6/virtio-msg/config", "/etc/xen/g2.cfg");
  ASSERT_EQ(Run({"attach", "g1", "type=rng"}), kExitDone);
  ASSERT_EQ(Run({"attach", "g2", "type=rng"}), kExitDone);
  EXPECT_EQ(Run({"list", "g2"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("g2 (6)"), HasSubstr("g2.cfg"), Not(HasSubstr("g1 (5)"))));
  EXPECT_EQ(Run({"list", "--json", "5"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("\"domain\": 5"), Not(HasSubstr("\"domain\": 6"))));
  // One without devices is no error, one that is not there is.
  EXPECT_EQ(Run({"list", "guest3"}), kExitDone);
  EXPECT_EQ(Run({"list", "geust3"}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("there is no domain \"geust3\" in the store; did you mean guest3?"));
}

TEST_F(VmsgctlListTest, ListShowsWhatBecameOfAConfigAlsoWithoutABus) {
  tree_.Set("/libxl/5/virtio-msg/config", "/etc/xen/g1.cfg");
  tree_.Set("/libxl/5/virtio-msg/error", "virtio_msg[0]: key \"pth\" is unknown");
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("g1 (5)"), HasSubstr("/etc/xen/g1.cfg"),
                           HasSubstr("\n\ng1 (5): virtio_msg[0]")));
  EXPECT_EQ(Run({"list", "--json"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr(R"("config": "/etc/xen/g1.cfg")"),
                           HasSubstr(R"("config_error": "virtio_msg[0])")));
}

// What became of a config first is not what there is now.
TEST_F(VmsgctlListTest, AConfigIsAttachedOnlyWhileItsDevicesAre) {
  const auto status = [this] {
    EXPECT_EQ(Run({"list", "--json"}), kExitDone);
    const std::string json = out();
    const size_t begin = json.find("\"config_status\": \"") + 18;
    return json.substr(begin, json.find('"', begin) - begin);
  };
  ASSERT_EQ(Run({"attach", "g1", "type=rng", "type=rng", "type=rng"}), kExitDone);
  tree_.Set("/libxl/5/virtio-msg/config", "/etc/xen/g1.cfg");
  EXPECT_EQ(status(), "nothing attached");
  tree_.Set(Device("0/type/from-config"), "/etc/xen/g1.cfg");
  tree_.Set(Device("1/type/from-config"), "/etc/xen/g1.cfg");
  EXPECT_EQ(status(), "attached");
  tree_.Set(Device("1/hotplug-status"), "error");
  tree_.Set(Device("1/hotplug-error"), "no such file");
  EXPECT_EQ(status(), "1 of 2 attached, 1 refused");
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), HasSubstr("g1.cfg  1 of 2 attached, 1 refused\n"));
  tree_.Erase(Device("1/hotplug-status"));
  EXPECT_EQ(status(), "1 of 2 attached");
  liveness_ = {.answer = Liveness::Answer::kNone};
  EXPECT_EQ(status(), "no vmsgd");
}

TEST_F(VmsgctlListTest, ALongReasonDoesNotWidenTheTable) {
  ASSERT_EQ(Run({"attach", "g1", "type=blk,path=/a", "type=rng"}), kExitDone);
  tree_.Set(Device("0/hotplug-status"), "error");
  tree_.Set(Device("0/hotplug-error"), std::string(1000, 'x'));
  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), HasSubstr("blk   error      path=/a\n"));
  EXPECT_THAT(out(), HasSubstr("\n\ng1 (5) bus 0 device 0: " + std::string(1000, 'x') + "\n"));
}

}  // namespace
}  // namespace vmsg::ctl
