// SPDX-License-Identifier: Apache-2.0
// A session with real devices' registry left out of it: removal with its time limit, the end, on
// simulated time. The rng device is the one that needs nothing opened.
#include "backend/session/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/backend/message_size.h"
#include "tests/backend/simulated_loop.h"
#include "tests/virtqueue/guest_memory.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FakePort final : public backend::BoundPort {
 public:
  explicit FakePort(FakePort** self) { *self = this; }
  void SetHandler(absl::AnyInvocable<void()> on_event) override { handler = std::move(on_event); }
  void Notify() override { ++notified; }
  void Unmask() override {}
  absl::AnyInvocable<void()> handler;
  int notified = 0;
};

class NoMapper final : public backend::WindowMapper {
 public:
  void Map(uint32_t, uint32_t,
           absl::AnyInvocable<void(absl::StatusOr<grants::GrantMapping>)>) override {
    ADD_FAILURE();
  }
  void Unmap(grants::GrantMapping, absl::AnyInvocable<void()>) override { ADD_FAILURE(); }
};

class RecordingListener final : public backend::SessionListener {
 public:
  struct Log {
    std::vector<uint16_t> removed;
    std::vector<backend::RemovalStage> stages;  // all of them
    std::vector<std::string> broken;
  };
  explicit RecordingListener(std::shared_ptr<Log> log) : log_(std::move(log)) {}
  void OnSessionBroken(const absl::Status& why) override {
    log_->broken.emplace_back(why.message());
  }
  void OnRemoval(uint16_t number, backend::RemovalStage stage) override {
    log_->stages.push_back(stage);
    if (stage == backend::RemovalStage::kRemoved) log_->removed.push_back(number);
  }

 private:
  const std::shared_ptr<Log> log_;
};

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    backend::Session::Parts parts;
    parts.loop = &loop_;
    parts.environment.loop = &loop_;
    parts.port = std::make_unique<FakePort>(&port_);
    parts.mapper = std::make_unique<NoMapper>();
    parts.listener = std::make_unique<RecordingListener>(log_);
    parts.log = std::make_shared<backend::RateLimitedLog>("guest 3 bus 0: ");
    parts.ring.interface = pages_.MapPages(1);
    parts.ring.data = pages_.MapPages(4);
    parts.window = pages_.MapPages(64);
    ring_ = parts.ring.memory();
    auto session = backend::Session::Start(std::move(parts), {.name = "guest 3 bus 0",
                                                              .message_size = TestMessageSize(),
                                                              .suppression = true,
                                                              .max_window_pages = 64});
    EXPECT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    to_.emplace(&ring_.interface->out,
                std::span(const_cast<std::byte*>(ring_.out.data()), ring_.out.size()), true);
    from_.emplace(&ring_.interface->in, ring_.in, true, TestMessageSize());
    EXPECT_TRUE(session_->AddDevice(Opened(2), false).ok());
  }
  ~SessionTest() override {
    if (session_ != nullptr) Close();
  }

  static backend::OpenedDevice Opened(uint16_t number) {
    backend::OpenedDevice opened;
    opened.number = number;
    opened.type = "rng";
    return opened;
  }
  backend::SessionRemains Close() {
    backend::SessionRemains remains;
    bool closed = false;
    session_->Close([&](backend::SessionRemains got) {
      remains = std::move(got);
      closed = true;
    });
    EXPECT_TRUE(loop_.RunUntilIdle());
    EXPECT_TRUE(closed);
    session_.reset();
    return remains;
  }
  void SetStatus(uint16_t device, uint32_t status) {
    std::vector<std::byte> record(wire::kMaxMessageSize);
    auto size = wire::Encode(wire::Profile::V1(), {device, 1}, wire::SetDeviceStatusRequest{status},
                             record);
    record.resize(*size);
    ASSERT_TRUE(*to_->Push(record));
    if (to_->Publish()) port_->handler();
    EXPECT_TRUE(loop_.RunUntilIdle());
  }
  // States of EVENT_DEVICE since the last call.
  std::vector<uint16_t> DeviceEvents() {
    std::vector<uint16_t> states;
    std::vector<std::byte> record(wire::kMaxMessageSize);
    while (true) {
      auto size = from_->Pop(record);
      if (!size.ok() || !size->has_value()) break;
      auto message = wire::Decode(wire::Profile::V1(), std::span(record).first(**size));
      if (message->spec->id != wire::MessageId::kEventDevice) continue;
      states.push_back(
          wire::Parse<wire::EventDevice>(wire::Profile::V1(), *message)->device_bus_state);
    }
    (void)from_->Release();
    return states;
  }
  void Remove(uint16_t number, bool force) {
    session_->RemoveDevice(number, force);
    EXPECT_TRUE(loop_.RunUntilIdle());
  }

  PageMapper pages_;
  backend::SimulatedLoop loop_;
  FakePort* port_ = nullptr;
  std::shared_ptr<RecordingListener::Log> log_ = std::make_shared<RecordingListener::Log>();
  backend::RingMemory ring_;
  std::optional<wire::RingProducer> to_;
  std::optional<wire::RingConsumer> from_;
  std::unique_ptr<backend::Session> session_;
};

TEST_F(SessionTest, DeviceThatNoDriverUsesIsRemovedAtOnce) {
  Remove(2, /*force=*/false);
  EXPECT_THAT(log_->removed, ElementsAre(2));
  EXPECT_THAT(DeviceEvents(), ElementsAre(wire::kDeviceRemoved));
}

