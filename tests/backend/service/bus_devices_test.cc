// SPDX-License-Identifier: Apache-2.0
// Device entries of one bus that change while a worker opens what they name, or while the session
// that had them drains. The control's loop runs only when the test says so: what comes back to it
// from workers and from the I/O thread waits there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/bus_control.h"
#include "tests/backend/simulated_loop.h"
#include "tests/devices/temp_dir.h"
#include "tests/scale/connecting_guest.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::testing {
namespace {

using xenstore::XenbusState;
using Keys = absl::btree_map<std::string, std::string>;

constexpr uint32_t kBudget = 2 * ConnectingGuest::kWindowPages;
constexpr std::chrono::seconds kPatience{60};  // only a failure meets it

// What is posted waits for the test, which runs it one by one.
class HeldLoop final : public backend::SimulatedLoop {
 public:
  void Post(absl::AnyInvocable<void()> task) override {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    came_.notify_all();
  }
  // Until there is a task; runs none.
  [[nodiscard]] bool Await() {
    std::unique_lock lock(mutex_);
    return came_.wait_for(lock, kPatience, [this] { return !tasks_.empty(); });
  }
  // Looks after each.
  [[nodiscard]] bool RunUntil(const std::function<bool()>& done) {
    while (!done()) {
      if (!Await()) return false;
      RunNext();
    }
    return true;
  }
  void RunAll() {
    while (RunNext()) {
    }
  }

 private:
  bool RunNext() {
    absl::AnyInvocable<void()> task;
    {
      std::lock_guard lock(mutex_);
      if (tasks_.empty()) return false;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
    return true;
  }
  std::mutex mutex_;
  std::condition_variable came_;
  std::deque<absl::AnyInvocable<void()>> tasks_;  // guarded by mutex_
};

class BusDevicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend::SetLogging(backend::LogLevel::kError, backend::LogStyle::kPlain);
    auto xen = test::EmulatedXen::Start();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    platform_ = *xen_->OpenPlatform(0);
    mapper_ = *platform_->OpenGrantMapper();
    thread_ = *backend::IoThread::Start(*platform_->OpenEventChannels(), {absl::ZeroDuration()});
    workers_ = std::make_unique<backend::WorkerPool>();
    guest_ = std::make_unique<ConnectingGuest>(*xen_);
    bus_ = {.frontend = guest_->domain(), .backend = 0, .id = 0};
    tree_.CreateDomain(bus_.frontend, "g");
    store_ = tree_.Connect(0);
    services_.trace = std::make_shared<backend::Trace>();
    services_.store = store_.get();
    services_.loop = &loop_;
    services_.workers = workers_.get();
    services_.mapper = mapper_.get();
    services_.offer.max_message_size = wire::kMaxMessageSize;
    services_.offer.max_window_pages = kBudget;
    services_.offer.max_ring_order = backend::RingLimits::kMaxOrder;
    services_.choose_thread = [this] { return thread_.get(); };
    control_ = std::make_unique<backend::BusControl>(
        services_, bus_, std::make_shared<backend::PageBudget>(kBudget), [] {});
  }
  void TearDown() override {
    if (control_ != nullptr) {
      control_->Vanish();
      ASSERT_TRUE(loop_.RunUntil([this] { return thread_->sessions == 0; }));
    }
    control_.reset();
    workers_.reset();
    loop_.RunAll();
    thread_.reset();
  }

