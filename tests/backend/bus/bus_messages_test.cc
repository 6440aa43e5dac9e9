// SPDX-License-Identifier: Apache-2.0
// Enumeration, liveness, hotplug, and what is dropped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/bus/bus_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using wire::MessageId;

class BusMessagesTest : public BusRig {
 protected:
  wire::GetDevicesResponse GetDevices(uint16_t offset, uint16_t count) {
    auto response = Call<wire::GetDevicesResponse>(0, wire::GetDevicesRequest{offset, count});
    EXPECT_EQ(response.offset, offset);
    EXPECT_EQ(response.bitmap.size(), response.count / 8u);
    return response;
  }
  // Device numbers a bitmap says are there.
  static std::vector<int> Present(const wire::GetDevicesResponse& response) {
    std::vector<int> numbers;
    for (int i = 0; i < response.count; ++i) {
      if ((std::to_integer<unsigned>(response.bitmap[i / 8]) >> i % 8 & 1) != 0) {
        numbers.push_back(response.offset + i);
      }
    }
    return numbers;
  }
  // The record is sent, and nothing whatever happens but that it is counted.
  void ExpectDropped(const std::vector<std::byte>& record) {
    const uint64_t before = endpoint_->counters().malformed;
    PushRecord(record);
    Publish();
    EXPECT_THAT(Receive(), IsEmpty());
    EXPECT_EQ(endpoint_->counters().malformed, before + 1);
    EXPECT_THAT(broken_, IsEmpty());
  }
  // type, msg_id, dev_num, payload; token 1.
  static std::vector<std::byte> Raw(uint8_t type, uint8_t id, uint16_t device,
                                    const std::vector<uint8_t>& payload) {
    std::vector<std::byte> record;
    const auto put = [&](uint32_t value, int bytes) {
      for (int i = 0; i < bytes; ++i) record.push_back(static_cast<std::byte>(value >> (8 * i)));
    };
    put(type, 1);
    put(id, 1);
    put(device, 2);
    put(1, 2);
    put(static_cast<uint32_t>(8 + payload.size()), 2);
    for (uint8_t byte : payload) put(byte, 1);
    return record;
  }
};

// [bus:Basic Concepts / Device Numbers / Assignment]
// [bus:Bus Messages / GET_DEVICES / Bus]
TEST_F(BusMessagesTest, DevicesAreListedLeastSignificantBitFirst) {
  for (uint16_t number : {0, 2, 5, 15}) AddDevice(number);
  const auto response = GetDevices(0, 16);
  EXPECT_EQ(response.count, 16);
  EXPECT_THAT(Present(response), ElementsAre(0, 2, 5, 15));
  EXPECT_EQ(response.next_offset, 0);
}

// [bus:Bus Messages / GET_DEVICES / Bus]
TEST_F(BusMessagesTest, NextOffsetNamesTheWindowOfTheNextDevice) {
  for (uint16_t number : {1, 4000, 65535}) AddDevice(number);
  EXPECT_EQ(GetDevices(0, 8).next_offset, 4000);
  const auto second = GetDevices(4000, 8);
  EXPECT_THAT(Present(second), ElementsAre(4000));
  EXPECT_EQ(second.next_offset, 65528);
  const auto third = GetDevices(65528, 8);
  EXPECT_THAT(Present(third), ElementsAre(65535));
  EXPECT_EQ(third.next_offset, 0);
}

// [bus:Bus Messages / GET_DEVICES / Bus]
TEST_F(BusMessagesTest, WindowIsCutToWhatAMessageCarries) {
  AddDevice(2000);
  const auto response = GetDevices(0, 65528);
  EXPECT_EQ(response.count, 8 * (message_size_ - 8 - 6));
  EXPECT_GE(response.next_offset, response.offset + response.count);
  EXPECT_THAT(Present(GetDevices(response.next_offset, 8)), ElementsAre(2000));
}

TEST_F(BusMessagesTest, WindowEndsAtTheLastDeviceNumber) {
  const auto response = GetDevices(65528, 64);
  EXPECT_EQ(response.count, 8);
  EXPECT_EQ(response.next_offset, 0);
}

// [bus:Bus Messages / GET_DEVICES / Bus]
TEST_F(BusMessagesTest, WindowsThatAreNotMultiplesOfEightAreEmpty) {
  AddDevice(0);
  EXPECT_EQ(GetDevices(4, 8).count, 0);
  EXPECT_EQ(GetDevices(0, 12).count, 0);
  EXPECT_EQ(GetDevices(0, 0).count, 0);
}

// [bus:Basic Concepts / Relationship between bus and transport / Bus Messages]
// [bus:Bus Messages / PING / Bus]
TEST_F(BusMessagesTest, PingIsEchoed) {
  EXPECT_EQ(Call<wire::PingResponse>(0, wire::PingRequest{0xdeadbeef}).data, 0xdeadbeefu);
  EXPECT_EQ(Call<wire::PingResponse>(0, wire::PingRequest{0}).data, 0u);
}

