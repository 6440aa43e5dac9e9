// SPDX-License-Identifier: Apache-2.0
#include "xenstore/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/memory_store.h"
#include "tests/xenstore/recording_listener.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr BusAddress kFoundBus{5, 0, 2};

class DiscoveryTest : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(5, "g1");
    Start();
  }
  void Start() {
    absl::StatusOr<std::unique_ptr<BusDiscovery>> discovery =
        BusDiscovery::Start(store_.get(), &listener_, 0);
    ASSERT_TRUE(discovery.ok()) << discovery.status();
    discovery_ = *std::move(discovery);
  }
  // What is reported until nothing is left to look at.
  std::vector<std::string> Settle() {
    while (true) {
      absl::StatusOr<bool> more = discovery_->Process();
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) return listener_.Take();
    }
  }
  void CreateBus(const BusAddress& bus = kFoundBus) {
    absl::StatusOr<DeviceCreation> created = AddDevices(*toolstack_, bus, {});
    ASSERT_TRUE(created.ok()) << created.status();
  }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> toolstack_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> guest_ = tree_.Connect(5);
  RecordingListener listener_;
  std::unique_ptr<BusDiscovery> discovery_;
};

TEST_F(DiscoveryTest, NewDirectoryIsReportedInOneCall) {
  EXPECT_THAT(Settle(), IsEmpty());
  CreateBus();
  ASSERT_TRUE(discovery_->Process().ok());
  EXPECT_THAT(listener_.Take(), ElementsAre("appeared 5/2 front 1 ours 1"));
}

TEST_F(DiscoveryTest, WhatExistedBeforeIsReported) {
  discovery_.reset();
  CreateBus();
  tree_.Set(kFoundBus.FrontendPath() + "/state", "4");
  tree_.Set(kFoundBus.BackendPath() + "/state", "4");
  Start();
  EXPECT_THAT(Settle(), ElementsAre("appeared 5/2 front 4 ours 4"));
}

TEST_F(DiscoveryTest, DirectoryRemovedByAnybodyIsReportedAsVanished) {
  CreateBus();
  Settle();
  tree_.Erase(kFoundBus.BackendPath());
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/2"));
  CreateBus({5, 0, 3});
  CreateBus();
  Settle();
  tree_.Erase("/local/domain/0/backend/virtio-msg/5");
  EXPECT_THAT(Settle(), testing::UnorderedElementsAre("vanished 5/2", "vanished 5/3"));
  CreateBus();
  Settle();
  tree_.Erase("/local/domain/0/backend");
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/2"));
}

TEST_F(DiscoveryTest, FrontendStateIsReportedWhenItDiffers) {
  CreateBus();
  Settle();
  ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/state", "4").ok());
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 4 ours 1"));
  ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/state", "4").ok());
  EXPECT_THAT(Settle(), IsEmpty());
}

// It may have been elsewhere in between, and stand for another request.
TEST_F(DiscoveryTest, State3IsReportedEachTimeItIsWritten) {
  CreateBus();
  Settle();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/state", "3").ok());
    EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 3 ours 1"));
  }
}

TEST_F(DiscoveryTest, VanishedFrontendStateIsReportedAsGoneAndMayComeBack) {
  CreateBus();
  Settle();
  ASSERT_TRUE(guest_->Remove(kFoundBus.FrontendPath() + "/state").ok());
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front gone ours 1"));
  ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/state", "1").ok());
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 1 ours 1"));
}

// Whoever removed it, the toolstack that destroyed the guest or the guest itself: a driver domain
// could not tell, and only the toolstack makes such a directory.
TEST_F(DiscoveryTest, VanishedFrontendDirectoryEndsTheBus) {
  CreateBus();
  Settle();
  ASSERT_TRUE(guest_->Remove(kFoundBus.FrontendPath() + "/state").ok());
  Settle();
  ASSERT_TRUE(guest_->Remove(kFoundBus.FrontendPath()).ok());
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front gone ours 1 offline"));
}

