// SPDX-License-Identifier: Apache-2.0
// Discovery of device entries.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/memory_store.h"
#include "tests/xenstore/recording_listener.h"
#include "xenstore/bus_offer.h"
#include "xenstore/discovery.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr BusAddress kDevicesBus{5, 0, 2};

class DiscoveryDevicesTest : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(5, "g1");
    absl::StatusOr<std::unique_ptr<BusDiscovery>> discovery =
        BusDiscovery::Start(store_.get(), &listener_, 0);
    ASSERT_TRUE(discovery.ok()) << discovery.status();
    discovery_ = *std::move(discovery);
    ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus, {}).ok());
    Settle();
  }
  std::vector<std::string> Settle() {
    while (true) {
      absl::StatusOr<bool> more = discovery_->Process();
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) return listener_.Take();
    }
  }
  void Add(uint16_t number, const std::string& path = "/a") {
    ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus, {{number, "blk", {{"path", path}}}}).ok());
  }
  std::string Device(const std::string& rest) {
    return kDevicesBus.BackendPath() + "/device/" + rest;
  }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> toolstack_ = tree_.Connect(0);
  RecordingListener listener_;
  std::unique_ptr<BusDiscovery> discovery_;
};

TEST_F(DiscoveryDevicesTest, EntryOfANewBusComesWithIt) {
  ASSERT_TRUE(AddDevices(*toolstack_, {5, 0, 9}, {{3, "rng", {}}}).ok());
  EXPECT_THAT(Settle(), ElementsAre("appeared 5/9 front 1 ours 1", "device 5/9 3 rng{}"));
}

TEST_F(DiscoveryDevicesTest, EntryAddedLaterIsReportedWithItsKeys) {
  Add(7);
  EXPECT_THAT(Settle(), ElementsAre("device 5/2 7 blk{path=/a}"));
}

TEST_F(DiscoveryDevicesTest, EntryWithoutTypeIsNotOneYet) {
  tree_.Set(Device("7/path"), "/a");
  EXPECT_THAT(Settle(), IsEmpty());
  tree_.Set(Device("7/type"), "blk");
  EXPECT_THAT(Settle(), ElementsAre("device 5/2 7 blk{path=/a}"));
}

TEST_F(DiscoveryDevicesTest, OurOwnAnswerIsNoChange) {
  Add(7);
  Settle();
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "7", absl::OkStatus()).ok());
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(DiscoveryDevicesTest, RemovalIsReportedOnceAndForceAfterwards) {
  Add(7);
  Settle();
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, false).ok());
  EXPECT_THAT(Settle(), ElementsAre("remove 5/2 7"));
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, false).ok());
  EXPECT_THAT(Settle(), IsEmpty());
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, true).ok());
  EXPECT_THAT(Settle(), ElementsAre("remove 5/2 7 force"));
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, true).ok());
  EXPECT_THAT(Settle(), IsEmpty());
  ASSERT_TRUE(RemoveEntry(*store_, {kDevicesBus, 7, ""}).ok());
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7"));
}

TEST_F(DiscoveryDevicesTest, ForcedAtOnceIsOneReport) {
  Add(7);
  Settle();
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, true).ok());
  EXPECT_THAT(Settle(), ElementsAre("remove 5/2 7 force"));
}

TEST_F(DiscoveryDevicesTest, WholeDeviceDirectoryRemoved) {
  Add(7);
  Add(8);
  Settle();
  tree_.Erase(kDevicesBus.BackendPath() + "/device");
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device vanished 5/2 8"));
}

TEST_F(DiscoveryDevicesTest, VanishedBusDoesNotReportItsDevices) {
  Add(7);
  Settle();
  tree_.Erase(kDevicesBus.BackendPath());
  EXPECT_THAT(Settle(), ElementsAre("vanished 5/2"));
}

TEST_F(DiscoveryDevicesTest, RemovedAndAttachedAgainBeforeWeLookedIsANewEntry) {
  Add(7);
  Settle();
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, false).ok());
  Settle();
  ASSERT_TRUE(RemoveEntry(*store_, {kDevicesBus, 7, ""}).ok());
  Add(7, "/b");
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device 5/2 7 blk{path=/b}"));
}

TEST_F(DiscoveryDevicesTest, RefusedByUsAndAttachedAgainBeforeWeLookedIsANewEntry) {
  Add(7);
  Settle();
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "7", absl::InvalidArgumentError("no file")).ok());
  Settle();
  ASSERT_TRUE(RemoveEntry(*toolstack_, {kDevicesBus, 7, ""}).ok());
  Add(7);
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device 5/2 7 blk{path=/a}"));
}

