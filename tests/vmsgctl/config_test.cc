// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/vmsgctl/vmsgctl_rig.h"

namespace vmsg::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class VmsgctlConfigTest : public VmsgctlRig {};

TEST_F(VmsgctlConfigTest, ConfigNamesDomainAndDevices) {
  char path[] = "/tmp/vmsgctl-config-XXXXXX";
  close(mkstemp(path));
  std::ofstream(path) << "name = \"g1\"\nvirtio_msg = [ \"type=rng\", \"type=rng,num=9\" ]\n";
  EXPECT_EQ(Run({"attach", "--config", path}), kExitDone) << err();
  EXPECT_TRUE(tree_.Has(Device("0/type")));
  EXPECT_TRUE(tree_.Has(Device("9/type")));
  // The domain of the command line comes first.
  tree_.CreateDomain(6, "g2");
  EXPECT_EQ(Run({"attach", "--config", path, "g2"}), kExitDone) << err();
  EXPECT_TRUE(tree_.Has("/local/domain/0/backend/virtio-msg/6/0/device/9/type"));

  EXPECT_EQ(Run({"list"}), kExitDone);
  EXPECT_THAT(out(), AllOf(HasSubstr("CONFIG"), HasSubstr(path), HasSubstr("attached")));
  ASSERT_EQ(Run({"detach", "g1", "all"}), kExitDone);

  std::ofstream(path) << "name = \"g1\"\nvirtio_msg = [ \"type=rng\", \"type=nonsense\" ]\n";
  EXPECT_EQ(Run({"attach", "--config", path}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr(path), HasSubstr("virtio_msg[1]"), HasSubstr("is no type")));

  std::ofstream(path) << "name = \"g1\"\n";
  EXPECT_EQ(Run({"attach", "--config", path}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("nothing to attach"));
  std::ofstream(path) << "virtio_msg = [ \"type=rng\" ]\n";
  EXPECT_EQ(Run({"attach", "--config", path}), kExitRefused);
  EXPECT_THAT(err(), HasSubstr("there is no name in it"));
  unlink(path);
}

TEST_F(VmsgctlConfigTest, TheSameConfigAgainAttachesWhatIsMissing) {
  char path[] = "/tmp/vmsgctl-config-XXXXXX";
  close(mkstemp(path));
  const std::vector<std::string> attach = {"attach", "--config", path};
  std::ofstream(path) << "name = \"g1\"\n"
                         "virtio_msg = [ \"type=rng\", \"type=nonsense\", \"type=rng,num=9\" ]\n";
  EXPECT_EQ(Run(attach), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("virtio_msg[1]"), HasSubstr("is no type")));
  EXPECT_FALSE(tree_.Has(Device("1/type")));
  // Repaired.
  service_->refused_type = "other";
  EXPECT_EQ(Run(attach), kExitDone) << err();
  EXPECT_EQ(out(),
            "g1: bus 0 device 0 (rng) is attached already\n"
            "g1: bus 0 device 1 (nonsense) attached\n"
            "g1: bus 0 device 9 (rng) is attached already\n");
  EXPECT_EQ(Run(attach), kExitDone);
  EXPECT_THAT(out(), Not(HasSubstr(") attached")));
  // What was detached by hand comes back with the command, and what was attached by hand is left.
  ASSERT_EQ(Run({"detach", "g1", "0"}), kExitDone);
  ASSERT_EQ(Run({"attach", "g1", "type=rng,num=4"}), kExitDone);
  EXPECT_EQ(Run(attach), kExitDone) << err();
  EXPECT_THAT(out(), HasSubstr("device 0 (rng) attached"));
  EXPECT_TRUE(tree_.Has(Device("4/type")));
  // A device that reads otherwise now is not attached a second time beside the first.
  std::ofstream(path) << "name = \"g1\"\nvirtio_msg = [ \"type=rng\", \"type=rng,num=9\" ]\n";
  EXPECT_EQ(Run(attach), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr(path), HasSubstr("device 1"), HasSubstr("type=nonsense"),
                           HasSubstr("vmsgctl detach 5 1")));
  ASSERT_EQ(Run({"detach", "g1", "1"}), kExitDone);
  EXPECT_EQ(Run(attach), kExitDone) << err();
  unlink(path);
}

TEST_F(VmsgctlConfigTest, WhatCanBeSeenToBeWrongWithAConfigLeavesNothingAttached) {
  char path[] = "/tmp/vmsgctl-config-XXXXXX";
  close(mkstemp(path));
  std::ofstream(path) << "name = \"g1\"\nvirtio_msg = [ \"type=rng\", \"type=blk,path=/none\" ]\n"
                         "virtio_msgs = []\n";
  check_ = [](const std::vector<xenstore::AttachItem>& items) {
    return absl::InvalidArgumentError(absl::StrCat(items[1].label, ": no such file"));
  };
  EXPECT_EQ(Run({"attach", "--config", path}), kExitRefused);
  EXPECT_THAT(err(), AllOf(HasSubstr("virtio_msg[1]"), HasSubstr("no such file"),
                           HasSubstr("warning: "), HasSubstr("did you mean virtio_msg?")));
  EXPECT_FALSE(tree_.Has(kBusPath));
  // Another domain's paths are not to be seen from here, and single entries are vmsgd's to refuse.
  tree_.CreateDomain(7, "driver");
  EXPECT_EQ(Run({"attach", "--config", path, "--backend", "driver", "--timeout", "0"}),
            kExitRefused);
  EXPECT_THAT(err(), HasSubstr("no answer"));
  EXPECT_EQ(Run({"attach", "g1", "type=blk,path=/none"}), kExitDone);
  unlink(path);
}

}  // namespace
}  // namespace vmsg::ctl