TEST_F(DiscoveryTest, DriverDomainLearnsOfAGuestsEndFromItsNodes) {
  tree_.CreateDomain(3, "driver");
  auto store = tree_.Connect(3);
  RecordingListener listener;
  // MemoryStore refuses a driver domain's watch for @releaseDomain; xenstored just never fires it.
  auto discovery = BusDiscovery::Start(store.get(), &listener, 3);
  ASSERT_TRUE(discovery.ok()) << discovery.status();
  const auto settle = [&] {
    while (*(*discovery)->Process()) {
    }
    return listener.Take();
  };
  const BusAddress bus{5, 3, 0};
  CreateBus(bus);
  EXPECT_THAT(settle(), ElementsAre("appeared 5/0 front 1 ours 1"));
  tree_.DestroyDomain(5);
  EXPECT_THAT(settle(), ElementsAre("changed 5/0 front gone ours 1 offline"));
  // The directory is its own to remove, and so is the one above.
  EXPECT_EQ(WriteState(*store, bus.BackendPath(), XenbusState::kClosed), absl::OkStatus());
  EXPECT_EQ(RemoveBackendDirectory(*store, bus), absl::OkStatus());
  EXPECT_FALSE(tree_.Has("/local/domain/3/backend/virtio-msg/5"));
  EXPECT_THAT(settle(), ElementsAre("vanished 5/0"));
}

