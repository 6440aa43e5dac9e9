// SPDX-License-Identifier: Apache-2.0
// Several requests at once: order, deferred answers, credit, the broken ring.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/bus/bus_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using wire::MessageId;

std::vector<uint16_t> Tokens(const std::vector<Received>& all) {
  std::vector<uint16_t> tokens;
  tokens.reserve(all.size());
  for (const Received& one : all) tokens.push_back(one.token());
  return tokens;
}

class BusRequestsTest : public BusRig {
 protected:
  explicit BusRequestsTest(size_t half = 8192) : BusRig(half) {}
  // Device 1 with a buffer in flight: its reset takes until that comes back.
  void MakeSlow() {
    AddDevice(1);
    RingDriver ring = GoLive(1);
    Offer(ring, 1, 0);
    ASSERT_EQ(devices_[1]->held.size(), 1u);
  }
};

// [bus:Basic Concepts / Ordering / Bus]
TEST_F(BusRequestsTest, ManyOutstandingRequestsAreAllAnsweredInOrder) {
  AddDevice(1);
  std::vector<uint16_t> tokens;
  for (uint16_t token = 100; token < 120; ++token) {
    Push(1, token, wire::GetDeviceStatusRequest{});
    tokens.push_back(token);
  }
  Publish();
  EXPECT_EQ(Tokens(Receive()), tokens);
}

// [device:Basic Concepts / Common Message Format / Device]
// [bus:Basic Concepts / Common Message Format / Bus]
TEST_F(BusRequestsTest, TokensMayRepeatAndAreOnlyEchoed) {
  AddDevice(1);
  for (int i = 0; i < 3; ++i) Push(1, 0xffff, wire::GetDeviceStatusRequest{});
  Publish();
  EXPECT_THAT(Tokens(Receive()), ElementsAre(0xffff, 0xffff, 0xffff));
}

// [bus:Basic Concepts / Ordering / Bus]
TEST_F(BusRequestsTest, RequestsBehindADeferredOneWaitForIt) {
  MakeSlow();
  Push(1, 10, wire::SetDeviceStatusRequest{0});
  Push(1, 11, wire::GetDeviceStatusRequest{});
  Push(1, 12, wire::GetVqueueRequest{0});
  Publish();
  EXPECT_THAT(Receive(), IsEmpty());
  devices_[1]->ReturnOne();
  Run();
  const std::vector<Received> all = Receive();
  ASSERT_THAT(Tokens(all), ElementsAre(10, 11, 12));
  EXPECT_EQ(all[1].As<wire::GetDeviceStatusResponse>().status, 0u);
  EXPECT_EQ(all[2].As<wire::GetVqueueResponse>().cur_size, 0u);
  EXPECT_THAT(resets_, ElementsAre(1));
}

TEST_F(BusRequestsTest, OtherDevicesDoNotWaitForASlowOne) {
  MakeSlow();
  AddDevice(2);
  Push(1, 10, wire::SetDeviceStatusRequest{0});
  Push(2, 11, wire::GetDeviceStatusRequest{});
  Push(0, 12, wire::PingRequest{1});
  Publish();
  EXPECT_THAT(Tokens(Receive()), ElementsAre(11, 12));
}

// [bus:Basic Concepts / Ordering / Bus]
TEST_F(BusRequestsTest, FloodBehindADeferredRequestIsHeldBackAndNothingIsLost) {
  MakeSlow();
  const uint64_t before = endpoint_->counters().messages_received;
  std::vector<uint16_t> tokens = {10};
  Push(1, 10, wire::SetDeviceStatusRequest{0});
  for (uint16_t i = 0; i < 200; ++i) {
    Push(1, 1000 + i, wire::GetDeviceStatusRequest{});
    tokens.push_back(1000 + i);
  }
  Publish();
  // The one in progress, those that wait, and the one that found no place among them.
  EXPECT_EQ(endpoint_->counters().messages_received - before, 1 + backend::kMaxPendingRequests + 1);
  devices_[1]->ReturnOne();
  Run();
  std::vector<uint16_t> received;
  for (std::vector<Received> some = Receive(); !some.empty(); some = Receive()) {
    for (uint16_t token : Tokens(some)) received.push_back(token);
  }
  EXPECT_EQ(received, tokens);
}