TEST_F(DiscoveryDevicesTest, AnsweredRemovedAndAttachedAgainInOneGoIsANewEntry) {
  Add(7);
  Settle();
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "7", absl::InvalidArgumentError("no file")).ok());
  ASSERT_TRUE(RemoveEntry(*toolstack_, {kDevicesBus, 7, ""}).ok());
  Add(7);
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device 5/2 7 blk{path=/a}"));
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(DiscoveryDevicesTest, UnansweredRemovedAndAttachedAgainInOneGoIsANewEntryByItsId) {
  const auto add = [this](const std::string& path, const std::string& id) {
    ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus,
                           {{.number = 7, .type = "blk", .keys = {{"path", path}}, .id = id}})
                    .ok());
  };
  add("/a", "one");
  Settle();
  ASSERT_TRUE(RemoveEntry(*toolstack_, {kDevicesBus, 7, "one"}).ok());
  add("/b", "two");
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device 5/2 7 blk{path=/b}"));
  EXPECT_THAT(Settle(), IsEmpty());
}

// Between a look at an entry and what follows from it, it may be detached and another one attached
// under its number.
TEST_F(DiscoveryDevicesTest, WhatIsMeantForOneEntryIsNotDoneToAnotherOfItsNumber) {
  ASSERT_TRUE(
      AddDevices(*toolstack_, kDevicesBus, {{.number = 7, .type = "rng", .keys = {}, .id = "two"}})
          .ok());
  const EntryAddress gone{kDevicesBus, 7, "one"};
  EXPECT_TRUE(absl::IsNotFound(RequestEntryRemoval(*toolstack_, gone, true)));
  const auto before = tree_.nodes();
  EXPECT_TRUE(absl::IsNotFound(ReportDevice(*store_, gone, absl::OkStatus())));
  EXPECT_TRUE(absl::IsNotFound(ReportDevice(*store_, gone, absl::InvalidArgumentError("no"))));
  EXPECT_TRUE(absl::IsNotFound(ReportIoErrors(*store_, gone, 3, "read")));
  EXPECT_TRUE(absl::IsNotFound(NoteFoundKeys(*store_, gone, {{"format", "raw"}})));
  EXPECT_TRUE(absl::IsNotFound(RemoveEntry(*toolstack_, gone)));
  ASSERT_EQ(RequestDeviceRemoval(*toolstack_, kDevicesBus, 7, false)->id, "two");
  EXPECT_TRUE(absl::IsNotFound(ReportRemoval(*store_, gone, kStatusAsked)));
  EXPECT_TRUE(absl::IsNotFound(RemoveLeavingEntry(*store_, gone)));
  EXPECT_EQ(tree_.Value(Device("7/type")), "rng");
  EXPECT_FALSE(tree_.Has(Device("7/hotplug-status")));
  EXPECT_EQ(tree_.nodes().size(), before.size());
}

// An older backend takes every name that it does not know for a parameter, and refuses it.
TEST_F(DiscoveryDevicesTest, NotesOfAnEntryAreNoNamesBesideItsParameters) {
  ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus,
                         {{.number = 7,
                           .type = "blk",
                           .keys = {{"path", "/a"}},
                           .from_config = "/etc/xen/g1.cfg",
                           .id = "one"}})
                  .ok());
  const EntryAddress entry{kDevicesBus, 7, "one"};
  ASSERT_TRUE(NoteFoundKeys(*store_, entry, {{"format", "raw"}}).ok());
  ASSERT_TRUE(ReportIoErrors(*store_, entry, 3, "read").ok());
  ASSERT_TRUE(ReportDevice(*store_, entry, absl::OkStatus()).ok());
  EXPECT_THAT(*store_->List(entry.Path()),
              testing::UnorderedElementsAre("path", "online", "type", "hotplug-status"));
}

TEST_F(DiscoveryDevicesTest, WhatWasRefusedIsTriedAgainWhenAskedAndTheOthersAreNotTouched) {
  DeviceNodesToWrite many{9, "blk", {}};
  for (size_t i = 0; i <= kMaxKeysPerDevice; ++i) many.keys.emplace("k" + std::to_string(i), "v");
  ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus, {many}).ok());
  for (const uint16_t number : {5, 6, 7, 8}) Add(number);
  Settle();
  const absl::Status refusal = absl::InvalidArgumentError("no file");
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "5", absl::OkStatus()).ok());
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "7", refusal).ok());
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "8", refusal).ok());
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "9", refusal).ok());
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kDevicesBus, 8, false).ok());
  Settle();
  EXPECT_EQ(discovery_->TryRefusedAgain(), 2u);
  EXPECT_FALSE(tree_.Has(Device("7/hotplug-error")));
  EXPECT_THAT(Settle(), ElementsAre("device vanished 5/2 7", "device 5/2 7 blk{path=/a}",
                                    "device refused 5/2 9"));
  EXPECT_EQ(tree_.Value(Device("5/hotplug-status")), "connected");
  EXPECT_EQ(tree_.Value(Device("8/hotplug-status")), "error");
  EXPECT_EQ(discovery_->TryRefusedAgain(), 0u);
}