TEST_F(BusMessagesTest, PingOfOursIsAnsweredAndCountedOnce) {
  endpoint_->Ping(77);
  Run();
  const Received ping = ReceiveOne();
  EXPECT_EQ(ping.id(), MessageId::kPing);
  EXPECT_FALSE(ping.response());
  EXPECT_EQ(ping.As<wire::PingRequest>().data, 77u);
  Send(0, ping.token(), wire::PingResponse{78});
  EXPECT_EQ(endpoint_->counters().pings_answered, 0u);
  Send(0, ping.token(), wire::PingResponse{77});
  EXPECT_EQ(endpoint_->counters().pings_answered, 1u);
  Send(0, ping.token(), wire::PingResponse{77});
  EXPECT_EQ(endpoint_->counters().pings_answered, 1u);
  EXPECT_THAT(Receive(), IsEmpty());
}

TEST_F(BusMessagesTest, UnansweredPingsAreForgotten) {
  for (uint32_t i = 0; i < 1000; ++i) {
    endpoint_->Ping(i);
    Run();
    Receive();
  }
  EXPECT_EQ(endpoint_->counters().messages_sent, 1000u);
}

// [bus:Device Discovery / Bus]
// [bus:Device Operation / Hotplug and Removal / Bus]
TEST_F(BusMessagesTest, DeviceThatIsAddedIsAnnouncedAndListed) {
  AddDevice(9, /*announce=*/true);
  Run();
  const auto event = ReceiveOne().As<wire::EventDevice>();
  EXPECT_EQ(event.device_number, 9);
  EXPECT_EQ(event.device_bus_state, wire::kDeviceReady);
  EXPECT_THAT(Present(GetDevices(0, 16)), ElementsAre(9));
  EXPECT_EQ(Call<wire::GetDeviceInfoResponse>(9, wire::GetDeviceInfoRequest{}).device_id, 42u);
}

// [bus:Device Operation / Hotplug and Removal / Bus]
TEST_F(BusMessagesTest, DeviceThatIsRemovedIsAnnouncedAndNotListed) {
  AddDevice(9);
  bool gone = false;
  endpoint_->RemoveDevice(9, [&] { gone = true; });
  Run();
  EXPECT_TRUE(gone);
  EXPECT_TRUE(devices_[9]->destroyed);
  const auto event = ReceiveOne().As<wire::EventDevice>();
  EXPECT_EQ(event.device_number, 9);
  EXPECT_EQ(event.device_bus_state, wire::kDeviceRemoved);
  EXPECT_THAT(Present(GetDevices(0, 16)), IsEmpty());
}

TEST_F(BusMessagesTest, RemovalIsAskedForWithAStateOfOurs) {
  AddDevice(9);
  EXPECT_TRUE(endpoint_->AskForRemoval(9).ok());
  Run();
  EXPECT_EQ(ReceiveOne().As<wire::EventDevice>().device_bus_state, wire::kDeviceRemovalRequested);
  EXPECT_FALSE(endpoint_->AskForRemoval(8).ok());
}

TEST_F(BusMessagesTest, DeviceEventsOfAFrontendThatDoesNotReadStayFew) {
  for (int i = 0; i < 10'000; ++i) {
    AddDevice(3, /*announce=*/true);
    endpoint_->RemoveDevice(3, [] {});
    Run();
  }
  size_t events = 0;
  Received last;
  // As the frontend reads, what waited comes: the ring's, and few for this number.
  while (true) {
    std::vector<Received> some = Receive();
    if (some.empty()) break;
    events += some.size();
    last = some.back();
  }
  EXPECT_LE(events, 8192 / 16 + 1 + backend::kMaxEventsOfNumber);
  EXPECT_EQ(last.As<wire::EventDevice>().device_bus_state, wire::kDeviceRemoved);
}

// [bus:Device Operation / Hotplug and Removal / Bus]
// READY is not swallowed by the REMOVED that follows before the frontend reads.
TEST_F(BusMessagesTest, DeviceThatCameAndWentWhileNobodyReadIsAnnouncedBothTimes) {
  Push(0, 1, wire::PingRequest{1});
  AddDevice(3, /*announce=*/true);
  EXPECT_TRUE(endpoint_->AskForRemoval(3).ok());
  endpoint_->RemoveDevice(3, [] {});
  Run();
  std::vector<uint16_t> states;
  for (const Received& received : Receive()) {
    if (received.id() != MessageId::kEventDevice) continue;
    states.push_back(received.As<wire::EventDevice>().device_bus_state);
  }
  EXPECT_THAT(states, ElementsAre(wire::kDeviceReady, wire::kDeviceRemoved));
}

