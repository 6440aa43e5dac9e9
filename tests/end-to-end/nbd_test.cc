// SPDX-License-Identifier: Apache-2.0
// Programs nobody here wrote drive the bus: the guest's disk over nbdkit, read and checked by
// nbdcopy, qemu-img and fio.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

class NbdTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    content_ = Machine::Pattern(8 << 20, 50);
    auto guest = machine_->CreateGuest(
        "g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content_))});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
  }
  // Runs a shell command that finds the disk at $uri.
  void Run(const std::string& command) {
    auto run = machine_->Frontend(guest_, {"nbd", "--dev=0", "--run", command});
    ASSERT_TRUE(run.ok()) << run.status();
    ASSERT_EQ(run->exit_status, 0) << run->out << run->err << machine_->service_log();
  }
  std::unique_ptr<Machine> machine_;
  std::string content_;
  grants::DomainId guest_ = 0;
};

TEST_F(NbdTest, NbdcopyReadsTheDiskAndQemuImgFindsItIdentical) {
  const std::string copy = machine_->PathOf("copy.img");
  Run(absl::StrCat("nbdcopy \"$uri\" ", copy, " && qemu-img compare -f raw -F raw \"$uri\" ",
                   copy));
  EXPECT_TRUE(Machine::Content(copy) == content_);
}

TEST_F(NbdTest, WhatNbdcopyWritesIsInTheImage) {
  const std::string other = Machine::Pattern(8 << 20, 51);
  Run(absl::StrCat("nbdcopy --flush ", machine_->MakeFile("other.img", other), " \"$uri\""));
  EXPECT_TRUE(Machine::Content(machine_->PathOf("g1.img")) == other);
}

TEST_F(NbdTest, FioWritesAtRandomAndVerifies) {
  Run(absl::StrCat(
      "fio --name=verify --ioengine=nbd --uri=\"$uri\" --rw=randwrite --bs=4k --size=8m "
      "--iodepth=16 --verify=crc32c --verify_state_save=0 --verify_fatal=1 --randseed=7 --output=",
      machine_->PathOf("fio.log")));
}

}  // namespace
}  // namespace vmsg::test
