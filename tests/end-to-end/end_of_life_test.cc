// SPDX-License-Identifier: Apache-2.0
// Every way a guest, a frontend or the service ends: nothing stays mapped, nobody else is
// disturbed, flushed data stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <functional>

#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/blk_driver.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using testing::HasSubstr;

class EndOfLifeTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    content_ = Machine::Pattern(1 << 20, 11);
    auto guest = machine_->CreateGuest(
        "g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content_))});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  // A frontend in a process of its own that keeps the disk busy until it is ended.
  ChildProcess BusyFrontend() {
    auto child = ChildProcess::Start(
        machine_->FrontendCommand(
            guest_, {"blk", "bench", "--dev=0", "--depth=32", "--seconds=600", "--events"}),
        machine_->PathOf("frontend.log"));
    EXPECT_TRUE(child.ok()) << child.status();
    ExpectState("4");
    return child.ok() ? *std::move(child) : ChildProcess();
  }
  std::string BackendPath() const { return xenstore::BusAddress{.frontend = guest_}.BackendPath(); }
  void Await(const std::string& what, const std::function<bool()>& holds) {
    if (!watching_) {
      ASSERT_EQ(store_->Watch("/local/domain/0/backend/virtio-msg", "bus"), absl::OkStatus());
      watching_ = true;
    }
    while (!holds()) {
      pollfd fd = {store_->fd(), POLLIN, 0};
      ASSERT_GT(poll(&fd, 1, 60'000), 0) << what << "\n" << machine_->service_log();
      ASSERT_TRUE(store_->TakeWatchEvents().ok());
    }
  }
  void ExpectState(const std::string& wanted) {
    Await(absl::StrCat("state ", wanted), [&] {
      auto state = store_->Read(absl::StrCat(BackendPath(), "/state"));
      return state.ok() && *state == wanted;
    });
  }
  void ExpectBusGone() {
    Await("the bus's directory goes",
          [&] { return absl::IsNotFound(store_->Read(BackendPath()).status()); });
  }
  void ExpectNothingMapped() {
    auto counts = machine_->xen().DomainCounts(guest_);
    ASSERT_TRUE(counts.ok()) << counts.status();
    EXPECT_EQ(counts->pinned, 0);
    EXPECT_NE(counts->state, "zombie");
  }
  void ExpectDiskReadsAsItIs() {
    auto read = machine_->Frontend(guest_, {"blk", "read", "--dev=0", "-"});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->exit_status, 0) << read->err << machine_->service_log();
    EXPECT_TRUE(read->out == content_);
  }

  std::unique_ptr<Machine> machine_;
  std::string content_;
  grants::DomainId guest_ = 0;
  std::unique_ptr<xenstore::Store> store_;
  bool watching_ = false;
};

TEST_F(EndOfLifeTest, AGuestDestroyedInTheMiddleOfIoLeavesNoZombie) {
  ChildProcess frontend = BusyFrontend();
  ASSERT_EQ(machine_->xen().Destroy(guest_), absl::OkStatus());
  ExpectBusGone();
  ExpectNothingMapped();
  frontend.Signal(SIGKILL);
  frontend.Wait();
  // The service serves on: a guest of the same name, with another id.
  auto again =
      machine_->CreateGuest("g1", {absl::StrCat("type=blk,path=", machine_->PathOf("g1.img"))});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_NE(*again, guest_);
  guest_ = *again;
  ExpectDiskReadsAsItIs();
}

TEST_F(EndOfLifeTest, AFrontendKilledInTheMiddleOfIoIsFollowedByAnother) {
  ChildProcess frontend = BusyFrontend();
  frontend.Signal(SIGKILL);
  EXPECT_EQ(frontend.Wait(), -SIGKILL);
  ExpectDiskReadsAsItIs();
  ExpectNothingMapped();
}

TEST_F(EndOfLifeTest, AServiceToldToStopUnmapsEverything) {
  ChildProcess frontend = BusyFrontend();
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  ExpectNothingMapped();
  auto state = store_->Read(absl::StrCat(BackendPath(), "/state"));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(*state, "6");
}

TEST_F(EndOfLifeTest, AServiceThatWasKilledServesAgainWhenItIsStarted) {
  ChildProcess frontend = BusyFrontend();
  machine_->service().Signal(SIGKILL);
  EXPECT_EQ(machine_->service().Wait(), -SIGKILL);
  ExpectNothingMapped();
  frontend.Signal(SIGKILL);
  frontend.Wait();
  ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  ExpectDiskReadsAsItIs();
}

TEST_F(EndOfLifeTest, AFrontendThatOutlivesTheServiceConnectsToTheNextOne) {
  auto connection = machine_->Connect(guest_, {.pages = 16, .ring_order = 1});
  ASSERT_TRUE(connection.ok()) << connection.status();
  machine_->service().Signal(SIGKILL);
  machine_->service().Wait();
  ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  // What was published for the lost connection is not mapped again: this is no refusal.
  ExpectState("6");
  EXPECT_EQ(store_->Read(absl::StrCat(BackendPath(), "/hotplug-error")).value_or("gone"), "");
  ExpectNothingMapped();
  ASSERT_EQ((*connection)->Reconnect(), absl::OkStatus()) << machine_->service_log();
  EXPECT_TRUE((*connection)->bus().Ping(1, frontend::After(std::chrono::seconds(60))).ok());
}

TEST_F(EndOfLifeTest, WhatWasFlushedIsThereAfterTheServiceWasKilled) {
  const std::string written = Machine::Pattern(64 << 10, 12);
  auto write = machine_->Frontend(
      guest_, {"blk", "write", "--dev=0", "--offset=131072", "--flush", "-"}, written);
  ASSERT_TRUE(write.ok()) << write.status();
  ASSERT_EQ(write->exit_status, 0) << write->err;
  machine_->service().Signal(SIGKILL);
  machine_->service().Wait();
  content_.replace(131072, written.size(), written);
  EXPECT_TRUE(Machine::Content(machine_->PathOf("g1.img")) == content_);
}

TEST_F(EndOfLifeTest, AFrontendThatComesAndGoesLeavesNothingBehind) {
  for (int i = 0; i < 100; ++i) {
    auto connection = machine_->Connect(guest_, {.pages = 16, .ring_order = 1});
    ASSERT_TRUE(connection.ok()) << "cycle " << i << ": " << connection.status()
                                 << machine_->service_log();
    ASSERT_TRUE((*connection)->bus().Ping(1, frontend::After(std::chrono::seconds(60))).ok());
    ASSERT_EQ((*connection)->Close(), absl::OkStatus()) << "cycle " << i;
  }
  ExpectNothingMapped();
  auto counts = machine_->xen().DomainCounts(0);
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->maps, 0);
  EXPECT_EQ(counts->bound, 0);
}

TEST_F(EndOfLifeTest, ADeviceRemovedInTheMiddleOfIoGoesAndTheOtherStays) {
  auto added = machine_->Ctl({"attach", "g1", "type=rng,num=9"});
  ASSERT_TRUE(added.ok());
  ASSERT_EQ(added->exit_status, 0) << added->err;
  ChildProcess frontend = BusyFrontend();
  auto forced = machine_->Ctl({"detach", "g1", "0", "--force"});
  ASSERT_TRUE(forced.ok());
  EXPECT_EQ(forced->exit_status, 0) << forced->err << machine_->service_log();
  frontend.Signal(SIGKILL);
  frontend.Wait();
  auto listed = machine_->Frontend(guest_, {"list"});
  ASSERT_TRUE(listed.ok());
  EXPECT_EQ(listed->exit_status, 0) << listed->err;
  EXPECT_THAT(listed->out, HasSubstr("rng"));
  EXPECT_THAT(listed->out, testing::Not(HasSubstr("blk")));
}

}  // namespace
}  // namespace vmsg::test