  // As discovery does when it finds a bus, and an entry.
  void Appear() {
    ASSERT_TRUE(xenstore::AddDevices(*store_, bus_, {}).ok());
    view_ = {.ours = XenbusState::kInitialising, .frontend = XenbusState::kInitialising};
    control_->Reappear(view_);
  }
  void Add(uint16_t number, const std::string& type, const Keys& keys) {
    auto added =
        xenstore::AddDevices(*store_, bus_, {{.number = number, .type = type, .keys = keys}});
    ASSERT_TRUE(added.ok()) << added.status();
    control_->AddDevice({.number = number, .type = type, .keys = keys});
  }
  void RemoveEntry(uint16_t number) {
    ASSERT_TRUE(xenstore::RemoveEntry(*store_, {bus_, number, ""}).ok());
    control_->DeviceVanished(number);
  }
  void Frontend(XenbusState state) {
    view_.frontend = state;
    tree_.Set(absl::StrCat(bus_.FrontendPath(), "/state"), xenstore::StateText(state));
    control_->Update(view_);
  }
  std::string Node(const std::string& name) {
    return tree_.Value(absl::StrCat(bus_.BackendPath(), "/", name));
  }
  std::string StatusOf(uint16_t number) {
    return Node(absl::StrCat("device/", number, "/hotplug-status"));
  }
  // What the service says of an entry.
  std::string AwaitAnswer(uint16_t number) {
    EXPECT_TRUE(loop_.RunUntil([&] { return StatusOf(number) != "(none)"; }));
    return absl::StrCat(StatusOf(number), " ",
                        Node(absl::StrCat("device/", number, "/hotplug-error")));
  }
  void Connect() {
    guest_->StartOver();
    ASSERT_TRUE(loop_.RunUntil([this] { return Node("state") == "2"; }));
    ASSERT_TRUE(xenstore::WriteRequest(*store_, bus_,
                                       {.version = 1,
                                        .message_size = wire::kMaxMessageSize,
                                        .ring_ref = guest_->ring_ref(),
                                        .event_channel = guest_->port(),
                                        .directory_ref = guest_->directory_ref(),
                                        .directory_pages = ConnectingGuest::kWindowPages,
                                        .ring_event_idx = true})
                    .ok());
    Frontend(XenbusState::kInitialised);
    ASSERT_TRUE(loop_.RunUntil([this] { return Node("state") == "4"; }));
  }

  TempDir dir_;
  std::unique_ptr<test::EmulatedXen> xen_;
  std::unique_ptr<grants::Platform> platform_;
  std::unique_ptr<grants::GrantMapper> mapper_;
  std::unique_ptr<ConnectingGuest> guest_;
  xenstore::MemoryTree tree_;
  std::unique_ptr<xenstore::MemoryStore> store_;
  HeldLoop loop_;
  std::unique_ptr<backend::IoThread> thread_;
  std::unique_ptr<backend::WorkerPool> workers_;
  backend::BusServices services_;
  xenstore::BusAddress bus_;
  xenstore::BusView view_;
  std::unique_ptr<backend::BusControl> control_;
};

// The bus and the entry are made anew while the first one's image is being opened.
TEST_F(BusDevicesTest, WhatWasOpenedIsItsOwnEntrysAndNoOtherOfItsNumber) {
  const std::string first = dir_.File("first", 65536);
  Appear();
  Add(7, "blk", {{"path", first}});
  ASSERT_TRUE(loop_.Await());
  control_->Vanish();
  ASSERT_TRUE(xenstore::RemoveBus(*store_, bus_).ok());
  Appear();
  Add(7, "blk", {{"path", dir_ / "second"}});
  EXPECT_EQ(AwaitAnswer(7),
            absl::StrCat("error path=\"", dir_ / "second", "\": No such file or directory"));
  // Nor is it held.
  Add(8, "blk", {{"path", first}});
  EXPECT_EQ(AwaitAnswer(8), "connected (none)");
}

// A raw disk stays one, whatever its guest has written since.
TEST_F(BusDevicesTest, WhatWasFoundOutStandsWhenAnEntryIsOpenedAgain) {
  const std::string image = dir_.File("disk", 65536);
  Appear();
  Add(7, "blk", {{"path", image}});
  EXPECT_EQ(AwaitAnswer(7), "connected (none)");
  EXPECT_EQ(Node("device/7/type/found/format"), "raw");
  RemoveEntry(7);
  std::ofstream(image, std::ios::in) << "QFI\xfb";
  Add(7, "blk", {{"path", image}});
  EXPECT_THAT(AwaitAnswer(7), ::testing::HasSubstr("qcow2"));
  RemoveEntry(7);
  const Keys keys = {{"path", image}};
  ASSERT_TRUE(
      xenstore::AddDevices(*store_, bus_, {{.number = 7, .type = "blk", .keys = keys}}).ok());
  control_->AddDevice({.number = 7, .type = "blk", .keys = keys, .found = {{"format", "raw"}}});
  EXPECT_EQ(AwaitAnswer(7), "connected (none)");
}

TEST_F(BusDevicesTest, AnEntryIsMadeAnewWhileItIsBeingOpened) {
  const std::string image = dir_.File("disk", 65536);
  Appear();
  Add(7, "blk", {{"path", image}});
  ASSERT_TRUE(loop_.Await());
  RemoveEntry(7);
  Add(7, "blk", {{"path", image}});
  EXPECT_EQ(AwaitAnswer(7), "connected (none)");
}

