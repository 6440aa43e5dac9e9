// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/frontend_bus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend-model/hostile/hostile_driver.h"
#include "tests/frontend-model/test_bus.h"

namespace vmsg::frontend {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void AnswerPings(TestBus& bus) {
  bus.handlers[wire::MessageId::kPing] = [&bus](const wire::Message& message) {
    const auto ping = wire::Parse<wire::PingRequest>(wire::Profile::V1(), message).value();
    bus.Respond(message, wire::PingResponse{ping.data});
  };
}

TEST(FrontendBus, PingIsEchoed) {
  TestBus bus;
  AnswerPings(bus);
  EXPECT_TRUE(bus.bus.Ping(0x12345678, Soon()).ok());
  EXPECT_EQ(bus.Of(wire::MessageId::kPing).size(), 1u);
}

TEST(FrontendBus, PingWithAnotherValueIsAnError) {
  TestBus bus;
  bus.handlers[wire::MessageId::kPing] = [&bus](const wire::Message& message) {
    bus.Respond(message, wire::PingResponse{1});
  };
  EXPECT_EQ(bus.bus.Ping(2, Soon()).status().code(), absl::StatusCode::kInternal);
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST(FrontendBus, ABackendThatDoesNotAnswerEndsInTheDeadline) {
  TestBus bus;
  EXPECT_EQ(bus.bus.Ping(1, Now()).status().code(), absl::StatusCode::kDeadlineExceeded);
}

// [driver:Basic Concepts / Common Message Format / Driver]
// Reserved bits of type are zero, dev_num is the device's, msg_size
// is the length.
TEST(FrontendBus, HeadersAreAsTheTransportWantsThem) {
  TestBus bus;
  bus.handlers[wire::MessageId::kGetDeviceStatus] = [&bus](const wire::Message& message) {
    bus.Respond(message, wire::GetDeviceStatusResponse{3});
  };
  ASSERT_TRUE(
      bus.bus.Call<wire::GetDeviceStatusResponse>(0x1234, wire::GetDeviceStatusRequest{}, Soon())
          .ok());
  ASSERT_EQ(bus.seen.size(), 1u);
  EXPECT_EQ(bus.seen[0].type, 0);
  EXPECT_EQ(bus.seen[0].envelope.dev_num, 0x1234);
  EXPECT_THAT(bus.seen[0].payload, IsEmpty());
}

TEST(FrontendBus, OutstandingRequestsAreAnsweredInAnyOrder) {
  TestBus bus;
  std::vector<wire::Envelope> asked;
  bus.handlers[wire::MessageId::kGetDeviceStatus] = [&](const wire::Message& message) {
    asked.push_back(message.envelope);
  };
  std::map<uint16_t, uint32_t> got;
  for (uint16_t device = 1; device <= 5; ++device) {
    ASSERT_TRUE(bus.bus
                    .Send(device, wire::GetDeviceStatusRequest{},
                          [&got, device](absl::StatusOr<wire::Message> message) {
                            got[device] = wire::Parse<wire::GetDeviceStatusResponse>(
                                              wire::Profile::V1(), message.value())
                                              .value()
                                              .status;
                          })
                    .ok());
  }
  ASSERT_TRUE(bus.bus.Flush().ok());
  ASSERT_EQ(asked.size(), 5u);
  for (const int i : {3, 0, 4, 2, 1}) {
    bus.Send(asked[i].dev_num, asked[i].token,
             wire::GetDeviceStatusResponse{asked[i].dev_num * 10u});
  }
  ASSERT_TRUE(bus.bus.Poll().value());
  EXPECT_THAT(got, ElementsAre(std::pair(1, 10), std::pair(2, 20), std::pair(3, 30),
                               std::pair(4, 40), std::pair(5, 50)));
}

TEST(FrontendBus, OneNotificationForABatchOfRequests) {
  TestBus bus;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(
        bus.bus.Send(1, wire::GetDeviceStatusRequest{}, [](absl::StatusOr<wire::Message>) {}).ok());
  }
  ASSERT_TRUE(bus.bus.Flush().ok());
  EXPECT_EQ(bus.events.notified, 1);
}

TEST(FrontendBus, TooManyOutstandingRequestsAreRefusedNotLost) {
  TestBus bus;
  for (size_t i = 0; i < FrontendBus::kMaxOutstanding; ++i) {
    ASSERT_TRUE(
        bus.bus.Send(1, wire::GetDeviceStatusRequest{}, [](absl::StatusOr<wire::Message>) {}).ok());
  }
  EXPECT_EQ(bus.bus.Send(1, wire::GetDeviceStatusRequest{}, [](absl::StatusOr<wire::Message>) {})
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

// A response that comes after its request was given up does not answer the next request, which may
// have the same slot.
TEST(FrontendBus, ALateResponseIsDropped) {
  TestBus bus;
  std::vector<wire::Envelope> asked;
  bus.handlers[wire::MessageId::kPing] = [&](const wire::Message& message) {
    asked.push_back(message.envelope);
  };
  for (size_t i = 0; i < FrontendBus::kMaxOutstanding; ++i) {
    EXPECT_FALSE(bus.bus.Ping(7, Now()).ok());
  }
  bus.handlers[wire::MessageId::kPing] = [&](const wire::Message& message) {
    for (const wire::Envelope& late : asked) bus.Send(0, late.token, wire::PingResponse{7});
    bus.Respond(message, wire::PingResponse{8});
  };
  EXPECT_TRUE(bus.bus.Ping(8, Soon()).ok());
  EXPECT_EQ(bus.bus.counters().stray_responses, FrontendBus::kMaxOutstanding);
}

TEST(FrontendBus, AResponseOfAnotherKindOrDeviceIsNoAnswer) {
  TestBus bus;
  bus.handlers[wire::MessageId::kGetDeviceStatus] = [&](const wire::Message& message) {
    bus.Send(2, message.envelope.token, wire::GetDeviceStatusResponse{1});
    bus.Send(1, message.envelope.token, wire::SetDeviceStatusResponse{2});
    bus.Respond(message, wire::GetDeviceStatusResponse{3});
  };
  const auto response =
      bus.bus.Call<wire::GetDeviceStatusResponse>(1, wire::GetDeviceStatusRequest{}, Soon());
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->status, 3u);
  EXPECT_EQ(bus.bus.counters().stray_responses, 2u);
}

// [bus:Basic Concepts / Common Message Format / Bus]
// [bus:Bus Messages / PING / Bus]
// The backend's PING is echoed, with its token.
TEST(FrontendBus, TheBackendsPingIsAnswered) {
  TestBus bus;
  bus.Send(0, 0xabcd, wire::PingRequest{99});
  ASSERT_TRUE(bus.bus.Poll().ok());
  const auto answers = bus.Of(wire::MessageId::kPing);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].type, 3);
  EXPECT_EQ(answers[0].envelope.token, 0xabcd);
  EXPECT_EQ(answers[0].payload, (std::vector<std::byte>{std::byte{99}, {}, {}, {}}));
}

