// SPDX-License-Identifier: Apache-2.0
// Identity, features, configuration and status, message by message.
#include "backend/transport/device_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/backend/transport/transport_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DeviceTransportTest : public TransportRig {
 protected:
  wire::GetConfigResponse GetConfig(uint32_t offset, uint32_t length) {
    return transport_->Handle(wire::GetConfigRequest{offset, length}, scratch_);
  }
  wire::SetConfigResponse SetConfig(uint32_t generation, uint32_t offset,
                                    std::vector<std::byte> data) {
    return transport_->Handle(
        wire::SetConfigRequest{generation, offset, static_cast<uint32_t>(data.size()), data});
  }
  uint32_t Generation() { return GetConfig(0, 1).generation; }
};

std::vector<std::byte> Bytes(std::span<const std::byte> view) { return {view.begin(), view.end()}; }

// [device:Transport Messages / VIRTIO_MSG_GET_DEVICE_INFO / Device]
TEST_F(DeviceTransportTest, InfoIsGivenWhileInactiveAndStaysTheSame) {
  const auto before = transport_->Handle(wire::GetDeviceInfoRequest{});
  EXPECT_EQ(before.device_id, 42u);
  EXPECT_EQ(before.num_feature_bits, 64u);
  EXPECT_EQ(before.config_size, 8u);
  EXPECT_EQ(before.max_virtqueues, 2u);
  EXPECT_EQ(before.admin_vq_count, 0u);
  GoLive();
  const auto after = transport_->Handle(wire::GetDeviceInfoRequest{});
  EXPECT_EQ(after.max_virtqueues, before.max_virtqueues);
  EXPECT_EQ(after.vendor_id, before.vendor_id);
}

TEST_F(DeviceTransportTest, DeviceWithTooManyQueuesIsRefused) {
  auto view = std::make_shared<HeldDevice::View>();
  view->identity.max_queue_sizes.assign(backend::kMaxQueuesPerDevice + 1, 16);
  auto made = backend::DeviceTransport::Create(std::make_unique<HeldDevice>(view), memory_.window(),
                                               events());
  EXPECT_THAT(made.status().message(), HasSubstr("65 virtqueues"));
}

TEST_F(DeviceTransportTest, DeviceWithAnOddQueueSizeIsRefused) {
  auto view = std::make_shared<HeldDevice::View>();
  view->identity.max_queue_sizes = {12};
  auto made = backend::DeviceTransport::Create(std::make_unique<HeldDevice>(view), memory_.window(),
                                               events());
  EXPECT_THAT(made.status().message(), HasSubstr("12"));
}

// [device:Device Initialization / Device Features / Device]
// [device:Transport Messages / VIRTIO_MSG_GET_DEVICE_FEATURES / Device]
TEST_F(DeviceTransportTest, FeatureBlocksPastTheEndAreZero) {
  EXPECT_THAT(GetFeatures(1, 3), ElementsAre(::testing::Ne(0u), 0u, 0u));
  EXPECT_THAT(GetFeatures(7, 2), ElementsAre(0u, 0u));
}

// [device:Basic Concepts / Revisions / Device Limits]
TEST_F(DeviceTransportTest, FeatureBlocksThatDoNotFitAreNotReturned) {
  EXPECT_EQ(GetFeatures(0, 0xffffffff).size(), (scratch_.size() - 8) / 4);
  EXPECT_THAT(GetFeatures(0, 0), IsEmpty());
}

// [device:Basic Concepts / Revisions / Device Limits]
// [device:Device Initialization / Device Features / Device]
// [device:Device Initialization / Status Information / Device]
// [device:Transport Messages / VIRTIO_MSG_GET_DEVICE_STATUS / Device]
TEST_F(DeviceTransportTest, FeaturesOkIsRefusedForBitsThatWereNotOffered) {
  SetStatus(kAck | kDriver);
  SetFeatures(0, {0x2, 0x1});
  EXPECT_EQ(SetStatus(kAck | kDriver | kFeaturesOk), kAck | kDriver);
  EXPECT_EQ(Status(), kAck | kDriver);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("never offered")));
  EXPECT_THAT(device_->log, IsEmpty());
}