TEST_F(SessionTest, DriverIsAskedAndItsResetEndsTheWait) {
  SetStatus(2, wire::kStatusAcknowledge);
  Remove(2, /*force=*/false);
  EXPECT_THAT(log_->removed, IsEmpty());
  EXPECT_THAT(DeviceEvents(), ElementsAre(wire::kDeviceRemovalRequested));
  SetStatus(2, 0);
  loop_.Advance(absl::ZeroDuration());
  EXPECT_THAT(log_->removed, ElementsAre(2));
  EXPECT_THAT(DeviceEvents(), ElementsAre(wire::kDeviceRemoved));
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(SessionTest, DriverMayTakeAsLongAsItNeeds) {
  SetStatus(2, wire::kStatusAcknowledge);
  Remove(2, /*force=*/false);
  EXPECT_EQ(loop_.timers(), 0u);
  loop_.Advance(absl::Hours(24));
  EXPECT_THAT(log_->removed, IsEmpty());
  EXPECT_THAT(log_->stages, ElementsAre(backend::RemovalStage::kAsked));
  SetStatus(2, 0);
  loop_.Advance(absl::ZeroDuration());
  EXPECT_THAT(log_->stages,
              ElementsAre(backend::RemovalStage::kAsked, backend::RemovalStage::kDraining,
                          backend::RemovalStage::kRemoved));
}

TEST_F(SessionTest, ForceDoesNotAsk) {
  SetStatus(2, wire::kStatusAcknowledge);
  Remove(2, /*force=*/true);
  EXPECT_THAT(log_->removed, ElementsAre(2));
  EXPECT_THAT(DeviceEvents(), ElementsAre(wire::kDeviceRemoved));
}

TEST_F(SessionTest, ForceAfterAskingEndsTheWait) {
  SetStatus(2, wire::kStatusAcknowledge);
  Remove(2, /*force=*/false);
  Remove(2, /*force=*/false);
  Remove(2, /*force=*/true);
  EXPECT_THAT(log_->removed, ElementsAre(2));
  EXPECT_THAT(DeviceEvents(), ElementsAre(wire::kDeviceRemovalRequested, wire::kDeviceRemoved));
  loop_.Advance(absl::Hours(1));
  EXPECT_THAT(log_->removed, ElementsAre(2)) << "once";
}

TEST_F(SessionTest, RemovalOfAnUnknownDeviceIsReportedAsDone) {
  Remove(77, /*force=*/false);
  EXPECT_THAT(log_->removed, ElementsAre(77));
}

TEST_F(SessionTest, UnknownTypeIsRefused) {
  backend::OpenedDevice opened = Opened(3);
  opened.type = "gpu";
  EXPECT_THAT(session_->AddDevice(std::move(opened), true).message(), HasSubstr("gpu"));
}

TEST_F(SessionTest, SecondDeviceOfANumberIsRefused) {
  EXPECT_TRUE(absl::IsAlreadyExists(session_->AddDevice(Opened(2), true)));
}

TEST_F(SessionTest, BrokenRingIsReportedOnce) {
  ring_.interface->out.prod = 4;
  port_->handler();
  EXPECT_TRUE(loop_.RunUntilIdle());
  EXPECT_THAT(log_->broken, ElementsAre(HasSubstr("prod")));
}

TEST_F(SessionTest, GuestThatIsAlwaysWrongGetsABurstOfLogLinesThenOneEachInterval) {
  std::vector<std::byte> record(wire::kMaxMessageSize);
  record.resize(*wire::Encode(wire::Profile::V1(), {0, 1}, wire::PingRequest{1}, record));
  record[1] = std::byte{0x7f};  // an id of no message
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(*to_->Push(record));
    if (to_->Publish()) port_->handler();
    EXPECT_TRUE(loop_.RunUntilIdle());
  }
  loop_.Advance(backend::RateLimitedLog::kInterval);
  ASSERT_TRUE(*to_->Push(record));
  if (to_->Publish()) port_->handler();
  EXPECT_TRUE(loop_.RunUntilIdle());
  const std::string text = ::testing::internal::GetCapturedStderr();
  // The last line also says how many were swallowed.
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), backend::RateLimitedLog::kBurst + 2);
  EXPECT_THAT(text, HasSubstr("9990"));
}

TEST_F(SessionTest, EndGivesBackAllThatIsMapped) {
  SetStatus(2, wire::kStatusAcknowledge);
  Remove(2, /*force=*/false);
  const backend::SessionRemains remains = Close();
  EXPECT_EQ(remains.ring.interface.pages(), 1u);
  EXPECT_EQ(remains.ring.data.pages(), 4u);
  ASSERT_EQ(remains.window.size(), 1u);
  EXPECT_EQ(remains.window[0].pages(), 64u);
  EXPECT_EQ(loop_.timers(), 0u) << "nothing of it may run later";
}

TEST_F(SessionTest, WindowLargerThanAllowedIsRefused) {
  backend::Session::Parts parts;
  FakePort* port = nullptr;
  parts.loop = &loop_;
  parts.port = std::make_unique<FakePort>(&port);
  parts.mapper = std::make_unique<NoMapper>();
  parts.listener = std::make_unique<RecordingListener>(log_);
  parts.ring.interface = pages_.MapPages(1);
  parts.ring.data = pages_.MapPages(2);
  parts.window = pages_.MapPages(65);
  EXPECT_TRUE(absl::IsResourceExhausted(
      backend::Session::Start(std::move(parts), {.name = "g", .max_window_pages = 64}).status()));
}

}  // namespace
}  // namespace vmsg::testing