// [driver:Basic Concepts / Versioning and Forward Compatibility / Driver]
TEST(FrontendBus, MalformedAndMisdirectedRecordsAreCountedAndDropped) {
  TestBus bus;
  const std::array<std::byte, 8> unknown = {std::byte{0}, std::byte{0x3f}, {}, {}, {},
                                            {},           std::byte{8},    {}};
  bus.SendRaw(unknown);
  bus.Send(1, 0, wire::EventAvail{0, 0});          // a driver's event
  bus.Send(1, 0, wire::GetDeviceStatusRequest{});  // a driver's request
  bus.Send(5, 0, wire::EventUsed{0});              // nobody drives device 5
  ASSERT_TRUE(bus.bus.Poll().ok());
  EXPECT_EQ(bus.bus.counters().malformed, 3u);
  EXPECT_EQ(bus.bus.counters().unknown_devices, 1u);
  EXPECT_THAT(bus.seen, IsEmpty());
}

TEST(FrontendBus, ABrokenRingFailsTheBusAndAllThatWaits) {
  TestBus bus;
  absl::Status got;
  ASSERT_TRUE(bus.bus
                  .Send(1, wire::GetDeviceStatusRequest{},
                        [&](absl::StatusOr<wire::Message> message) { got = message.status(); })
                  .ok());
  bus.page->in.prod = 12;
  EXPECT_EQ(bus.bus.Poll().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(got.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(bus.bus.Ping(1, Soon()).status().code(), absl::StatusCode::kDataLoss);
}

// [bus:Bus Messages / GET_DEVICES / Bus]
// Windows are aligned and followed to their end.
TEST(FrontendBus, DevicesAreFoundOverManyWindows) {
  TestBus bus;
  const std::vector<uint16_t> present = {0, 2, 5, 8, 1999, 2000, 40000, 65535};
  bus.handlers[wire::MessageId::kGetDevices] = [&](const wire::Message& message) {
    const auto request = wire::Parse<wire::GetDevicesRequest>(wire::Profile::V1(), message).value();
    EXPECT_EQ(request.offset % 8, 0);
    EXPECT_EQ(request.count % 8, 0);
    EXPECT_LE(request.offset + request.count, 65536);
    std::vector<std::byte> bitmap(request.count / 8);
    for (const uint16_t device : present) {
      if (device < request.offset || device >= request.offset + request.count) continue;
      bitmap[(device - request.offset) / 8] |= std::byte(1 << (device - request.offset) % 8);
    }
    const uint32_t next = request.offset + request.count;
    bus.Respond(message, wire::GetDevicesResponse{
                             .offset = request.offset,
                             .count = request.count,
                             .next_offset = static_cast<uint16_t>(next == 65536 ? 0 : next),
                             .bitmap = bitmap});
  };
  const auto devices = bus.bus.ListDevices(Soon());
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_EQ(*devices, present);
}

TEST(FrontendBus, AWalkThatGoesBackEndsWithAnError) {
  TestBus bus;
  bus.handlers[wire::MessageId::kGetDevices] = [&](const wire::Message& message) {
    bus.Respond(message, wire::GetDevicesResponse{.offset = 0, .count = 0, .next_offset = 0});
  };
  EXPECT_TRUE(bus.bus.ListDevices(Soon()).ok());  // nothing at all is an answer
  bus.handlers[wire::MessageId::kGetDevices] = [&](const wire::Message& message) {
    const std::array<std::byte, 2> bitmap = {};
    bus.Respond(message, wire::GetDevicesResponse{
                             .offset = 0, .count = 16, .next_offset = 8, .bitmap = bitmap});
  };
  EXPECT_EQ(bus.bus.ListDevices(Soon()).status().code(), absl::StatusCode::kInternal);
}

// [driver:Device Operation / Driver Notifications / Driver]
// [bus:Device Operation / Driver Notifications / Bus]
// A full ring: nothing is lost, EVENT_AVAILs of one queue become one, and the newest offset stands.
TEST(FrontendBus, AFullRingKeepsEventAvail) {
  TestBus bus;
  bus.held = true;
  for (uint32_t i = 0; i < 400; ++i) {
    ASSERT_TRUE(bus.bus.SendAvail(1, i % 3, i).ok());
    ASSERT_TRUE(bus.bus.Flush().ok());
  }
  bus.held = false;
  bus.Run();
  const size_t before = bus.seen.size();
  EXPECT_LT(before, 400u);
  ASSERT_TRUE(bus.bus.Poll().ok());
  bus.Run();
  ASSERT_EQ(bus.seen.size(), before + 3);
  std::map<uint32_t, uint32_t> last;
  for (const auto& event : bus.seen) {
    uint32_t words[2];
    std::memcpy(words, event.payload.data(), 8);
    last[words[0]] = words[1];
  }
  EXPECT_THAT(last, ElementsAre(std::pair(0, 399u), std::pair(1, 397u), std::pair(2, 398u)));
}

TEST(FrontendBus, ACallWaitsForSpaceInAFullRing) {
  TestBus bus;
  AnswerPings(bus);
  bus.held = true;
  for (uint32_t queue = 0; queue < 300; ++queue) ASSERT_TRUE(bus.bus.SendAvail(1, queue, 0).ok());
  ASSERT_TRUE(bus.bus.Flush().ok());
  // The peer gets its turn only when the frontend has gone to look for space.
  struct Peer : PollSource {
    explicit Peer(TestBus& b) : bus(b) {}
    bool Poll() override {
      if (++polls < 5) return false;
      bus.held = false;
      bus.Run();
      return true;
    }
    bool PrepareToSleep() override { return true; }
    TestBus& bus;
    int polls = 0;
  } peer(bus);
  bus.bus.AddPollSource(&peer);
  EXPECT_TRUE(bus.bus.Ping(3, Soon()).ok());
  bus.bus.RemovePollSource(&peer);
  EXPECT_EQ(bus.Of(wire::MessageId::kEventAvail).size(), 300u);
}

TEST(FrontendBus, WithoutSuppressionEveryRecordIsAnnounced) {
  TestBus bus({.suppression = false});
  AnswerPings(bus);
  ASSERT_TRUE(bus.bus.Ping(1, Soon()).ok());
  ASSERT_TRUE(bus.bus.Ping(2, Soon()).ok());
  EXPECT_GE(bus.events.notified, 4);  // two for `prod`, two for `cons`
}

TEST(FrontendBus, SleepTakesTheEventAndUnmasksIt) {
  TestBus bus;
  bus.bus.set_max_spin(Clock::duration::zero());
  bus.handlers[wire::MessageId::kPing] = nullptr;
  bus.handlers.clear();
  // The answer comes only while the frontend sleeps: from a descriptor it polls.
  std::optional<wire::Envelope> asked;
  bus.handlers[wire::MessageId::kPing] = [&](const wire::Message& message) {
    asked = message.envelope;
  };
  TestEvents alarm;
  alarm.Raise();
  bus.bus.AddFd(alarm.fd(), [&] {
    bus.bus.RemoveFd(alarm.fd());
    bus.Send(0, asked->token, wire::PingResponse{4});
    return absl::OkStatus();
  });
  EXPECT_TRUE(bus.bus.Ping(4, Soon()).ok());
  EXPECT_GE(bus.bus.link().sleeps(), 1u);
}

TEST(FrontendBus, AFailedFdEndsTheBus) {
  TestBus bus;
  TestEvents alarm;
  alarm.Raise();
  bus.bus.AddFd(alarm.fd(), [] { return absl::UnavailableError("the backend closed the bus"); });
  EXPECT_EQ(bus.bus.Ping(4, Soon()).status().code(), absl::StatusCode::kUnavailable);
}

TEST(FrontendBus, RawRecordsAreSeenAndKeptFromTheBus) {
  TestBus bus;
  AnswerPings(bus);
  RawBus raw(bus.bus, true);
  const uint32_t data = 5;
  ASSERT_TRUE(raw.PushMessage(2, 3, 0, 77, std::as_bytes(std::span(&data, 1))).ok());
  ASSERT_TRUE(raw.WaitForRecords(1, Soon()).ok());
  EXPECT_EQ(raw.records()[0].size(), 12u);
  EXPECT_EQ(bus.bus.counters().stray_responses, 0u);
}

}  // namespace
}  // namespace vmsg::frontend