// [bus:Basic Concepts / Device Numbers / Assignment]
TEST_F(BusMessagesTest, SecondDeviceOfANumberIsRefused) {
  AddDevice(3);
  EXPECT_TRUE(absl::IsAlreadyExists(endpoint_->AddDevice(
      3, std::make_unique<HeldDevice>(std::make_shared<HeldDevice::View>()), false)));
}

TEST_F(BusMessagesTest, BusTakesNoMoreThanItsDevices) {
  for (uint16_t i = 0; i < backend::kMaxDevicesPerBus; ++i) AddDevice(i);
  EXPECT_TRUE(absl::IsResourceExhausted(endpoint_->AddDevice(
      1000, std::make_unique<HeldDevice>(std::make_shared<HeldDevice::View>()), false)));
}

// [bus:Basic Concepts / Device Numbers / Assignment]
TEST_F(BusMessagesTest, RequestToAnUnknownDeviceIsAnsweredWithZeros) {
  EXPECT_EQ(Call<wire::GetDeviceInfoResponse>(7, wire::GetDeviceInfoRequest{}).device_id, 0u);
  EXPECT_EQ(
      Call<wire::GetDeviceFeaturesResponse>(7, wire::GetDeviceFeaturesRequest{0, 2}).num_blocks,
      0u);
  EXPECT_EQ(Call<wire::GetConfigResponse>(7, wire::GetConfigRequest{0, 8}).length, 0u);
  EXPECT_EQ(Call<wire::GetDeviceStatusResponse>(7, wire::GetDeviceStatusRequest{}).status, 0u);
  EXPECT_EQ(Call<wire::SetDeviceStatusResponse>(7, wire::SetDeviceStatusRequest{1}).status, 0u);
  EXPECT_EQ(Call<wire::GetVqueueResponse>(7, wire::GetVqueueRequest{3}).max_size, 0u);
  Call<wire::SetDriverFeaturesResponse>(7, wire::SetDriverFeaturesRequest{0, 0, {}});
  Call<wire::SetConfigResponse>(7, wire::SetConfigRequest{0, 0, 0, {}});
  Call<wire::SetVqueueResponse>(7, wire::SetVqueueRequest{});
  Call<wire::ResetVqueueResponse>(7, wire::ResetVqueueRequest{0});
  EXPECT_EQ(Call<wire::GetShmResponse>(7, wire::GetShmRequest{2}).length, 0u);
  EXPECT_EQ(endpoint_->counters().unknown_device, 11u);
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST_F(BusMessagesTest, EventToAnUnknownDeviceIsNotAnswered) {
  Send(7, 0, wire::EventAvail{0, 0});
  EXPECT_THAT(Receive(), IsEmpty());
  EXPECT_EQ(endpoint_->counters().unknown_device, 1u);
}

// [device:Basic Concepts / Versioning and Forward Compatibility / Device]
// [bus:Basic Concepts / Versioning and Forward Compatibility / Bus]
// [bus:Basic Concepts / Error Signaling / Bus]
TEST_F(BusMessagesTest, UnknownMessageIdIsDropped) {
  AddDevice(0);
  ExpectDropped(Raw(0, 0x00, 0, {}));
  ExpectDropped(Raw(0, 0x01, 0, {}));
  ExpectDropped(Raw(0, 0x0d, 0, {}));
  ExpectDropped(Raw(0, 0x43, 0, {}));
  ExpectDropped(Raw(0, 0x80, 0, {}));
  ExpectDropped(Raw(2, 0x02 + 2, 0, {}));
  ExpectDropped(Raw(2, 0xc0, 0, {}));
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST_F(BusMessagesTest, WrongPayloadLengthIsDropped) {
  AddDevice(0);
  ExpectDropped(Raw(0, 0x02, 0, {1}));                       // GET_DEVICE_INFO has none
  ExpectDropped(Raw(0, 0x08, 0, {1, 0}));                    // SET_DEVICE_STATUS is short
  ExpectDropped(Raw(0, 0x08, 0, {1, 0, 0, 0, 0, 0, 0, 0}));  // and long
  ExpectDropped(Raw(2, 0x03, 0, {1}));
  EXPECT_EQ(endpoint_->DeviceStatus(0), 0u);
}

// [device:Basic Concepts / Error Signaling / Device]
TEST_F(BusMessagesTest, CountsThatDisagreeWithThePayloadAreDropped) {
  AddDevice(0);
  // SET_DRIVER_FEATURES of two blocks with one.
  ExpectDropped(Raw(0, 0x04, 0, {0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0}));
  // SET_CONFIG of 8 bytes with 4.
  ExpectDropped(Raw(0, 0x06, 0, {0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 2, 3, 4}));
  EXPECT_EQ(devices_[0]->config[0], std::byte{0x11});
}

// [bus:Basic Concepts / Common Message Format / Bus]
TEST_F(BusMessagesTest, BusMessageWithADeviceNumberIsDropped) {
  ExpectDropped(Raw(2, 0x03, 1, {1, 0, 0, 0}));
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST_F(BusMessagesTest, WhatOnlyTheDeviceSendsIsDropped) {
  AddDevice(0);
  ExpectDropped(Raw(0, 0x42, 0, {0, 0, 0, 0}));              // EVENT_USED
  ExpectDropped(Raw(0, 0x40, 0, std::vector<uint8_t>(16)));  // EVENT_CONFIG
  ExpectDropped(Raw(2, 0x40, 0, {0, 0, 1, 0}));              // EVENT_DEVICE
  ExpectDropped(Raw(1, 0x07, 0, {0, 0, 0, 0}));              // a response
  ExpectDropped(Raw(3, 0x03, 0, {0, 0, 0, 0}));              // to no ping of ours
  ExpectDropped(Raw(3, 0x02, 0, {0, 0, 8, 0, 0, 0, 0xff}));  // GET_DEVICES' response
}

// [device:Basic Concepts / Common Message Format / Device]
// [bus:Basic Concepts / Common Message Format / Bus]
TEST_F(BusMessagesTest, ReservedTypeBitsAreIgnored) {
  PushRecord(Raw(0xfe, 0x03, 0, {9, 0, 0, 0}));
  Publish();
  const Received pong = ReceiveOne();
  EXPECT_EQ(pong.As<wire::PingResponse>().data, 9u);
  EXPECT_EQ(pong.record[0], std::byte{3}) << "and are zero in what we send";
}

// [device:Basic Concepts / Common Message Format / Device]
// SET_VQUEUE with all ones where it is reserved.
TEST_F(BusMessagesTest, ReservedFieldsOfARequestAreIgnored) {
  AddDevice(4);
  const RingDriver ring = GoLive(4);
  std::vector<uint8_t> payload(40, 0xff);
  const auto put = [&](size_t at, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) payload[at + i] = static_cast<uint8_t>(value >> (8 * i));
  };
  const auto& layout = ring.layout();
  put(0, 1, 4);            // queue 1
  put(8, layout.size, 4);  // 4 and 12 are reserved
  put(16, layout.desc + 32 * 4096, 8);
  put(24, layout.driver + 32 * 4096, 8);
  put(32, layout.device + 32 * 4096, 8);
  PushRecord(Raw(0, 0x0a, 4, payload));
  Publish();
  EXPECT_EQ(ReceiveOne().id(), MessageId::kSetVqueue);
  const auto queue = Call<wire::GetVqueueResponse>(4, wire::GetVqueueRequest{1});
  EXPECT_EQ(queue.cur_size, layout.size);
  EXPECT_EQ(queue.desc_addr, layout.desc + 32 * 4096);
  EXPECT_THAT(problems_, IsEmpty());
}

// [bus:Basic Concepts / Relationship between bus and transport / Transport Message Forwarding]
TEST_F(BusMessagesTest, RequestsReachTheDeviceTheyNameUnchanged) {
  for (uint16_t number : {1, 2, 513}) AddDevice(number);
  const std::vector<std::byte> data = {std::byte{0xde}, std::byte{0x00}, std::byte{0xff}};
  Call<wire::SetConfigResponse>(513, wire::SetConfigRequest{0, 4, 3, data});
  Call<wire::SetDeviceStatusResponse>(2, wire::SetDeviceStatusRequest{wire::kStatusAcknowledge});
  for (uint16_t number : {1, 2, 513}) {
    EXPECT_EQ(devices_[number]->config[4], number == 513 ? std::byte{0xde} : std::byte{0x11});
    EXPECT_EQ(devices_[number]->config[6], number == 513 ? std::byte{0xff} : std::byte{0x11});
    EXPECT_EQ(endpoint_->DeviceStatus(number), number == 2 ? wire::kStatusAcknowledge : 0u);
  }
}

TEST_F(BusMessagesTest, MalformedMessagesAreReportedWithTheirReason) {
  ExpectDropped(Raw(0, 0x0d, 0, {}));
  ASSERT_EQ(problems_.size(), 1u);
  EXPECT_THAT(problems_[0].second, HasSubstr("0x0d"));
}

TEST_F(BusMessagesTest, MessagesAfterAMalformedOneAreServed) {
  PushRecord(Raw(0, 0x0d, 0, {}));
  Push(0, 5, wire::PingRequest{1});
  Publish();
  EXPECT_EQ(ReceiveOne().token(), 5);
}

}  // namespace
}  // namespace vmsg::testing