TEST_F(DiscoveryDevicesTest, PredecessorsAnswerIsHandedOn) {
  discovery_.reset();
  Add(7);
  ASSERT_TRUE(ReportDevice(*store_, kDevicesBus, "7", absl::OkStatus()).ok());
  discovery_ = *BusDiscovery::Start(store_.get(), &listener_, 0);
  EXPECT_THAT(Settle(),
              ElementsAre("appeared 5/2 front 1 ours 1", "device 5/2 7 blk{path=/a}connected"));
}

TEST_F(DiscoveryDevicesTest, NamesThatAreNoNumberAreRefusedOnceThoughTheyAreAnswered) {
  listener_.on_device = [&](const BusAddress& bus, const std::string& name) {
    ReportDevice(*store_, bus, name, absl::InvalidArgumentError("bad number")).IgnoreError();
  };
  for (const char* name : {"x", "-1", "65536", "01", "4294967303"}) {
    tree_.Set(Device(std::string(name) + "/type"), "blk");
  }
  EXPECT_THAT(Settle(),
              testing::UnorderedElementsAre("device refused 5/2 x", "device refused 5/2 -1",
                                            "device refused 5/2 65536", "device refused 5/2 01",
                                            "device refused 5/2 4294967303"));
  EXPECT_THAT(listener_.reasons[0], HasSubstr("the device number"));
  EXPECT_THAT(Settle(), IsEmpty());
  EXPECT_EQ(tree_.Value(Device("x/hotplug-status")), "error");
}

TEST_F(DiscoveryDevicesTest, NoMoreRefusalsAreRememberedThanThereIsRoomFor) {
  for (int i = 0; i < 300; ++i) tree_.Set(Device("x" + std::to_string(i) + "/type"), "blk");
  EXPECT_EQ(Settle().size(), kMaxRefusedNames);
}

TEST_F(DiscoveryDevicesTest, DevicesPerBusAreCapped) {
  std::vector<DeviceNodesToWrite> devices;
  for (uint32_t n = 0; n <= kMaxDevicesPerBus; ++n) {
    devices.push_back({static_cast<uint16_t>(n), "rng", {}});
  }
  ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus, devices).ok());
  std::vector<std::string> lines = Settle();
  ASSERT_EQ(lines.size(), kMaxDevicesPerBus + 1);
  int refused = 0;
  for (const std::string& line : lines) refused += line.starts_with("device refused");
  EXPECT_EQ(refused, 1);
  EXPECT_THAT(listener_.reasons.back(), HasSubstr("256 devices already"));
}

TEST_F(DiscoveryDevicesTest, KeysPerDeviceAreCappedAndACorrectedEntryIsTaken) {
  listener_.on_device = [&](const BusAddress& bus, const std::string& name) {
    ReportDevice(*store_, bus, name, absl::InvalidArgumentError("too many")).IgnoreError();
  };
  DeviceNodesToWrite device{7, "blk", {}};
  for (size_t i = 0; i <= kMaxKeysPerDevice; ++i) device.keys.emplace("k" + std::to_string(i), "v");
  ASSERT_TRUE(AddDevices(*toolstack_, kDevicesBus, {device}).ok());
  EXPECT_THAT(Settle(), ElementsAre("device refused 5/2 7"));
  ASSERT_TRUE(RemoveEntry(*toolstack_, {kDevicesBus, 7, ""}).ok());
  Add(7);
  EXPECT_THAT(Settle(), ElementsAre("device 5/2 7 blk{path=/a}"));
}

// What one backend found out when it opened the entry, the next one knows; it is no key of the
// entry's.
TEST_F(DiscoveryDevicesTest, WhatWasFoundOutComesWithTheEntry) {
  Add(7);
  ASSERT_TRUE(NoteFoundKeys(*store_, {kDevicesBus, 7, ""}, {{"format", "raw"}}).ok());
  EXPECT_THAT(Settle(), ElementsAre("device 5/2 7 blk{path=/a} found{format=raw}"));
  EXPECT_EQ(tree_.Value(Device("7/type/found/format")), "raw");
  ASSERT_TRUE(RemoveEntry(*toolstack_, {kDevicesBus, 7, ""}).ok());
  Add(7);
  Settle();
  EXPECT_FALSE(tree_.Has(Device("7/type/found/format")));
  EXPECT_TRUE(absl::IsNotFound(NoteFoundKeys(*store_, {kDevicesBus, 8, ""}, {{"format", "raw"}})));
  EXPECT_FALSE(tree_.Has(Device("8/type/found/format")));
}

}  // namespace
}  // namespace vmsg::xenstore