// What opening made in the file system goes with it.
TEST_F(BusDevicesTest, WhatIsOpenedForABusThatIsGoneIsClosedAsADevice) {
  const std::string link = dir_ / "console";
  Appear();
  Add(7, "console", {{"pty", link}});
  ASSERT_TRUE(loop_.Await());
  ASSERT_TRUE(std::filesystem::is_symlink(link));
  control_->Vanish();
  control_.reset();
  loop_.RunAll();
  workers_.reset();  // all that was submitted has run
  EXPECT_FALSE(std::filesystem::is_symlink(link));
}

// It may name what the session still holds, of an entry that is gone.
class AddedWhileDrainingTest : public BusDevicesTest,
                               public ::testing::WithParamInterface<uint16_t> {};
TEST_P(AddedWhileDrainingTest, AnEntryIsOpenedBehindTheSession) {
  const Keys disk = {{"path", dir_.File("disk", 65536)}};
  Appear();
  Add(0, "blk", disk);
  EXPECT_EQ(AwaitAnswer(0), "connected (none)");
  ASSERT_NO_FATAL_FAILURE(Connect());
  Frontend(XenbusState::kClosing);
  RemoveEntry(0);
  Add(GetParam(), "blk", disk);
  EXPECT_EQ(AwaitAnswer(GetParam()), "connected (none)");
}
INSTANTIATE_TEST_SUITE_P(OfAnotherNumberAndMadeAnew, AddedWhileDrainingTest,
                         ::testing::Values(7, 0));

// An entry that waits for its number's last device is itself removed, or vanishes: it is never
// opened.
class RemovedWhileWaitingTest : public BusDevicesTest,
                                public ::testing::WithParamInterface<bool> {};
TEST_P(RemovedWhileWaitingTest, AnEntryIsNotServedWhenItsTurnComes) {
  Appear();
  Add(0, "blk", {{"path", dir_.File("disk", 65536)}});
  EXPECT_EQ(AwaitAnswer(0), "connected (none)");
  ASSERT_NO_FATAL_FAILURE(Connect());
  Frontend(XenbusState::kClosing);
  RemoveEntry(0);
  const std::string link = dir_ / "console";
  Add(0, "console", {{"pty", link}});
  if (GetParam()) {
    ASSERT_TRUE(xenstore::RequestDeviceRemoval(*store_, bus_, 0, /*force=*/false).ok());
    control_->RemoveDevice(0, /*force=*/false);
    EXPECT_EQ(Node("device/0/type"), "(none)") << "at once: nothing of it is open";
  } else {
    RemoveEntry(0);
  }
  // What is opened behind the session, and then what is opened after that.
  for (const uint16_t number : {1, 2}) {
    Add(number, "rng", {});
    EXPECT_EQ(AwaitAnswer(number), "connected (none)");
  }
  EXPECT_FALSE(std::filesystem::is_symlink(link));
  // The number is free.
  Add(0, "console", {{"pty", link}});
  EXPECT_EQ(AwaitAnswer(0), "connected (none)");
}
INSTANTIATE_TEST_SUITE_P(AskedAndVanished, RemovedWhileWaitingTest, ::testing::Bool());

// vmsgctl says by it whom a removal waits for.
TEST_F(BusDevicesTest, AForcedRemovalSaysThatItWaitsForTheDevice) {
  Appear();
  Add(0, "rng", {});
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_TRUE(xenstore::RequestDeviceRemoval(*store_, bus_, 0, /*force=*/true).ok());
  control_->RemoveDevice(0, /*force=*/true);
  EXPECT_TRUE(loop_.RunUntil([this] { return StatusOf(0) == "draining"; }));
  EXPECT_TRUE(loop_.RunUntil([this] { return Node("device/0/type") == "(none)"; }));
}

TEST_F(BusDevicesTest, TheEndOfABusSaysThatItWaitsForItsDevices) {
  Appear();
  Add(0, "rng", {});
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_TRUE(xenstore::RequestBusRemoval(*store_, bus_, /*force=*/true).ok());
  view_.online = false;
  view_.forced = true;
  control_->Update(view_);
  EXPECT_EQ(StatusOf(0), "draining");
  EXPECT_TRUE(loop_.RunUntil([this] { return Node("state") == "(none)"; }));
}

}  // namespace
}  // namespace vmsg::testing
