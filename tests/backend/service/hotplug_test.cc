// SPDX-License-Identifier: Apache-2.0
// Device entries that come and go while the bus is connected, and before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/service/service_rig.h"

namespace vmsg::testing {
namespace {

using frontend::Deadline;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HotplugTest : public ServiceRig {
 protected:
  void SetUp() override {
    ServiceRig::SetUp();
    guest_ = NewGuest();
    bus_ = Attach(guest_, {0});
  }
  void AddEntry(uint16_t number, const std::string& type,
                absl::btree_map<std::string, std::string> keys = {}) {
    auto added =
        xenstore::AddDevices(*store_, bus_, {{.number = number, .type = type, .keys = keys}});
    ASSERT_TRUE(added.ok()) << added.status();
  }
  void Remove(uint16_t number, bool force) {
    ASSERT_TRUE(xenstore::RequestDeviceRemoval(*store_, bus_, number, force).ok());
  }
  static std::string Node(uint16_t number, const std::string& node) {
    return absl::StrCat("device/", number, "/", node);
  }
  grants::DomainId guest_ = 0;
  xenstore::BusAddress bus_;
};

TEST_F(HotplugTest, UnknownTypeIsRefusedInTheStore) {
  AddEntry(5, "gpu");
  WaitFor(bus_, Node(5, "hotplug-status"), "error");
  EXPECT_THAT(Read(bus_, Node(5, "hotplug-error")), HasSubstr("gpu"));
}

TEST_F(HotplugTest, UnknownKeyIsRefusedInTheStore) {
  AddEntry(5, "rng", {{"colour", "red"}});
  WaitFor(bus_, Node(5, "hotplug-status"), "error");
  EXPECT_THAT(Read(bus_, Node(5, "hotplug-error")), HasSubstr("colour"));
}

TEST_F(HotplugTest, MissingImageIsRefusedInTheStoreAndOthersAreServed) {
  AddEntry(5, "blk", {{"path", "/nonexistent/image"}});
  WaitFor(bus_, Node(5, "hotplug-status"), "error");
  EXPECT_THAT(Read(bus_, Node(5, "hotplug-error")), HasSubstr("/nonexistent/image"));
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto devices = (*connection)->bus().ListDevices(frontend::After(std::chrono::seconds(10)));
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_THAT(*devices, ElementsAre(0));
}

TEST_F(HotplugTest, DeviceAddedWhileConnectedIsThereWhenItsStatusSaysSo) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
  auto devices = (*connection)->bus().ListDevices(frontend::After(std::chrono::seconds(10)));
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_THAT(*devices, ElementsAre(0, 7));
}

TEST_F(HotplugTest, DeviceIsRemovedAndItsEntryGoes) {
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  Remove(7, /*force=*/false);
  WaitFor(bus_, Node(7, "type"), "(none)");
  auto devices = (*connection)->bus().ListDevices(frontend::After(std::chrono::seconds(10)));
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_THAT(*devices, ElementsAre(0));
}

TEST_F(HotplugTest, DeviceOfAnUnconnectedBusIsRemoved) {
  Remove(0, /*force=*/false);
  WaitFor(bus_, Node(0, "type"), "(none)");
}

TEST_F(HotplugTest, RefusedDeviceIsRemoved) {
  AddEntry(5, "gpu");
  WaitFor(bus_, Node(5, "hotplug-status"), "error");
  Remove(5, /*force=*/true);
  WaitFor(bus_, Node(5, "type"), "(none)");
}

TEST_F(HotplugTest, NumberCanBeUsedAgainAndAgain) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  for (int i = 0; i < 20; ++i) {
    AddEntry(7, "rng");
    WaitFor(bus_, Node(7, "hotplug-status"), "connected");
    Remove(7, /*force=*/true);
    WaitFor(bus_, Node(7, "type"), "(none)");
  }
}

TEST_F(HotplugTest, EntryThatVanishesTakesItsDeviceWithIt) {
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(xenstore::RemoveDevice(*store_, bus_, 7).ok());
  // The number is served again once it is gone.
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
}

TEST_F(HotplugTest, ManyDevicesOfOneBusAreAllThere) {
  for (uint16_t number = 1; number < 100; ++number) AddEntry(number, "rng");
  WaitFor(bus_, Node(99, "hotplug-status"), "connected");
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto devices = (*connection)->bus().ListDevices(frontend::After(std::chrono::seconds(10)));
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_EQ(devices->size(), 100u);
}

}  // namespace
}  // namespace vmsg::testing
