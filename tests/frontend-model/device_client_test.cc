// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/transport/device_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/frontend-model/test_bus.h"
#include "tests/frontend-model/test_device.h"

namespace vmsg::frontend {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

class DeviceClientTest : public testing::Test {
 protected:
  TestBus bus_;
  TestDevice device_{bus_, 9};
};

// [bus:Device Discovery / Bus]
TEST_F(DeviceClientTest, ANumberWithoutADeviceIsNotFound) {
  EXPECT_EQ(DeviceClient::Probe(bus_.bus, device_.memory, 10).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(DeviceClientTest, ImplausibleInformationIsRefusedBeforeAnythingIsAllocated) {
  device_.num_feature_bits = UINT32_MAX;
  EXPECT_EQ(DeviceClient::Probe(bus_.bus, device_.memory, 9).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// [driver:Basic Concepts / Versioning and Forward Compatibility / Driver]
// [driver:Device Initialization / Overview / Driver]
// [driver:Device Initialization / Device Information / Driver]
// [driver:Device Initialization / Status Information / Driver]
// [driver:Device Initialization / Finalizing Initialization / Driver]
// Information, features, FEATURES_OK, queues confirmed,
// DRIVER_OK: in this order.
TEST_F(DeviceClientTest, InitializationGoesInTheOrderOfTheSpecification) {
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(wire::kFeatureEventIdx).ok());
  ASSERT_TRUE(client->SetUpQueue(0, 64).ok());
  ASSERT_TRUE(client->Start().ok());
  EXPECT_THAT(device_.log, ElementsAre("info", "status 0", "status 1", "status 3", "features 0+2",
                                       "set features 0x120000000", "status 11", "get queue 0",
                                       "set queue 0 size 64", "get queue 0", "status 15"));
}

// [driver:Device Initialization / Device Features / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_DRIVER_FEATURES / Driver]
// Only what is wanted and offered is written back.
TEST_F(DeviceClientTest, OnlyWantedAndOfferedFeaturesAreEnabled) {
  auto client = device_.Probe();
  const auto features = client->Negotiate(wire::kFeatureEventIdx | wire::kFeatureIndirectDesc);
  ASSERT_TRUE(features.ok());
  EXPECT_EQ(*features, wire::kFeatureVersion1 | wire::kFeatureEventIdx);
  EXPECT_EQ(device_.driver_features, *features);
}

// [driver:Device Initialization / Overview / Driver]
// [driver:Device Initialization / Device Features / Driver]
// The returned status is checked for FEATURES_OK.
TEST_F(DeviceClientTest, RefusedFeaturesEndInFailed) {
  device_.status_refused = wire::kStatusFeaturesOk;
  auto client = device_.Probe();
  EXPECT_EQ(client->Negotiate(0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(device_.log.back(), "status 131");
  EXPECT_EQ(client->SetUpQueue(0, 8).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DeviceClientTest, ADeviceWithoutVersion1IsRefused) {
  device_.features = wire::kFeatureEventIdx;
  auto client = device_.Probe();
  const absl::Status status = client->Negotiate(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0x100000000"));
}

// [driver:Transport Messages / VIRTIO_MSG_GET_DEVICE_INFO / Driver]
// [driver:Transport Messages / VIRTIO_MSG_GET_DEVICE_FEATURES / Driver]
// Blocks beyond the device's are zero
// and none are asked for.
TEST_F(DeviceClientTest, FeaturesAreReadInBlocks) {
  device_.num_feature_bits = 1024;
  auto client = device_.Probe();
  device_.log.clear();
  const auto words = client->ReadFeatures();
  ASSERT_TRUE(words.ok());
  EXPECT_EQ(words->size(), 32u);
  EXPECT_EQ((*words)[1], 0x101u);
  EXPECT_THAT(*words, testing::Contains(0u).Times(30));
  EXPECT_THAT(device_.log, ElementsAre("features 0+32"));
}

// [driver:Device Initialization / Virtqueue Configuration / Driver]
// [driver:Transport Messages / VIRTIO_MSG_GET_DEVICE_INFO / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_VQUEUE / Driver]
// Never larger than the maximum, never
// over an active queue.
TEST_F(DeviceClientTest, QueuesAreCutToTheMaximumAndRefusedWhenActive) {
  device_.queues[0].max_size = 100;
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(0).ok());
  const auto queue = client->SetUpQueue(0, 256);
  ASSERT_TRUE(queue.ok()) << queue.status();
  EXPECT_EQ((*queue)->size(), 64u);
  EXPECT_EQ(client->SetUpQueue(0, 256).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->SetUpQueue(1, 256).status().code(), absl::StatusCode::kOutOfRange);
}

// [driver:Device Initialization / Overview / Driver]
// The queue's parameters are confirmed.
TEST_F(DeviceClientTest, AQueueTheDeviceDidNotTakeIsNotUsed) {
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(0).ok());
  bus_.handlers[wire::MessageId::kSetVqueue] = [this](const wire::Message& message) {
    bus_.Respond(message, wire::SetVqueueResponse{});
  };
  EXPECT_EQ(client->SetUpQueue(0, 8).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->queue(0), nullptr);
}

// [driver:Device Initialization / Virtqueue Configuration / Driver]
// [driver:Device Operation / Virtqueue Changes During Operation / Driver]
// [driver:Transport Messages / VIRTIO_MSG_RESET_VQUEUE / Driver]
TEST_F(DeviceClientTest, RingResetNeedsTheFeatureAndIsConfirmed) {
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(0).ok());
  ASSERT_TRUE(client->SetUpQueue(0, 8).ok());
  EXPECT_EQ(client->ResetQueue(0).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(client->Negotiate(wire::kFeatureRingReset).ok());
  ASSERT_TRUE(client->SetUpQueue(0, 8).ok());
  EXPECT_TRUE(client->ResetQueue(0).ok());
  EXPECT_EQ(client->queue(0), nullptr);
  EXPECT_TRUE(client->SetUpQueue(0, 16).ok());
}

class ConfigTest : public DeviceClientTest {
 protected:
  ConfigTest() {
    device_.config.resize(600);
    for (size_t i = 0; i < device_.config.size(); ++i) device_.config[i] = std::byte(i * 7);
    client_ = device_.Probe();
    device_.log.clear();
  }
  std::unique_ptr<DeviceClient> client_;
};

// [driver:Device Initialization / Device Information / Driver]
// [driver:Device Initialization / Device Configuration / Driver]
// [driver:Transport Messages / VIRTIO_MSG_GET_CONFIG / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_CONFIG / Driver]
// Offset and length stay within config_size.
TEST_F(ConfigTest, ReadsBeyondTheConfigurationAreNotSent) {
  std::byte byte[2];
  EXPECT_EQ(client_->ReadConfig(599, byte).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client_->ReadConfig(UINT32_MAX, byte).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client_->WriteConfig(599, byte).code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(device_.log.empty());
}

// [driver:Basic Concepts / Revisions / Driver Limits]
TEST_F(ConfigTest, ALargeReadTakesSeveralMessages) {
  std::vector<std::byte> all(600);
  ASSERT_TRUE(client_->ReadConfig(0, all).ok());
  EXPECT_EQ(all, device_.config);
  EXPECT_THAT(device_.log,
              ElementsAre("get config 0+244", "get config 244+244", "get config 488+112"));
}

// [driver:Basic Concepts / Configuration Generation Count / Driver]
// A read is of one generation.
TEST_F(ConfigTest, AReadTornByAChangeStartsOver) {
  int reads = 0;
  device_.before_get_config = [&] {
    if (++reads != 2) return;
    ++device_.generation;
    device_.config.assign(600, std::byte{1});
  };
  std::vector<std::byte> all(600);
  ASSERT_TRUE(client_->ReadConfig(0, all).ok());
  EXPECT_THAT(all, Each(std::byte{1}));
  EXPECT_EQ(client_->generation(), device_.generation);
}

TEST_F(ConfigTest, AConfigurationThatNeverRestsIsGivenUp) {
  device_.before_get_config = [&] { ++device_.generation; };
  std::vector<std::byte> all(600);
  EXPECT_EQ(client_->ReadConfig(0, all).code(), absl::StatusCode::kAborted);
  EXPECT_LE(device_.log.size(), 2u * DeviceClient::kMaxConfigRetries);
}

// [driver:Basic Concepts / Configuration Generation Count / Driver]
// [driver:Device Initialization / Device Configuration / Driver]
// [driver:Device Operation / Configuration Changes During Operation / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_CONFIG / Driver]
// Each write carries the newest generation; one
// that is stale is followed by GET_CONFIG and sent again.
TEST_F(ConfigTest, AStaleWriteReadsAgainAndRepeats) {
  device_.generation = 5;
  const std::byte value{42};
  ASSERT_TRUE(client_->WriteConfig(3, {&value, 1}).ok());
  EXPECT_THAT(device_.log, ElementsAre("set config 3 generation 0", "get config 3+1",
                                       "set config 3 generation 5"));
  EXPECT_EQ(device_.config[3], value);
}

// [driver:Basic Concepts / Configuration Generation Count / Driver]
// [driver:Device Initialization / Device Configuration / Driver]
// [driver:Device Operation / Device Notifications / Driver]
// [driver:Device Operation / Configuration Changes During Operation / Driver]
// [driver:Transport Messages / VIRTIO_MSG_EVENT_CONFIG / Driver]
// EVENT_CONFIG's generation is tracked.
TEST_F(ConfigTest, EventConfigBringsTheGeneration) {
  int heard = 0;
  client_->set_config_listener([&] { ++heard; });
  device_.generation = 8;
  device_.SendEvent(wire::EventConfig{.device_status = 0, .generation = 8, .offset = 0});
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_EQ(heard, 1);
  const std::byte value{42};
  ASSERT_TRUE(client_->WriteConfig(0, {&value, 1}).ok());
  EXPECT_THAT(device_.log, ElementsAre("set config 0 generation 8"));
}

TEST_F(ConfigTest, AWriteThatIsRejectedForItsValueIsNotRepeated) {
  bus_.handlers[wire::MessageId::kSetConfig] = [this](const wire::Message& message) {
    device_.log.push_back("rejected");
    bus_.Respond(message, wire::SetConfigResponse{.generation = 0, .offset = 0, .length = 0});
  };
  const std::byte value{1};
  EXPECT_EQ(client_->WriteConfig(0, {&value, 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(device_.log, ElementsAre("rejected"));
}

// [driver:Device Operation / Reset / Driver]
// DEVICE_NEEDS_RESET is seen, and gone after the reset.
TEST_F(DeviceClientTest, NeedsResetIsSeenAndClearedByTheReset) {
  auto client = device_.Probe();
  int heard = 0;
  client->set_state_listener([&] { ++heard; });
  device_.SendEvent(wire::EventConfig{.device_status = 15 | wire::kStatusDeviceNeedsReset});
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_TRUE(client->needs_reset());
  EXPECT_EQ(heard, 1);
  EXPECT_TRUE(client->Reset().ok());
  EXPECT_FALSE(client->needs_reset());
}

// [driver:Device Initialization / Status Information / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_DEVICE_STATUS / Driver]
// A reset is confirmed by reading back.
TEST_F(DeviceClientTest, AResetThatDidNotHappenIsAnError) {
  auto client = device_.Probe();
  bus_.handlers[wire::MessageId::kSetDeviceStatus] = [this](const wire::Message& message) {
    device_.status = 15;
    bus_.Respond(message, wire::SetDeviceStatusResponse{0});
  };
  EXPECT_EQ(client->Reset().code(), absl::StatusCode::kInternal);
}

TEST_F(DeviceClientTest, ARemovedDeviceIsNotAskedAnyMore) {
  auto client = device_.Probe();
  bus_.Send(0, 0, wire::EventDevice{9, wire::kDeviceRemovalRequested});
  bus_.Send(0, 0, wire::EventDevice{8, wire::kDeviceRemoved});
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_TRUE(client->removal_requested());
  EXPECT_FALSE(client->removed());
  bus_.Send(0, 0, wire::EventDevice{9, wire::kDeviceRemoved});
  bus_.Send(0, 0, wire::EventDevice{9, wire::kDeviceRemoved});  // duplicates are tolerated
  ASSERT_TRUE(bus_.bus.Poll().ok());
  const size_t before = bus_.seen.size();
  EXPECT_EQ(client->ReadStatus().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(bus_.seen.size(), before);
}

// [driver:Device Operation / Driver Notifications / Driver]
// [driver:Transport Messages / VIRTIO_MSG_EVENT_AVAIL / Driver]
// Next_offset is zero unless NOTIFICATION_DATA
// was negotiated, and the available position if it was.
TEST_F(DeviceClientTest, EventAvailCarriesThePositionOnlyWhenNegotiated) {
  for (const bool data : {false, true}) {
    bus_.seen.clear();
    device_.features = wire::kFeatureVersion1 | wire::kFeatureNotificationData;
    auto client = device_.Probe();
    ASSERT_TRUE(client->Negotiate(data ? wire::kFeatureNotificationData : 0).ok());
    DriverQueue* const queue = client->SetUpQueue(0, 8).value();
    ASSERT_TRUE(client->Start().ok());
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(queue->Add({{.address = 4096, .size = 1}}, 0).value());
    }
    ASSERT_TRUE(client->Publish(0).ok());
    ASSERT_TRUE(bus_.bus.Flush().ok());
    const auto events = bus_.Of(wire::MessageId::kEventAvail);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(std::to_integer<int>(events[0].payload[4]), data ? 2 : 0);
  }
}

}  // namespace
}  // namespace vmsg::frontend