TEST_F(DiscoveryTest, DomainThatSomebodySaysIsGoneEndsItsBusesOnly) {
  tree_.CreateDomain(6, "g2");
  CreateBus();
  CreateBus({6, 0, 0});
  Settle();
  discovery_->EndDomain(5);
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 1 ours 1 offline"));
  discovery_->EndDomain(5);
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(DiscoveryTest, FrontendStateThatIsNoneIsUnknown) {
  CreateBus();
  Settle();
  for (const std::string& value :
       {std::string(), std::string("-4"), std::string("9"), std::string(4000, '4'),
        std::string("4\0", 2), std::string("Connected")}) {
    tree_.Set(kFoundBus.FrontendPath() + "/state", value);
    EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 0 ours 1")) << value;
    tree_.Set(kFoundBus.FrontendPath() + "/state", "4");
    EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 4 ours 1"));
  }
}

TEST_F(DiscoveryTest, OnlineZeroIsReported) {
  CreateBus();
  Settle();
  ASSERT_TRUE(RequestBusRemoval(*toolstack_, kFoundBus).ok());
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 1 ours 1 offline"));
}

TEST_F(DiscoveryTest, DestroyedGuestIsReportedAsGoneAndNotWanted) {
  CreateBus();
  Settle();
  tree_.DestroyDomain(5);
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front gone ours 1 offline"));
}

TEST_F(DiscoveryTest, DirectoryThatOutlivedItsGuestIsNotWanted) {
  discovery_.reset();
  CreateBus();
  tree_.DestroyDomain(5);
  Start();
  EXPECT_THAT(Settle(), ElementsAre("appeared 5/2 front gone ours 1 offline"));
}

TEST_F(DiscoveryTest, BusMadeAnewBeforeWeLookedIsANewBus) {
  CreateBus();
  Settle();
  ASSERT_TRUE(RequestBusRemoval(*toolstack_, kFoundBus).ok());
  Settle();
  ASSERT_TRUE(RemoveBus(*toolstack_, kFoundBus).ok());
  CreateBus();
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/2", "appeared 5/2 front 1 ours 1"));
}

TEST_F(DiscoveryTest, IdsComeFromThePathNotFromNodes) {
  CreateBus();
  tree_.Set(kFoundBus.BackendPath() + "/frontend-id", "0");
  tree_.Set(kFoundBus.BackendPath() + "/frontend", "/local/domain/0/device/virtio-msg/0");
  tree_.Set("/local/domain/0/device/virtio-msg/0/state", "4");
  EXPECT_THAT(Settle(), ElementsAre("appeared 5/2 front 1 ours 1"));
}

TEST_F(DiscoveryTest, DirectoriesThatAreNoBusAreRefusedOnce) {
  const std::string root = "/local/domain/0/backend/virtio-msg";
  for (const char* bad : {"/x/0/state", "/-1/0/state", "/32752/0/state", "/05/0/state",
                          "/5/x/state", "/5/-1/state", "/5/4294967296/state", "/5/00/state"}) {
    tree_.Set(root + bad, "1");
  }
  EXPECT_THAT(
      Settle(),
      testing::UnorderedElementsAre(
          "bus refused backend/virtio-msg/x", "bus refused backend/virtio-msg/-1",
          "bus refused backend/virtio-msg/32752", "bus refused backend/virtio-msg/05",
          "bus refused backend/virtio-msg/5/x", "bus refused backend/virtio-msg/5/-1",
          "bus refused backend/virtio-msg/5/4294967296", "bus refused backend/virtio-msg/5/00"));
  tree_.Set(root + "/x/1/state", "1");
  tree_.Set(root + "/5/x/online", "1");
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(DiscoveryTest, NoMoreRefusalsAreRememberedThanThereIsRoomFor) {
  for (int i = 0; i < 300; ++i) {
    tree_.Set("/local/domain/0/backend/virtio-msg/x" + std::to_string(i) + "/0/state", "1");
  }
  EXPECT_EQ(Settle().size(), kMaxRefusedNames);
}

TEST_F(DiscoveryTest, BusesPerFrontendAreCappedAndAFreedPlaceIsTaken) {
  for (uint32_t id = 0; id <= kMaxBusesPerFrontend; ++id) CreateBus({5, 0, id});
  std::vector<std::string> lines = Settle();
  ASSERT_EQ(lines.size(), kMaxBusesPerFrontend + 1);
  EXPECT_EQ(lines.back(), "bus refused backend/virtio-msg/5/16");
  EXPECT_THAT(listener_.reasons.back(), HasSubstr("16 buses already"));
  // Another guest is not concerned.
  tree_.CreateDomain(6, "g2");
  CreateBus({6, 0, 0});
  EXPECT_THAT(Settle(), ElementsAre("appeared 6/0 front 1 ours 1"));
  tree_.Erase(BusAddress{5, 0, 3}.BackendPath());
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/3", "appeared 5/16 front 1 ours 1"));
}

TEST_F(DiscoveryTest, WatchQuotaRefusesTheBus) {
  store_->watch_quota_reached = true;
  CreateBus();
  EXPECT_THAT(Settle(), ElementsAre("bus refused backend/virtio-msg/5/2"));
  EXPECT_THAT(listener_.reasons.back(), HasSubstr("--watch-nb"));
  EXPECT_EQ(discovery_->bus_count(), 0u);
}

TEST_F(DiscoveryTest, RoomForAWatchIsUsedByWhoeverWasRefused) {
  tree_.CreateDomain(6, "g2");
  CreateBus();
  Settle();
  store_->watch_quota_reached = true;
  CreateBus({6, 0, 0});
  EXPECT_THAT(Settle(), ElementsAre("bus refused backend/virtio-msg/6/0"));
  store_->watch_quota_reached = false;
  tree_.Erase(kFoundBus.BackendPath());
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/2", "appeared 6/0 front 1 ours 1"));
}

TEST_F(DiscoveryTest, FloodOfStateChangesIsOneLookAndOneReport) {
  CreateBus();
  Settle();
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/state", i % 2 ? "3" : "2").ok());
  }
  const uint64_t before = tree_.operations();
  EXPECT_THAT(Settle(), ElementsAre("changed 5/2 front 3 ours 1"));
  EXPECT_LE(tree_.operations() - before, 2u);
}

TEST_F(DiscoveryTest, OtherNodesOfTheGuestCostNothing) {
  CreateBus();
  Settle();
  Settle();  // the first event that every new watch delivers
  const uint64_t before = tree_.operations();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(guest_->Write(kFoundBus.FrontendPath() + "/ring-ref", std::to_string(i)).ok());
  }
  const uint64_t guests_own = tree_.operations() - before;
  EXPECT_THAT(Settle(), IsEmpty());
  EXPECT_EQ(tree_.operations() - before, guests_own);
}