// [bus:Basic Concepts / Ordering / Bus]
TEST_F(BusRequestsTest, RequestsOfADeviceThatIsRemovedMeanwhileAreAllAnswered) {
  MakeSlow();
  Push(1, 10, wire::SetDeviceStatusRequest{0});
  Push(1, 11, wire::GetDeviceInfoRequest{});
  Publish();
  bool gone = false;
  endpoint_->RemoveDevice(1, [&] { gone = true; });
  Run();
  Push(1, 12, wire::GetDeviceInfoRequest{});
  Publish();
  EXPECT_FALSE(gone);
  EXPECT_THAT(Receive(), IsEmpty());
  devices_[1]->ReturnOne();
  Run();
  EXPECT_TRUE(gone);
  const std::vector<Received> all = Receive();
  ASSERT_THAT(Tokens(all), ElementsAre(10, 11, 12, 0));
  EXPECT_EQ(all[1].As<wire::GetDeviceInfoResponse>().device_id, 0u);
  EXPECT_EQ(all[3].As<wire::EventDevice>().device_bus_state, wire::kDeviceRemoved);
}

// [bus:Device Operation / Hotplug and Removal / Bus]
// A device that still writes the driver's memory neither says that it is gone nor answers a reset.
TEST_F(BusRequestsTest, DeviceThatIsTakenAwaySaysNothingBeforeItHasDrained) {
  MakeSlow();
  endpoint_->RemoveDevice(1, [] {});
  Run();
  EXPECT_THAT(Receive(), IsEmpty());
  Push(1, 10, wire::SetDeviceStatusRequest{0});
  Push(1, 11, wire::ResetVqueueRequest{0});
  Push(0, 12, wire::GetDevicesRequest{.offset = 0, .count = 8});
  Publish();
  // Only the bus answers, and it does not deny the device yet.
  const Received listed = ReceiveOne();
  ASSERT_EQ(listed.token(), 12);
  EXPECT_EQ(listed.As<wire::GetDevicesResponse>().bitmap[0], std::byte{0b10});
  devices_[1]->ReturnOne(64);
  Run();
  EXPECT_THAT(Tokens(Receive()), ElementsAre(10, 11, 0));
}

TEST_F(BusRequestsTest, RemovalThatIsAskedForTwiceIsReportedToBoth) {
  MakeSlow();
  int gone = 0;
  endpoint_->RemoveDevice(1, [&] { ++gone; });
  endpoint_->RemoveDevice(1, [&] { ++gone; });
  Run();
  EXPECT_EQ(gone, 0);
  devices_[1]->ReturnOne();
  Run();
  EXPECT_EQ(gone, 2);
  EXPECT_EQ(ReceiveOne().id(), MessageId::kEventDevice);
}

// Events that are due when the driver gets its memory back are not sent after that.
class ForgottenEventsTest : public BusRequestsTest {
 protected:
  // What a device that returns a buffer and changes its configuration leaves due when the ring has
  // no room: the test fills it, then makes room once `request` has been taken.
  template <class Request>
  std::vector<MessageId> EventsAfterTheAnswerOf(const Request& request) {
    MakeSlow();
    RingDriver ring(memory_, 16, 4096);
    devices_[1]->ReturnOne(64);
    devices_[1]->host->ChangeConfig(0, 1, [] {});
    // In the same turn, before the events are flushed.
    Push(1, 99, request);
    Publish();
    std::vector<MessageId> after;
    bool answered = false;
    for (const Received& received : Receive()) {
      if (answered) after.push_back(received.id());
      answered |= received.token() == 99;
    }
    EXPECT_TRUE(answered);
    return after;
  }
};

// [device:Device Operation / Reset / Device]
TEST_F(ForgottenEventsTest, NoneFollowsTheAnswerOfAReset) {
  EXPECT_THAT(EventsAfterTheAnswerOf(wire::SetDeviceStatusRequest{0}), IsEmpty());
}

// [device:Transport Messages / VIRTIO_MSG_RESET_VQUEUE / Device]
TEST_F(ForgottenEventsTest, OfAQueueNoneFollowsTheAnswerOfItsReset) {
  EXPECT_THAT(EventsAfterTheAnswerOf(wire::ResetVqueueRequest{0}),
              ElementsAre(MessageId::kEventConfig));
}

TEST_F(ForgottenEventsTest, OfAQueueThatIsNotResetTheyFollow) {
  EXPECT_THAT(EventsAfterTheAnswerOf(wire::ResetVqueueRequest{1}),
              ElementsAre(MessageId::kEventConfig, MessageId::kEventUsed));
}

TEST_F(BusRequestsTest, DeviceNumberIsFreeAgainOnlyWhenItHasDrained) {
  MakeSlow();
  endpoint_->RemoveDevice(1, [] {});
  Run();
  auto view = std::make_shared<HeldDevice::View>();
  EXPECT_TRUE(
      absl::IsAlreadyExists(endpoint_->AddDevice(1, std::make_unique<HeldDevice>(view), true)));
  devices_[1]->ReturnOne();
  Run();
  AddDevice(1, /*announce=*/true);
}

