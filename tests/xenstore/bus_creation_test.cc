// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/bus_creation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/xenstore/memory_store.h"
#include "xenstore/bus_offer.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr BusAddress kBus{5, 3, 2};
constexpr char kFront[] = "/local/domain/5/device/virtio-msg/2";
constexpr char kBack[] = "/local/domain/3/backend/virtio-msg/5/2";

class BusCreationTest : public testing::Test {
 protected:
  void SetUp() override {
    tree_.CreateDomain(3, "driver");
    tree_.CreateDomain(5, "g1");
  }
  absl::StatusOr<DeviceCreation> AddBlk(uint16_t number) {
    return AddDevices(*toolstack_, kBus, {{number, "blk", {{"path", "/srv/g1.img"}}}});
  }
  std::string Back(const std::string& node) { return std::string(kBack) + "/" + node; }
  std::string Front(const std::string& node) { return std::string(kFront) + "/" + node; }

  MemoryTree tree_;
  std::unique_ptr<MemoryStore> toolstack_ = tree_.Connect(0);
  std::unique_ptr<MemoryStore> backend_ = tree_.Connect(3);
  std::unique_ptr<MemoryStore> frontend_ = tree_.Connect(5);
};

TEST_F(BusCreationTest, WritesTheNodesOfTheBinding) {
  absl::StatusOr<DeviceCreation> creation = AddBlk(7);
  ASSERT_TRUE(creation.ok()) << creation.status();
  EXPECT_TRUE(creation->created_bus);
  EXPECT_THAT(creation->numbers, ElementsAre(7));
  EXPECT_EQ(tree_.Value(Front("backend")), kBack);
  EXPECT_EQ(tree_.Value(Front("backend-id")), "3");
  EXPECT_EQ(tree_.Value(Front("state")), "1");
  EXPECT_EQ(tree_.Value(Back("frontend")), kFront);
  EXPECT_EQ(tree_.Value(Back("frontend-id")), "5");
  EXPECT_EQ(tree_.Value(Back("online")), "1");
  EXPECT_EQ(tree_.Value(Back("state")), "1");
  EXPECT_EQ(tree_.Value(Back("device/7/type")), "blk");
  EXPECT_EQ(tree_.Value(Back("device/7/path")), "/srv/g1.img");
  EXPECT_EQ(tree_.Value(Back("device/7/online")), "1");
}

TEST_F(BusCreationTest, EachSideOwnsItsDirectoryAndReadsTheOther) {
  ASSERT_TRUE(AddBlk(7).ok());
  EXPECT_TRUE(frontend_->Write(Front("state"), "3").ok());
  EXPECT_TRUE(backend_->Read(Front("state")).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(backend_->Write(Front("state"), "3")));
  EXPECT_TRUE(backend_->Write(Back("state"), "2").ok());
  EXPECT_TRUE(frontend_->Read(Back("state")).ok());
}

TEST_F(BusCreationTest, GuestCannotWriteTheBackendDirectory) {
  ASSERT_TRUE(AddBlk(7).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Write(Back("state"), "6")));
  EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Write(Back("new"), "1")));
  EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Write(Back("device/8/type"), "blk")));
  EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Remove(kBack)));
}

TEST_F(BusCreationTest, GuestCannotReadDeviceEntries) {
  ASSERT_TRUE(AddBlk(7).ok());
  ASSERT_TRUE(AddBlk(8).ok());  // made later, below the same directory
  for (const char* node : {"device", "device/7", "device/7/path", "device/8", "device/8/path"}) {
    EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Read(Back(node)).status())) << node;
    EXPECT_TRUE(absl::IsPermissionDenied(frontend_->List(Back(node)).status())) << node;
    EXPECT_TRUE(backend_->Read(Back(node)).ok()) << node;
  }
  // Nor what the backend writes there, which may hold host paths as well.
  ASSERT_TRUE(backend_->Write(Back("device/7/hotplug-error"), "/srv/g1.img: no such file").ok());
  EXPECT_TRUE(absl::IsPermissionDenied(frontend_->Read(Back("device/7/hotplug-error")).status()));
}

TEST_F(BusCreationTest, OtherGuestsReadNothing) {
  ASSERT_TRUE(AddBlk(7).ok());
  tree_.CreateDomain(9, "g2");
  std::unique_ptr<MemoryStore> other = tree_.Connect(9);
  EXPECT_TRUE(absl::IsPermissionDenied(other->Read(Back("state")).status()));
  EXPECT_TRUE(absl::IsPermissionDenied(other->Read(Front("state")).status()));
}

