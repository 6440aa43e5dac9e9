// SPDX-License-Identifier: Apache-2.0
// What the transport demands of a driver beside the order of its steps: nothing before its time,
// nothing that does not fit, nothing of what it does not understand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "frontend-model/transport/device_client.h"
#include "tests/frontend-model/test_bus.h"
#include "tests/frontend-model/test_device.h"

namespace vmsg::frontend {
namespace {

using testing::ElementsAre;

class DriverDutiesTest : public testing::Test {
 protected:
  TestBus bus_;
  TestDevice device_{bus_, 9};
};

// [driver:Device Initialization / Overview / Driver]
// [driver:Device Initialization / Finalizing Initialization / Driver]
// [driver:Device Operation / Driver Notifications / Driver]
TEST_F(DriverDutiesTest, NothingIsMadeAvailableBeforeDriverOkOrWithoutAQueue) {
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(0).ok());
  DriverQueue* const queue = client->SetUpQueue(0, 8).value();
  ASSERT_TRUE(queue->Add({{.address = 4096, .size = 1}}, 0).value());
  const auto available_index = [&] {
    uint16_t idx;
    std::memcpy(&idx, device_.memory.At(queue->driver_address() + 2, 2), 2);
    return idx;
  };
  EXPECT_EQ(client->Publish(0).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->Publish(1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(available_index(), 0);
  ASSERT_TRUE(client->Start().ok());
  EXPECT_TRUE(client->Publish(0).ok());
  ASSERT_TRUE(bus_.bus.Flush().ok());
  EXPECT_EQ(available_index(), 1);
  EXPECT_EQ(bus_.Of(wire::MessageId::kEventAvail).size(), 1u);
  // A reset takes the queue away.
  ASSERT_TRUE(client->Reset().ok());
  EXPECT_EQ(client->Publish(0).code(), absl::StatusCode::kFailedPrecondition);
}

// [driver:Basic Concepts / Versioning and Forward Compatibility / Driver]
// States of the bus that are not ours to know (reserved, or another bus's own).
TEST_F(DriverDutiesTest, UnknownDeviceStatesAreIgnored) {
  auto client = device_.Probe();
  int heard = 0;
  client->set_state_listener([&] { ++heard; });
  for (const uint16_t state : {0, 3, 0x7fff, 0x8001, 0xffff}) {
    bus_.Send(0, 0, wire::EventDevice{9, state});
  }
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_EQ(heard, 0);
  EXPECT_FALSE(client->removed());
  EXPECT_TRUE(client->ReadStatus().ok());
}

// [driver:Transport Messages / VIRTIO_MSG_GET_DEVICE_FEATURES / Driver]
// A device may return fewer blocks than it was asked for.
TEST_F(DriverDutiesTest, FeatureBlocksThatDidNotFitAreAskedForAgain) {
  device_.num_feature_bits = 160;
  auto client = device_.Probe();
  std::vector<std::pair<uint32_t, uint32_t>> asked;
  bus_.handlers[wire::MessageId::kGetDeviceFeatures] = [&](const wire::Message& message) {
    const auto request =
        wire::Parse<wire::GetDeviceFeaturesRequest>(wire::Profile::V1(), message).value();
    asked.emplace_back(request.block_index, request.num_blocks);
    const uint32_t blocks = std::min(request.num_blocks, 2u);
    const std::array<uint32_t, 2> words = {request.block_index + 1, request.block_index + 2};
    bus_.Respond(
        message,
        wire::GetDeviceFeaturesResponse{
            .block_index = request.block_index,
            .num_blocks = blocks,
            .features = wire::WordView(std::as_bytes(std::span(words)).first(size_t{4} * blocks))});
  };
  const auto words = client->ReadFeatures();
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_THAT(*words, ElementsAre(1u, 2u, 3u, 4u, 5u));
  EXPECT_THAT(asked, ElementsAre(std::pair(0u, 5u), std::pair(2u, 3u), std::pair(4u, 1u)));
}

// At the binding's least message size everything takes more messages, and works.
class SmallMessagesTest : public testing::Test {
 protected:
  TestBus bus_{{.max_message_size = 52}};
  TestDevice device_{bus_, 9};
};

TEST_F(SmallMessagesTest, ADeviceIsInitialized) {
  auto client = device_.Probe();
  ASSERT_TRUE(client->Negotiate(wire::kFeatureEventIdx).ok());
  ASSERT_TRUE(client->SetUpQueue(0, 64).ok());
  EXPECT_TRUE(client->Start().ok());
}

// [driver:Basic Concepts / Revisions / Driver Limits]
TEST_F(SmallMessagesTest, FeaturesAreReadInSeveralMessages) {
  device_.num_feature_bits = 1024;
  auto client = device_.Probe();
  device_.log.clear();
  const auto words = client->ReadFeatures();
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_EQ((*words)[1], 0x101u);
  EXPECT_THAT(device_.log,
              ElementsAre("features 0+9", "features 9+9", "features 18+9", "features 27+5"));
}

// [driver:Basic Concepts / Revisions / Driver Limits]
TEST_F(SmallMessagesTest, TheConfigurationIsReadInSeveralMessages) {
  device_.config.resize(70);
  for (size_t i = 0; i < device_.config.size(); ++i) device_.config[i] = std::byte(i * 7);
  auto client = device_.Probe();
  device_.log.clear();
  std::vector<std::byte> all(70);
  ASSERT_TRUE(client->ReadConfig(0, all).ok());
  EXPECT_EQ(all, device_.config);
  EXPECT_THAT(device_.log, ElementsAre("get config 0+32", "get config 32+32", "get config 64+6"));
  EXPECT_TRUE(client->WriteConfig(0, std::span(all).first(32)).ok());
  EXPECT_EQ(client->WriteConfig(0, std::span(all).first(33)).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmsg::frontend
