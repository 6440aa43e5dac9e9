// SPDX-License-Identifier: Apache-2.0
#include "backend/transport/device_status.h"

#include <gtest/gtest.h>

#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {
namespace {

constexpr uint32_t kA = wire::kStatusAcknowledge;
constexpr uint32_t kD = wire::kStatusDriver;
constexpr uint32_t kOk = wire::kStatusFeaturesOk;
constexpr uint32_t kLive = wire::kStatusDriverOk;
constexpr uint32_t kReset = wire::kStatusDeviceNeedsReset;
constexpr uint32_t kFailed = wire::kStatusFailed;

// [device:Transport Messages / VIRTIO_MSG_SET_DEVICE_STATUS / Device]
TEST(DeviceStatus, FollowsTheDriverStepByStep) {
  EXPECT_EQ(NextStatus(0, kA, false), kA);
  EXPECT_EQ(NextStatus(kA, kA | kD, false), kA | kD);
  EXPECT_EQ(NextStatus(kA | kD, kA | kD | kOk, true), kA | kD | kOk);
  EXPECT_EQ(NextStatus(kA | kD | kOk, kA | kD | kOk | kLive, true), kA | kD | kOk | kLive);
}

TEST(DeviceStatus, TakesAllStepsInOneWrite) {
  EXPECT_EQ(NextStatus(0, kA | kD | kOk | kLive, true), kA | kD | kOk | kLive);
}

// [device:Transport Messages / VIRTIO_MSG_SET_DEVICE_STATUS / Device]
TEST(DeviceStatus, LeavesOutFeaturesOkWhenFeaturesAreNotAcceptable) {
  EXPECT_EQ(NextStatus(kA | kD, kA | kD | kOk, false), kA | kD);
}

TEST(DeviceStatus, LeavesOutFeaturesOkWithoutDriver) {
  EXPECT_EQ(NextStatus(kA, kA | kOk, true), kA);
}

TEST(DeviceStatus, LeavesOutDriverOkWithoutFeaturesOk) {
  EXPECT_EQ(NextStatus(kA | kD, kA | kD | kLive, true), kA | kD);
  EXPECT_EQ(NextStatus(kA | kD, kA | kD | kOk | kLive, false), kA | kD);
}

TEST(DeviceStatus, KeepsAcceptedFeaturesWhateverTheyWouldBeNow) {
  EXPECT_EQ(NextStatus(kA | kD | kOk, kA | kD | kOk | kLive, false), kA | kD | kOk | kLive);
}

TEST(DeviceStatus, DriverCannotClearBitsButByReset) {
  EXPECT_EQ(NextStatus(kA | kD | kOk | kLive, kA, true), kA | kD | kOk | kLive);
}

TEST(DeviceStatus, NeedsResetIsNotTheDriversToSetOrClear) {
  EXPECT_EQ(NextStatus(kA, kA | kReset, true), kA);
  EXPECT_EQ(NextStatus(kA | kReset, kA, true), kA | kReset);
}

TEST(DeviceStatus, DeviceThatNeedsResetOrFailedDoesNotGoLive) {
  EXPECT_EQ(NextStatus(kA | kD | kOk | kReset, kA | kD | kOk | kLive, true),
            kA | kD | kOk | kReset);
  EXPECT_EQ(NextStatus(kA | kD | kOk | kFailed, kA | kD | kOk | kLive, true),
            kA | kD | kOk | kFailed);
  EXPECT_EQ(NextStatus(kA | kD, kA | kD | kOk | kLive | kFailed, true), kA | kD | kOk | kFailed);
}

TEST(DeviceStatus, UnknownBitsAreNotTaken) {
  EXPECT_EQ(NextStatus(kA, 0xffffff00u | kA, true), kA);
  EXPECT_EQ(NextStatus(kA, kA | 0x10 | 0x20, true), kA);
}

}  // namespace
}  // namespace vmsg::backend