TEST_F(BusCreationTest, SecondDeviceJoinsTheBus) {
  ASSERT_TRUE(AddBlk(7).ok());
  tree_.Set(Back("state"), "4");
  absl::StatusOr<DeviceCreation> second = AddBlk(8);
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(second->created_bus);
  EXPECT_EQ(tree_.Value(Back("state")), "4");
  EXPECT_THAT(*ListDevices(*toolstack_, kBus), ElementsAre(7, 8));
}

TEST_F(BusCreationTest, SecondDeviceOfTheSameNumberIsRefusedAndNothingIsWritten) {
  ASSERT_TRUE(AddBlk(7).ok());
  const size_t before = tree_.nodes().size();
  absl::StatusOr<DeviceCreation> again =
      AddDevices(*toolstack_, kBus, {{8, "rng", {}}, {7, "blk", {{"path", "/srv/other.img"}}}});
  ASSERT_TRUE(absl::IsAlreadyExists(again.status())) << again.status();
  EXPECT_THAT(again.status().message(), HasSubstr("device 7"));
  EXPECT_EQ(tree_.nodes().size(), before);
  EXPECT_EQ(tree_.Value(Back("device/7/path")), "/srv/g1.img");
}

TEST_F(BusCreationTest, NumberTwiceInOneCallIsRefused) {
  EXPECT_TRUE(absl::IsAlreadyExists(
      AddDevices(*toolstack_, kBus, {{7, "rng", {}}, {7, "rng", {}}}).status()));
  EXPECT_FALSE(tree_.Has(kBack));
}

TEST_F(BusCreationTest, UnknownDomainIsRefused) {
  EXPECT_TRUE(absl::IsNotFound(AddDevices(*toolstack_, {77, 3, 0}, {}).status()));
  EXPECT_FALSE(tree_.Has("/local/domain/77"));
}

TEST_F(BusCreationTest, BusBeingRemovedTakesNoDevice) {
  ASSERT_TRUE(AddBlk(7).ok());
  ASSERT_TRUE(RequestBusRemoval(*toolstack_, kBus).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(AddBlk(8).status()));
}

TEST_F(BusCreationTest, EveryFailedWriteLeavesNothingBehind) {
  const size_t before = tree_.nodes().size();
  int failures = 0;
  for (int k = 0; k < 100; ++k) {
    tree_.FailWrites(k, absl::ResourceExhaustedError("quota"));
    if (AddBlk(7).ok()) break;
    ++failures;
    EXPECT_EQ(tree_.nodes().size(), before) << "write " << k;
  }
  EXPECT_EQ(failures, 11);  // the nodes of the binding
}

TEST_F(BusCreationTest, WhatAGuestPreparedInTheFrontendDirectoryIsGone) {
  tree_.Set(Front("ring-ref"), "12");
  ASSERT_TRUE(AddBlk(7).ok());
  EXPECT_FALSE(tree_.Has(Front("ring-ref")));
}

TEST_F(BusCreationTest, RemovalRequestsAreOnlineNodes) {
  ASSERT_TRUE(AddBlk(7).ok());
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kBus, 7, false).ok());
  EXPECT_EQ(tree_.Value(Back("device/7/online")), "0");
  EXPECT_FALSE(tree_.Has(Back("device/7/force")));
  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kBus, 7, true).ok());
  EXPECT_EQ(tree_.Value(Back("device/7/force")), "1");
  EXPECT_TRUE(absl::IsNotFound(RequestDeviceRemoval(*toolstack_, kBus, 8, false).status()));
  EXPECT_FALSE(tree_.Has(Back("device/8")));
  ASSERT_TRUE(RequestBusRemoval(*toolstack_, kBus).ok());
  EXPECT_EQ(tree_.Value(Back("online")), "0");
  EXPECT_TRUE(absl::IsNotFound(RequestBusRemoval(*toolstack_, {5, 3, 9})));
  EXPECT_FALSE(tree_.Has("/local/domain/3/backend/virtio-msg/5/9"));
}

TEST_F(BusCreationTest, RemovedBusLeavesNoNode) {
  const size_t before = tree_.nodes().size();
  ASSERT_TRUE(AddBlk(7).ok());
  tree_.Set(BackendErrorPath(kBus), "refused");
  ASSERT_TRUE(WriteState(*backend_, kBack, XenbusState::kClosed).ok());
  ASSERT_TRUE(RemoveBackendDirectory(*backend_, kBus).ok());
  EXPECT_FALSE(tree_.Has("/local/domain/3/backend/virtio-msg/5"));
  ASSERT_TRUE(RemoveBus(*toolstack_, kBus).ok());
  ASSERT_TRUE(RemoveBus(*toolstack_, kBus).ok());  // nothing there is no error
  std::vector<std::string> left;
  for (const auto& [path, node] : tree_.nodes()) left.push_back(path);
  // The kind's own directories stay.
  EXPECT_LE(left.size(), before + 4) << testing::PrintToString(left);
  EXPECT_FALSE(tree_.Has(kFront));
}

