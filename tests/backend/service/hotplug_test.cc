// SPDX-License-Identifier: Apache-2.0
// Device entries that come and go while the bus is connected, and before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>

#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/transport/device_client.h"
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
  // A driver that has the device, status ACKNOWLEDGE and more.
  static std::unique_ptr<frontend::DeviceClient> Use(frontend::BusConnection& connection,
                                                     uint16_t number) {
    auto client = frontend::DeviceClient::Probe(connection.bus(), connection.memory(), number);
    EXPECT_TRUE(client.ok()) << client.status();
    if (!client.ok()) return nullptr;
    auto features = (*client)->Negotiate(0);
    EXPECT_TRUE(features.ok()) << features.status();
    return *std::move(client);
  }
  static std::string Node(uint16_t number, const std::string& node) {
    return absl::StrCat("device/", number, "/", node);
  }
  // The path of an image of 64 KiB that device 5 has, connected.
  std::string AddImage(const std::string& name) {
    const std::string path =
        absl::StrCat(::testing::TempDir(), "/vmsg-", name, "-", getpid(), ".img");
    std::ofstream(path).close();
    EXPECT_EQ(truncate(path.c_str(), 65536), 0);
    AddEntry(5, "blk", {{"path", path}});
    WaitFor(bus_, Node(5, "hotplug-status"), "connected");
    return path;
  }
  // A driver of device 5 does `use` with what reads 4 KiB at 32 KiB.
  void DriveDisk(const std::function<void(const std::function<absl::Status()>& read)>& use) {
    auto connection = Connect(guest_);
    ASSERT_TRUE(connection.ok()) << connection.status();
    auto client = frontend::DeviceClient::Probe((*connection)->bus(), (*connection)->memory(), 5);
    ASSERT_TRUE(client.ok()) << client.status();
    auto disk = frontend::BlkDriver::Create(*std::move(client));
    ASSERT_TRUE(disk.ok()) << disk.status();
    auto block = (*connection)->memory().Allocate(4096, 4096);
    ASSERT_TRUE(block.ok()) << block.status();
    use([&] {
      return (*disk)->Read(32768, block->address(), 4096,
                           frontend::After(std::chrono::seconds(20)));
    });
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
  ASSERT_TRUE(xenstore::RemoveEntry(*store_, {bus_, 7, ""}).ok());
  // The number is served again once it is gone.
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
}

TEST_F(HotplugTest, RemovalOfABusAsksDriversThatAreAtWork) {
  AddEntry(7, "rng");
  WaitFor(bus_, Node(7, "hotplug-status"), "connected");
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto driver = Use(**connection, 0);
  ASSERT_NE(driver, nullptr);
  ASSERT_TRUE(xenstore::RequestBusRemoval(*store_, bus_).ok());
  // The one that nobody uses goes; for the other one the driver is waited for, and works.
  WaitFor(bus_, Node(7, "type"), "(none)");
  WaitFor(bus_, Node(0, "hotplug-status"), "asked");
  EXPECT_EQ(Read(bus_, "state"), "4");
  EXPECT_TRUE((*connection)->bus().Ping(1, frontend::After(std::chrono::seconds(10))).ok());
  EXPECT_TRUE(driver->removal_requested());
  driver->Reset().IgnoreError();  // the bus may end before it is confirmed
  WaitFor(bus_, "state", "(none)");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
}

TEST_F(HotplugTest, ForcedRemovalOfABusDoesNotAsk) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto driver = Use(**connection, 0);
  ASSERT_NE(driver, nullptr);
  ASSERT_TRUE(xenstore::RequestBusRemoval(*store_, bus_).ok());
  WaitFor(bus_, Node(0, "hotplug-status"), "asked");
  ASSERT_TRUE(xenstore::RequestBusRemoval(*store_, bus_, /*force=*/true).ok());
  WaitFor(bus_, "state", "(none)");
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