TEST_F(DeviceTransportTest, FeaturesOkIsRefusedWithoutVersion1) {
  SetStatus(kAck | kDriver);
  SetFeatures(0, {0x1, 0x0});
  EXPECT_EQ(SetStatus(kAck | kDriver | kFeaturesOk), kAck | kDriver);
}

TEST_F(DeviceTransportTest, DeviceLearnsItsFeaturesAtFeaturesOk) {
  Negotiate(wire::kFeatureVersion1 | 0x4);
  EXPECT_EQ(device_->features, wire::kFeatureVersion1 | 0x4);
  EXPECT_THAT(device_->log, ElementsAre("features"));
}

TEST_F(DeviceTransportTest, FeaturesAreFrozenAfterFeaturesOk) {
  Negotiate(wire::kFeatureVersion1 | 0x4);
  SetFeatures(0, {0x1, 0x1});
  EXPECT_THAT(GetFeatures(0, 2), ElementsAre(0x4u, 0x1u));
  EXPECT_EQ(problems_.size(), 1u);
}

// [device:Device Initialization / Device Configuration / Device]
// [device:Transport Messages / VIRTIO_MSG_GET_CONFIG / Device]
TEST_F(DeviceTransportTest, ConfigComesWithItsGeneration) {
  const auto response = GetConfig(2, 4);
  EXPECT_EQ(response.offset, 2u);
  EXPECT_EQ(response.length, 4u);
  EXPECT_EQ(Bytes(response.data), std::vector<std::byte>(4, std::byte{0x11}));
  const uint32_t before = response.generation;
  GoLive();
  device_->host->ChangeConfig(0, 1, [] {});
  EXPECT_NE(GetConfig(2, 4).generation, before);
}

TEST_F(DeviceTransportTest, ConfigPastItsEndReadsZeroAndNeverOurMemory) {
  std::fill(scratch_.begin(), scratch_.end(), std::byte{0xee});
  const auto across = GetConfig(6, 6);
  EXPECT_EQ(Bytes(across.data),
            (std::vector<std::byte>{std::byte{0x11}, std::byte{0x11}, std::byte{0}, std::byte{0},
                                    std::byte{0}, std::byte{0}}));
  std::fill(scratch_.begin(), scratch_.end(), std::byte{0xee});
  EXPECT_EQ(Bytes(GetConfig(8, 4).data), std::vector<std::byte>(4));
  EXPECT_EQ(Bytes(GetConfig(100, 4).data), std::vector<std::byte>(4));
}

// [device:Basic Concepts / Revisions / Device Limits]
TEST_F(DeviceTransportTest, ConfigLongerThanAMessageIsAnsweredWithLengthZero) {
  const uint32_t most = static_cast<uint32_t>(scratch_.size()) - 12;
  EXPECT_EQ(GetConfig(0, most).length, most);
  EXPECT_EQ(GetConfig(0, most + 1).length, 0u);
  EXPECT_EQ(GetConfig(0, 0xffffffff).length, 0u);
  EXPECT_EQ(GetConfig(0xffffffff, 8).length, 0u);
}

TEST_F(DeviceTransportTest, ConfigIsWrittenWithTheCurrentGeneration) {
  const auto response = SetConfig(Generation(), 4, {std::byte{1}, std::byte{2}});
  EXPECT_EQ(response.offset, 4u);
  EXPECT_EQ(response.length, 2u);
  EXPECT_EQ(device_->config[4], std::byte{1});
  EXPECT_EQ(device_->config[5], std::byte{2});
}

// [device:Basic Concepts / Configuration Generation Count / Device]
// [device:Device Initialization / Device Configuration / Device]
// [device:Transport Messages / VIRTIO_MSG_SET_CONFIG / Device]
TEST_F(DeviceTransportTest, ConfigWithAnotherGenerationIsRejected) {
  const uint32_t generation = Generation();
  for (uint32_t wrong : {generation + 1, generation - 1}) {
    const auto response = SetConfig(wrong, 4, {std::byte{1}});
    EXPECT_EQ(response.length, 0u);
    EXPECT_EQ(response.offset, 4u);
    EXPECT_EQ(response.generation, generation);
  }
  EXPECT_EQ(device_->config[4], std::byte{0x11});
}