TEST_F(DiscoveryTest, OneCallLooksAtABoundedNumberOfBuses) {
  constexpr int kGuests = 200;
  for (uint16_t domain = 100; domain < 100 + kGuests; ++domain) {
    tree_.CreateDomain(domain, "g");
    CreateBus({domain, 0, 0});
  }
  size_t most = 0, total = 0;
  while (true) {
    absl::StatusOr<bool> more = discovery_->Process();
    ASSERT_TRUE(more.ok());
    const size_t reported = listener_.Take().size();
    most = std::max(most, reported);
    total += reported;
    if (!*more) break;
  }
  EXPECT_EQ(total, static_cast<size_t>(kGuests));
  EXPECT_LE(most, 32u);
  // Also when all are known.
  for (uint16_t domain = 100; domain < 100 + kGuests; ++domain) {
    tree_.Set(BusAddress{domain, 0, 0}.FrontendPath() + "/state", "3");
  }
  ASSERT_TRUE(discovery_->Process().ok());
  EXPECT_EQ(listener_.Take().size(), 32u);
}

TEST_F(DiscoveryTest, FloodingGuestDoesNotHideTheOthers) {
  std::vector<std::string> paths;
  for (uint16_t domain = 100; domain < 200; ++domain) {
    tree_.CreateDomain(domain, "g");
    CreateBus({domain, 0, 0});
  }
  Settle();
  tree_.Set(BusAddress{199, 0, 0}.FrontendPath() + "/state", "3");
  // All others change in every turn.
  bool seen = false;
  for (int turn = 0; turn < 10 && !seen; ++turn) {
    for (uint16_t domain = 100; domain < 199; ++domain) {
      tree_.Set(BusAddress{domain, 0, 0}.FrontendPath() + "/state", turn % 2 ? "1" : "2");
    }
    ASSERT_TRUE(discovery_->Process().ok());
    for (const std::string& line : listener_.Take())
      seen = seen || line.starts_with("changed 199/");
  }
  EXPECT_TRUE(seen);
}

TEST_F(DiscoveryTest, LostStoreIsAnError) {
  CreateBus();
  Settle();
  tree_.LoseConnections();
  EXPECT_TRUE(absl::IsUnavailable(discovery_->Process().status()));
}

TEST_F(DiscoveryTest, LeavesNoWatchBehind) {
  CreateBus();
  Settle();
  EXPECT_EQ(tree_.watch_count(), 3u);
  tree_.Erase(kFoundBus.BackendPath());
  Settle();
  EXPECT_EQ(tree_.watch_count(), 2u);
  CreateBus();
  Settle();
  discovery_.reset();
  EXPECT_EQ(tree_.watch_count(), 0u);
}

TEST_F(DiscoveryTest, DriverDomainServesWithoutDomainEvents) {
  tree_.CreateDomain(3, "driver");
  std::unique_ptr<MemoryStore> driver = tree_.Connect(3);
  RecordingListener listener;
  absl::StatusOr<std::unique_ptr<BusDiscovery>> discovery =
      BusDiscovery::Start(driver.get(), &listener, 3);
  ASSERT_TRUE(discovery.ok()) << discovery.status();
  CreateBus({5, 3, 0});
  ASSERT_TRUE((*discovery)->Process().ok());
  EXPECT_THAT(listener.Take(), ElementsAre("appeared 5/0 front 1 ours 1"));
  // Dom0's buses are none of its own, and the other way round.
  EXPECT_THAT(Settle(), IsEmpty());
}

}  // namespace
}  // namespace vmsg::xenstore