// Who removes what it asked to be removed may be late: something else of the same name is there.
TEST_F(BusCreationTest, WhatWasMadeAnewIsNotRemoved) {
  ASSERT_TRUE(AddBlk(7).ok());
  EXPECT_TRUE(absl::IsNotFound(RemoveLeavingEntry(*backend_, {kBus, 7, ""})));
  EXPECT_TRUE(absl::IsAlreadyExists(RemoveLeavingBus(*toolstack_, kBus)));
  EXPECT_TRUE(absl::IsAlreadyExists(RemoveBackendDirectory(*backend_, kBus)));
  EXPECT_TRUE(absl::IsFailedPrecondition(RequestEmptyBusRemoval(*toolstack_, kBus)));
  EXPECT_EQ(tree_.Value(Back("online")), "1");
  EXPECT_TRUE(tree_.Has(Back("device/7/type")));

  ASSERT_TRUE(RequestDeviceRemoval(*toolstack_, kBus, 7, false).ok());
  EXPECT_TRUE(RemoveLeavingEntry(*backend_, {kBus, 7, ""}).ok());
  EXPECT_TRUE(RequestEmptyBusRemoval(*toolstack_, kBus).ok());
  EXPECT_TRUE(RemoveLeavingBus(*toolstack_, kBus).ok());
  EXPECT_FALSE(tree_.Has(kBack));
  EXPECT_TRUE(RemoveLeavingBus(*toolstack_, kBus).ok());
}

TEST_F(BusCreationTest, RemovalOfABusIsOneOfEachOfItsDevices) {
  ASSERT_TRUE(AddBlk(7).ok());
  ASSERT_TRUE(RequestBusRemoval(*toolstack_, kBus, /*force=*/true).ok());
  EXPECT_EQ(tree_.Value(Back("force")), "1");
  EXPECT_TRUE(RemoveLeavingEntry(*backend_, {kBus, 7, ""}).ok());
}

TEST_F(BusCreationTest, RemovingOneBusKeepsTheOther) {
  ASSERT_TRUE(AddBlk(7).ok());
  ASSERT_TRUE(AddDevices(*toolstack_, {5, 3, 4}, {{1, "rng", {}}}).ok());
  ASSERT_TRUE(RemoveBus(*toolstack_, kBus).ok());
  EXPECT_FALSE(tree_.Has(kBack));
  EXPECT_TRUE(tree_.Has("/local/domain/3/backend/virtio-msg/5/4/device/1/type"));
  EXPECT_TRUE(tree_.Has("/local/domain/5/device/virtio-msg/4/state"));
}

// Two backends would not know of each other, and the guest of one only.
TEST_F(BusCreationTest, ABusThatAnotherBackendServesIsNotTakenFromIt) {
  ASSERT_TRUE(AddBlk(7).ok());
  const MemoryTree::Nodes before = tree_.nodes();
  const absl::Status taken = AddDevices(*toolstack_, {5, 0, 2}, {{0, "rng", {}}}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(taken)) << taken;
  EXPECT_EQ(taken.message(),
            "bus 2 of g1 is served by domain 3; attach to that one, or detach the bus first "
            "(vmsgctl detach g1 all --bus 2)");
  EXPECT_EQ(tree_.Value(Front("backend-id")), "3");
  EXPECT_EQ(tree_.nodes().size(), before.size());
  // Another bus of the guest is another matter.
  EXPECT_TRUE(AddDevices(*toolstack_, {5, 0, 1}, {{0, "rng", {}}}).ok());
  ASSERT_TRUE(RemoveBus(*toolstack_, kBus).ok());
  EXPECT_TRUE(AddDevices(*toolstack_, {5, 0, 2}, {{0, "rng", {}}}).ok());
}

TEST_F(BusCreationTest, WhatABackendThatIsGoneServedIsFree) {
  ASSERT_TRUE(AddBlk(7).ok());
  tree_.DestroyDomain(3);
  EXPECT_TRUE(AddDevices(*toolstack_, {5, 0, 2}, {{0, "rng", {}}}).ok());
  EXPECT_EQ(tree_.Value(Front("backend-id")), "0");
}

TEST_F(BusCreationTest, TheRestOfABusDoesNotTakeTheGuestsSideOfAnotherBackendAlong) {
  ASSERT_TRUE(AddBlk(7).ok());
  // As an older vmsgctl left it: two backends, and the frontend at the second.
  tree_.Set("/local/domain/0/backend/virtio-msg/5/2/online", "0");
  ASSERT_TRUE(RemoveLeavingBus(*toolstack_, {5, 0, 2}).ok());
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5/2"));
  EXPECT_EQ(tree_.Value(Front("backend-id")), "3");
}

}  // namespace
}  // namespace vmsg::xenstore