TEST_F(DeviceTransportTest, ConfigWriteOutsideTheConfigurationIsRejected) {
  const uint32_t generation = Generation();
  EXPECT_EQ(SetConfig(generation, 7, {std::byte{1}, std::byte{2}}).length, 0u);
  EXPECT_EQ(SetConfig(generation, 9, {std::byte{1}}).length, 0u);
  EXPECT_EQ(SetConfig(generation, 0xffffffff, {std::byte{1}, std::byte{2}}).length, 0u);
  EXPECT_EQ(SetConfig(generation, 4, {}).length, 0u);
  EXPECT_EQ(device_->config[7], std::byte{0x11});
}

TEST_F(DeviceTransportTest, ConfigWriteThatTheDeviceRefusesIsRejected) {
  EXPECT_EQ(SetConfig(Generation(), 0, {std::byte{1}}).length, 0u);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("read-only")));
}

// [device:Basic Concepts / Configuration Generation Count / Device]
// [device:Device Operation / Configuration Changes During Operation / Device]
// [device:Transport Messages / VIRTIO_MSG_EVENT_CONFIG / Device]
TEST_F(DeviceTransportTest, ConfigChangeRaisesTheGenerationFirstAndIsAnnounced) {
  GoLive();
  const uint32_t before = Generation();
  uint32_t during = before;
  device_->host->ChangeConfig(2, 2, [&] {
    during = Generation();
    device_->config[2] = std::byte{0x77};
  });
  EXPECT_EQ(during, before + 1);
  ASSERT_EQ(config_events_, 1);
  const wire::EventConfig event = transport_->TakeConfigEvent(scratch_);
  EXPECT_EQ(event.generation, before + 1);
  EXPECT_EQ(event.device_status, Status());
  EXPECT_EQ(event.offset, 2u);
  EXPECT_EQ(event.length, 2u);
  EXPECT_EQ(Bytes(event.data), (std::vector<std::byte>{std::byte{0x77}, std::byte{0x11}}));
}

// [device:Basic Concepts / Configuration Generation Count / Device]
TEST_F(DeviceTransportTest, ConfigChangesBeforeTheEventIsSentBecomeOneRange) {
  GoLive();
  device_->host->ChangeConfig(1, 1, [] {});
  device_->host->ChangeConfig(5, 2, [] {});
  const wire::EventConfig event = transport_->TakeConfigEvent(scratch_);
  EXPECT_EQ(event.offset, 1u);
  EXPECT_EQ(event.length, 6u);
  EXPECT_EQ(event.generation, Generation());
  EXPECT_EQ(transport_->TakeConfigEvent(scratch_).length, 0u);
}

// [device:Basic Concepts / Configuration Generation Count / Device]
// [device:Device Operation / Device Notifications / Device]
TEST_F(DeviceTransportTest, ConfigChangeThatDoesNotFitIsAnnouncedWithoutData) {
  GoLive();
  device_->host->ChangeConfig(0, 8, [] {});
  const wire::EventConfig event = transport_->TakeConfigEvent(std::span(scratch_).first(20));
  EXPECT_EQ(event.length, 0u);
  EXPECT_EQ(event.generation, Generation());
}

TEST_F(DeviceTransportTest, ConfigChangeRangeIsKeptInsideTheConfiguration) {
  GoLive();
  device_->host->ChangeConfig(6, 100, [] {});
  EXPECT_EQ(transport_->TakeConfigEvent(scratch_).length, 2u);
}

// [device:Device Operation / Reset / Device]
TEST_F(DeviceTransportTest, DeviceThatNeedsAResetSaysSoOnce) {
  GoLive();
  device_->host->NeedsReset(absl::DataLossError("it lies"));
  device_->host->NeedsReset(absl::DataLossError("it lies again"));
  EXPECT_EQ(config_events_, 1);
  EXPECT_EQ(transport_->TakeConfigEvent(scratch_).device_status,
            kAck | kDriver | kFeaturesOk | kDriverOk | wire::kStatusDeviceNeedsReset);
  // It takes nothing more until then.
  OfferAndKick();
  EXPECT_THAT(device_->held, IsEmpty());
  EXPECT_EQ(SetStatus(0), 0u);
  EXPECT_EQ(Status(), 0u);
}