// Where the administrator looks; a disk that fails is silent otherwise.
TEST_F(HotplugTest, DiskErrorsStandInTheEntryUntilItIsOpenedAnew) {
  const std::string path = AddImage("io-errors");
  EXPECT_EQ(Read(bus_, Node(5, "type/io-errors")), "(none)");
  DriveDisk([&](const std::function<absl::Status()>& read) {
    EXPECT_TRUE(read().ok());
    ASSERT_EQ(truncate(path.c_str(), 4096), 0);
    EXPECT_FALSE(read().ok());
    WaitFor(bus_, Node(5, "type/io-errors"), "1");
    EXPECT_EQ(Read(bus_, Node(5, "type/io-error")),
              "read of 4096 bytes at 32768: the file ends before");
  });
  StopService();
  ASSERT_EQ(truncate(path.c_str(), 65536), 0);
  StartService();
  WaitFor(bus_, Node(5, "type/io-errors"), "(none)");
  WaitFor(bus_, Node(5, "type/io-error"), "(none)");
  std::remove(path.c_str());
}

// A look at an image's errors that is due when its number is another's by then.
TEST_F(HotplugTest, TheErrorsOfADeviceThatIsGoneAreNotThoseOfTheNextOfItsNumber) {
  StopService();
  hold_timers_ = true;
  service_options_.domain_check_interval = absl::ZeroDuration();
  StartService();
  const std::string path = AddImage("again");
  DriveDisk([&](const std::function<absl::Status()>& read) {
    ASSERT_EQ(truncate(path.c_str(), 4096), 0);
    EXPECT_FALSE(read().ok());
    WaitFor(bus_, Node(5, "type/io-errors"), "1");
    EXPECT_FALSE(read().ok());
  });
  ASSERT_TRUE(xenstore::RemoveEntry(*store_, {bus_, 5, ""}).ok());
  ASSERT_EQ(truncate(path.c_str(), 65536), 0);
  AddEntry(5, "blk", {{"path", path}});
  WaitFor(bus_, Node(5, "hotplug-status"), "connected");
  EXPECT_EQ(RunHeldTimers(), 1u) << "the next look at the first one's errors";
  AwaitQuiet();
  EXPECT_EQ(Read(bus_, Node(5, "type/io-errors")), "(none)");
  std::remove(path.c_str());
}

// Replaced or cut while no vmsgd had it: served, but not without a word.
TEST_F(HotplugTest, AnImageThatIsAnotherThanTheLastTimeIsAWarning) {
  const std::string path = AddImage("seen");
  const std::string first = Read(bus_, Node(5, "type/opened-as"));
  EXPECT_THAT(first, ::testing::EndsWith(" of 65536 bytes"));
  // What the next vmsgd warns of until it answers the entry, whose image `change` has changed.
  const auto restart = [&](const std::function<void()>& change) {
    StopService();
    change();
    EXPECT_TRUE(
        store_->Remove(absl::StrCat(bus_.BackendPath(), "/", Node(5, "hotplug-status"))).ok());
    ::testing::internal::CaptureStderr();
    backend::SetLogging(backend::LogLevel::kWarning, backend::LogStyle::kPlain);
    StartService();
    WaitFor(bus_, Node(5, "hotplug-status"), "connected");
    return ::testing::internal::GetCapturedStderr();
  };
  const auto nothing = [] {};
  EXPECT_EQ(restart(nothing), "") << "the same";
  std::string cut = first;
  cut.replace(cut.find(" of 65536"), std::string::npos, " of 4096 bytes");
  const auto shorten = [&] { ASSERT_EQ(truncate(path.c_str(), 4096), 0); };
  EXPECT_THAT(restart(shorten),
              ::testing::HasSubstr(absl::StrCat("device 5: its image was a ", first,
                                                " when it was opened before, and is "
                                                "a ",
                                                cut, " now")));
  EXPECT_EQ(restart(nothing), "") << "said once";
  // Of the same size, and on many file systems of the same number.
  const auto replace = [&] {
    ASSERT_EQ(std::remove(path.c_str()), 0);
    std::ofstream(path).close();
    ASSERT_EQ(truncate(path.c_str(), 4096), 0);
  };
  EXPECT_THAT(restart(replace), ::testing::HasSubstr("device 5: its image was a "));
  std::remove(path.c_str());
}

}  // namespace
}  // namespace vmsg::testing
