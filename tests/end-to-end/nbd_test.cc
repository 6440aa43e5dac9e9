// SPDX-License-Identifier: Apache-2.0
// Programs nobody here wrote drive the bus: the guest's disk over nbdkit, read and checked by
// nbdcopy, qemu-img and fio.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

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

// The same, while vmsgd is killed under it.
TEST_F(NbdTest, WhatNbdcopyWritesIsInTheImageAlsoWhenVmsgdIsKilledMeanwhile) {
  const std::string other = machine_->MakeFile("other.img", Machine::Pattern(8 << 20, 52));
  // Reads back, too, so that there is something in flight for long.
  const std::string command =
      absl::StrCat("for i in 1 2 3 4 5 6; do nbdcopy --flush ", other,
                   " \"$uri\" && nbdcopy \"$uri\" ", machine_->PathOf("copy.img"), " && cmp ",
                   other, " ", machine_->PathOf("copy.img"), " || exit 1; done");
  std::atomic<bool> ended = false;
  absl::StatusOr<Finished> run;
  std::thread runner([&] {
    run = machine_->Frontend(guest_, {"nbd", "--dev=0", "--run", command});
    ended = true;
  });
  auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Watch("/local/domain/0/backend/virtio-msg", "bus"), absl::OkStatus());
  const std::string state =
      absl::StrCat(xenstore::BusAddress{.frontend = guest_}.BackendPath(), "/state");
  for (int losses = 0; losses < 8 && !ended; ++losses) {
    while (!ended && (*store)->Read(state).value_or("") != "4") {
      pollfd fd = {(*store)->fd(), POLLIN, 0};
      if (poll(&fd, 1, 60'000) <= 0) break;
      (void)(*store)->TakeWatchEvents();
    }
    machine_->service().Signal(SIGKILL);
    machine_->service().Wait();
    ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  }
  runner.join();
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->exit_status, 0) << run->out << run->err << machine_->service_log();
  EXPECT_THAT(run->err, testing::HasSubstr("waiting for vmsgd"));
  EXPECT_TRUE(Machine::Content(machine_->PathOf("g1.img")) == Machine::Content(other));
}

TEST_F(NbdTest, WithoutAPlaceTheDiskIsOfferedToNobody) {
  auto run = machine_->Frontend(guest_, {"nbd", "--dev=0"});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->exit_status, 2);
  EXPECT_THAT(run->err, testing::HasSubstr("--socket PATH"));
}

TEST_F(NbdTest, TheSocketOfRunIsItsOwn) {
  Run("case \"$uri\" in nbd+unix://*) ;; *) echo \"$uri\"; exit 1 ;; esac");
}

TEST_F(NbdTest, ADiskThatIsNotThereIsSaidBeforeTheCommandRuns) {
  auto run = machine_->Frontend(guest_, {"nbd", "--dev=9", "--run", "touch /should-not"});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->exit_status, 1);
  EXPECT_THAT(run->err, testing::HasSubstr("no device 9"));
  auto empty = machine_->CreateGuest("g2", {"type=rng"});
  ASSERT_TRUE(empty.ok()) << empty.status();
  run = machine_->Frontend(*empty, {"nbd", "--run", "cat"});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->exit_status, 1);
  EXPECT_THAT(run->err, testing::HasSubstr("no device of type blk"));
}

}  // namespace
}  // namespace vmsg::test