// The first records of a ring cross its end again and again here.
class SmallRingTest : public BusRequestsTest {
 protected:
  SmallRingTest() : BusRequestsTest(512) {}
};

TEST_F(SmallRingTest, RequestIsTakenOnlyWhenItsAnswerFits) {
  AddDevice(1);
  constexpr uint16_t kRequests = 40;
  for (uint16_t token = 1; token <= kRequests; ++token) {
    Push(1, token, wire::GetDeviceStatusRequest{});
  }
  Publish();
  const uint64_t taken = endpoint_->counters().messages_received;
  EXPECT_LT(taken, kRequests) << "a response of the largest size would not have fitted";
  EXPECT_GT(endpoint_->counters().messages_sent, 0u);
  std::vector<uint16_t> tokens;
  for (std::vector<Received> some = Receive(); !some.empty(); some = Receive()) {
    for (uint16_t token : Tokens(some)) tokens.push_back(token);
  }
  ASSERT_EQ(tokens.size(), kRequests);
  EXPECT_TRUE(std::is_sorted(tokens.begin(), tokens.end()));
}

TEST_F(SmallRingTest, LargestAnswersComeAsManyAsFit) {
  const size_t fitting = 512 / wire::PaddedRecordSize(message_size_);
  for (uint16_t token = 1; token <= 20; ++token) Push(0, token, wire::GetDevicesRequest{0, 2000});
  Publish();
  std::vector<uint16_t> tokens;
  for (std::vector<Received> some = Receive(); !some.empty(); some = Receive()) {
    EXPECT_EQ(some.size(), std::min(20 - tokens.size(), fitting));
    for (uint16_t token : Tokens(some)) tokens.push_back(token);
  }
  EXPECT_EQ(tokens.size(), 20u);
}

TEST_F(BusRequestsTest, RingThatLiesAboutItsProducerClosesTheBus) {
  interface_->out.prod = 8192 + 8;
  doorbell_.Raise();
  Run();
  EXPECT_THAT(broken_, ElementsAre(HasSubstr("prod")));
  // Nothing more happens on it.
  Push(0, 1, wire::PingRequest{1});
  Publish();
  EXPECT_THAT(Receive(), IsEmpty());
  EXPECT_EQ(broken_.size(), 1u);
}

TEST_F(BusRequestsTest, RingThatLiesAboutItsConsumerClosesTheBus) {
  interface_->in.cons = 64;
  Push(0, 1, wire::PingRequest{1});
  Publish();
  EXPECT_THAT(broken_, ElementsAre(HasSubstr("cons")));
}

TEST_F(BusRequestsTest, RecordOfAnImpossibleSizeClosesTheBus) {
  std::vector<std::byte> record(8);
  record[6] = std::byte{4};
  PushRecord(record);
  Publish();
  EXPECT_THAT(broken_, ElementsAre(HasSubstr("msg_size")));
}

TEST_F(BusRequestsTest, BrokenBusDrainsItsDevicesWhenItCloses) {
  MakeSlow();
  interface_->out.prod += 1;
  doorbell_.Raise();
  Run();
  ASSERT_EQ(broken_.size(), 1u);
  bool closed = false;
  endpoint_->Close([&] { closed = true; });
  Run();
  EXPECT_FALSE(closed) << "a buffer is in flight";
  devices_[1]->ReturnOne();
  Run();
  EXPECT_TRUE(closed);
  EXPECT_TRUE(devices_[1]->destroyed);
  endpoint_.reset();
}

TEST_F(BusRequestsTest, ClosingBusTouchesTheRingNoMore) {
  AddDevice(1);
  RingDriver ring = GoLive(1);
  Offer(ring, 1, 0);
  const uint32_t prod = interface_->in.prod;
  const uint32_t cons = interface_->out.cons;
  bool closed = false;
  endpoint_->Close([&] { closed = true; });
  Push(0, 1, wire::PingRequest{1});
  Publish();
  devices_[1]->ReturnOne();
  Run();
  EXPECT_TRUE(closed);
  EXPECT_EQ(interface_->in.prod, prod);
  EXPECT_EQ(interface_->out.cons, cons);
  endpoint_.reset();
}

TEST_F(BusRequestsTest, BusWithoutDevicesClosesAtOnce) {
  bool closed = false;
  endpoint_->Close([&] { closed = true; });
  Run();
  EXPECT_TRUE(closed);
  endpoint_.reset();
}

}  // namespace
}  // namespace vmsg::testing