// [device:Device Initialization / Status Information / Device]
// [device:Device Operation / Reset / Device]
TEST_F(DeviceTransportTest, ResetMakesTheDeviceAsNew) {
  GoLive();
  device_->log.clear();
  EXPECT_EQ(SetStatus(0), 0u);
  EXPECT_EQ(Status(), 0u);
  EXPECT_THAT(device_->log, ElementsAre("stopping 0", "reset"));
  EXPECT_EQ(GetQueue(0).cur_size, 0u);
  EXPECT_EQ(GetFeatures(0, 1)[0], 0x5u | 1u << 28 | 1u << 29);
  GoLive();
  OfferAndKick();
  EXPECT_EQ(device_->held.size(), 1u);
}

// [device:Device Operation / Reset / Device]
TEST_F(DeviceTransportTest, ResetIsAnsweredWhenTheLastBufferHasComeBack) {
  GoLive();
  OfferAndKick();
  ASSERT_EQ(device_->held.size(), 1u);
  std::optional<uint32_t> late;
  EXPECT_EQ(SetStatus(0, &late), std::nullopt);
  transport_->Advance();
  EXPECT_EQ(late, std::nullopt);
  EXPECT_NE(Status(), 0u);
  device_->ReturnOne(64);
  EXPECT_EQ(late, std::nullopt) << "not from within the device's call";
  EXPECT_TRUE(wants_turn_);
  transport_->Advance();
  EXPECT_EQ(late, 0u);
  EXPECT_THAT(ring0_.TakeAllUsed(), IsEmpty()) << "the driver has taken its memory back";
}

TEST_F(DeviceTransportTest, ShutdownWhileAResetWaitsAnswersItAndEnds) {
  GoLive();
  OfferAndKick();
  std::optional<uint32_t> late;
  EXPECT_EQ(SetStatus(0, &late), std::nullopt);
  bool gone = false;
  transport_->Shutdown([&] { gone = true; });
  EXPECT_FALSE(gone);
  device_->ReturnOne();
  transport_->Advance();
  EXPECT_TRUE(gone);
  EXPECT_EQ(late, 0u);
}

// [device:Basic Concepts / Configuration Generation Count / Device]
// Also where the device changes
// it because of what the driver negotiated, and back.
TEST_F(DeviceTransportTest, NegotiatingAndResetStepTheGenerationWhenTheyChangeConfiguration) {
  const std::vector<std::byte> plain = device_->config;
  device_->at_features = std::vector<std::byte>(8, std::byte{0x22});
  const uint32_t before = Generation();
  Negotiate();
  EXPECT_EQ(Generation(), before + 1);
  EXPECT_EQ(SetConfig(before, 4, {std::byte{1}}).length, 0u) << "it has not seen what it is now";
  device_->at_reset = plain;
  EXPECT_EQ(SetStatus(0), 0u);
  EXPECT_EQ(Generation(), before + 2);
  device_->at_features = {};
  Negotiate();
  EXPECT_EQ(SetStatus(0), 0u);
  EXPECT_EQ(Generation(), before + 2) << "nothing changed";
}

TEST_F(DeviceTransportTest, AResetWaitsForWhatTheDeviceDoesForItself) {
  GoLive();
  device_->settled = false;
  std::optional<uint32_t> late;
  EXPECT_EQ(SetStatus(0, &late), std::nullopt);
  transport_->Advance();
  EXPECT_EQ(late, std::nullopt);
  wants_turn_ = false;
  device_->settled = true;
  device_->host->Settled();
  EXPECT_EQ(late, std::nullopt) << "not from within the device's call";
  EXPECT_TRUE(wants_turn_);
  transport_->Advance();
  EXPECT_EQ(late, 0u);
}

TEST_F(DeviceTransportTest, TheEndOfADeviceWaitsForWhatItDoesForItself) {
  Negotiate();
  device_->settled = false;
  bool gone = false;
  transport_->Shutdown([&] { gone = true; });
  transport_->Advance();
  EXPECT_FALSE(gone);
  device_->settled = true;
  device_->host->Settled();
  transport_->Advance();
  EXPECT_TRUE(gone);
}

// [device:Transport Messages / VIRTIO_MSG_GET_SHM / Device]
TEST_F(DeviceTransportTest, NoSharedMemoryRegionExists) {
  const auto response = transport_->Handle(wire::GetShmRequest{3});
  EXPECT_EQ(response.index, 3u);
  EXPECT_EQ(response.length, 0u);
  EXPECT_EQ(response.address, 0u);
}

}  // namespace
}  // namespace vmsg::testing
