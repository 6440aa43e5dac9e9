// SPDX-License-Identifier: Apache-2.0
// A bus whose backend goes, and the devices on it: what the next one is given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/drivers/rng_driver.h"
#include "tests/frontend-model/test_bus.h"
#include "tests/frontend-model/test_device.h"

namespace vmsg::frontend {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EndRecorder final : public BlkCompletion {
 public:
  void OnBlkDone(uint64_t tag, const absl::Status& status) override {
    done.emplace_back(tag, status.code());
  }
  std::vector<std::pair<uint64_t, absl::StatusCode>> done;
};

class ResumeTest : public testing::Test, private BusRecovery {
 protected:
  ResumeTest() {
    bus_.bus.SetRecovery(this);
    device_.features |= wire::kBlkFeatureFlush | wire::kBlkFeatureSegMax |
                        wire::kFeatureIndirectDesc | wire::kFeatureNotificationData;
    device_.config.resize(sizeof(wire::BlkConfig));
    SetCapacity(256);
  }

  void SetCapacity(uint64_t sectors) {
    const wire::BlkConfig config = {.capacity = sectors, .size_max = 4096, .seg_max = 4};
    std::memcpy(device_.config.data(), &config, sizeof(config));
  }
  void Create() {
    auto driver = BlkDriver::Create(device_.Probe(), {.depth = 8, .queue_size = 16});
    ASSERT_TRUE(driver.ok()) << driver.status();
    driver_ = *std::move(driver);
    buffer_ = device_.memory.Allocate(64 * 1024, 4096).value();
    device_.log.clear();
  }
  // The backend is gone with what it had; the next one knows nothing, and finds the ring as new.
  void Lose() {
    bus_.bus.Lose(absl::UnavailableError("the backend closed the bus"));
    device_.status = 0;
    device_.driver_features = 0;
    for (TestDevice::Queue& queue : device_.queues) queue.set = {};
  }
  absl::Status WaitFor(absl::FunctionRef<bool()> done) { return bus_.bus.WaitUntil(done, Soon()); }
  DeviceSideRing& ring() { return *device_.queues[0].ring; }

  // BusRecovery.
  absl::StatusOr<bool> Recover() override {
    ++asked_;
    if (!gone_for_good_.ok()) return gone_for_good_;
    if (away_) return false;
    bus_.bus.Unmapped();
    device_.memory.Thaw();
    bus_.Restart();
    bus_.bus.Restored(bus_.terms_, TestEvents::kPort);
    return true;
  }
  Deadline deadline() const override { return Soon(); }
  absl::Status RestoreWindow() override { return absl::OkStatus(); }
  void OnRestored(std::span<const uint16_t> absent) override {
    ++restored_;
    absent_.assign(absent.begin(), absent.end());
  }

  TestBus bus_;
  TestDevice device_{bus_, 3};
  EndRecorder recorder_;
  std::unique_ptr<BlkDriver> driver_;
  GuestBlock buffer_;
  bool away_ = false;
  absl::Status gone_for_good_;
  int asked_ = 0;
  int restored_ = 0;
  std::vector<uint16_t> absent_;
};

TEST_F(ResumeTest, TheNextBackendIsGivenWhatTheDeviceHadAndWhatIsInFlight) {
  Create();
  for (uint64_t tag = 0; tag < 3; ++tag) {
    ASSERT_TRUE(driver_->SubmitRead(tag * 512, buffer_.address(), 512, &recorder_, tag).ok());
  }
  ASSERT_TRUE(bus_.bus.Poll().ok());
  const wire::SetVqueueRequest before = device_.queues[0].set;
  const uint64_t features = device_.driver_features;
  ring().Take();
  const DeviceSideRing::Chain second = ring().Take();
  *ring().Data(second.pieces.back()) = std::byte{wire::kBlkStatusOk};
  ring().Return(second.head, 513);  // and the announcement is lost
  Lose();
  // Also what is submitted while there is none.
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder_, 3).ok());
  device_.log.clear();
  std::vector<uint16_t> heads;
  device_.on_avail = [&](uint32_t) {
    while (ring().HasAvailable()) {
      const DeviceSideRing::Chain chain = ring().Take();
      heads.push_back(chain.head);
      *ring().Data(chain.pieces.back()) = std::byte{wire::kBlkStatusOk};
      if (ring().Return(chain.head, 513)) device_.SendEvent(wire::EventUsed{0});
    }
  };
  ASSERT_EQ(WaitFor([&] { return recorder_.done.size() == 4; }), absl::OkStatus());
  using enum absl::StatusCode;
  EXPECT_THAT(recorder_.done, ElementsAre(std::pair(1, kOk), std::pair(0, kOk), std::pair(2, kOk),
                                          std::pair(3, kOk)));
  EXPECT_EQ(heads.size(), 3u) << "each that was not in the used ring, once";
  EXPECT_THAT(device_.log,
              ElementsAre("info", "status 0", "status 1", "status 3", "features 0+2",
                          testing::StartsWith("set features"), "status 11", "set queue 0 size 16",
                          "get queue 0", "status 15", testing::StartsWith("get config")));
  EXPECT_EQ(device_.driver_features, features);
  const wire::SetVqueueRequest after = device_.queues[0].set;
  EXPECT_EQ(after.desc_addr, before.desc_addr);
  EXPECT_EQ(after.driver_addr, before.driver_addr);
  EXPECT_EQ(after.device_addr, before.device_addr);
  EXPECT_EQ(restored_, 1);
  EXPECT_THAT(absent_, IsEmpty());
}

TEST_F(ResumeTest, ACallThatWasWaitingIsMadeAgain) {
  Create();
  bus_.held = true;
  bool lost = false;
  bus_.events.on_notify = [&] {
    if (!std::exchange(lost, true)) {
      bus_.bus.Lose(absl::UnavailableError("in the middle of GET_DEVICE_STATUS"));
      bus_.held = false;
    }
    if (!bus_.held) bus_.Run();
  };
  auto status = driver_->client().ReadStatus();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(*status, 15u);
  EXPECT_EQ(restored_, 1);
  bus_.events.on_notify = [this] { bus_.Run(); };
}

// Lost at the k-th message of a driver's beginning, for each k: it begins as if nothing had been.
TEST_F(ResumeTest, ALossAtEachMessageOfTheBeginningIsNotSeen) {
  int messages = 0;
  for (int lose_at = 1;; ++lose_at) {
    SCOPED_TRACE(lose_at);
    messages = 0;
    bus_.on_message = [&] {
      if (++messages != lose_at) return false;
      Lose();
      return true;
    };
    auto driver = BlkDriver::Create(device_.Probe(), {.depth = 8, .queue_size = 16});
    ASSERT_TRUE(driver.ok()) << driver.status();
    EXPECT_EQ(device_.status, 15u);
    EXPECT_EQ((*driver)->limits().capacity, 256u * 512);
    bus_.on_message = nullptr;
    device_.on_avail = [&](uint32_t) {
      while (ring().HasAvailable()) {
        const DeviceSideRing::Chain chain = ring().Take();
        *ring().Data(chain.pieces.back()) = std::byte{wire::kBlkStatusOk};
        if (ring().Return(chain.head, 513)) device_.SendEvent(wire::EventUsed{0});
      }
    };
    const GuestBlock buffer = device_.memory.Allocate(512, 512).value();
    EXPECT_EQ((*driver)->Read(0, buffer.address(), 512, Soon()), absl::OkStatus());
    driver->reset();
    EXPECT_FALSE(device_.memory.frozen());
    if (messages < lose_at) break;
  }
  EXPECT_GT(messages, 10);
}

// ... and at the k-th message of a resumption.
TEST_F(ResumeTest, ALossInTheMiddleOfAResumptionBeginsItAgain) {
  Create();
  int messages = 0;
  for (int lose_at = 1; lose_at < 12; ++lose_at) {
    SCOPED_TRACE(lose_at);
    messages = 0;
    bus_.on_message = [&] {
      if (++messages != lose_at) return false;
      Lose();
      return true;
    };
    Lose();
    ASSERT_EQ(WaitFor([&] { return !bus_.bus.recovering() && device_.status == 15; }),
              absl::OkStatus());
    EXPECT_EQ(device_.queues[0].set.size, 16u);
  }
  bus_.on_message = nullptr;
}

TEST_F(ResumeTest, ADeviceThatIsOpenedLaterGoesOnThen) {
  Create();
  ASSERT_TRUE(driver_->SubmitFlush(&recorder_, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  Lose();
  const uint32_t type = std::exchange(device_.device_id, 0);
  const size_t size = device_.config.size();
  device_.config.clear();
  ASSERT_EQ(WaitFor([&] { return restored_ == 1; }), absl::OkStatus());
  EXPECT_EQ(device_.status, 0u);
  EXPECT_THAT(recorder_.done, IsEmpty());
  EXPECT_THAT(absent_, ElementsAre(3)) << "a person at the program is told";
  device_.device_id = type;
  device_.config.resize(size);
  SetCapacity(256);
  bus_.Send(0, 0, wire::EventDevice{3, wire::kDeviceReady});
  ASSERT_EQ(WaitFor([&] { return device_.status == 15; }), absl::OkStatus());
  EXPECT_TRUE(ring().HasAvailable());
}

TEST_F(ResumeTest, ADeviceThatOffersLessHasFailedAndEndsWhatIsInFlight) {
  Create();
  ASSERT_TRUE(driver_->SubmitFlush(&recorder_, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  Lose();
  device_.features &= ~wire::kBlkFeatureFlush;
  ASSERT_EQ(WaitFor([&] { return !recorder_.done.empty(); }), absl::OkStatus());
  EXPECT_THAT(std::string(driver_->failure().message()), HasSubstr("without features 0x200"));
  EXPECT_FALSE(bus_.bus.recovering());
  EXPECT_TRUE(bus_.bus.failure().ok());
}

TEST_F(ResumeTest, WhatTheDriverWroteToTheConfigurationIsWrittenAgain) {
  Create();
  const std::byte off{0};
  ASSERT_EQ(driver_->client().WriteConfig(offsetof(wire::BlkConfig, writeback), {&off, 1}),
            absl::OkStatus());
  Lose();
  device_.log.clear();
  device_.generation = 77;
  ASSERT_EQ(WaitFor([&] { return restored_ == 1; }), absl::OkStatus());
  EXPECT_THAT(device_.log, Contains("set config 32 generation 77"));
}

TEST_F(ResumeTest, ABackendThatDoesNotComeFailsTheBus) {
  Create();
  ASSERT_TRUE(driver_->SubmitFlush(&recorder_, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  Lose();
  gone_for_good_ = absl::DeadlineExceededError("waited in vain");
  EXPECT_EQ(WaitFor([&] { return !recorder_.done.empty(); }).code(),
            absl::StatusCode::kDeadlineExceeded);
  driver_->Abandon(bus_.bus.failure());
  EXPECT_EQ(recorder_.done.size(), 1u);
  EXPECT_TRUE(device_.memory.frozen()) << "nobody said that it was unmapped";
}

// What the loop waits for is also looked at while there is no backend: a program can be ended.
TEST_F(ResumeTest, AWaitCanEndWithoutABackend) {
  Create();
  Lose();
  away_ = true;
  EXPECT_EQ(WaitFor([&] { return asked_ > 0; }), absl::OkStatus());
  EXPECT_TRUE(bus_.bus.lost());
  // As a program does that is ended: its driver does not wait for a reset then.
  bus_.bus.Fail(absl::CancelledError("the program ends"));
  driver_.reset();
  EXPECT_TRUE(device_.memory.frozen());
}

// [driver:Device Operation / Reset / Driver]
TEST_F(ResumeTest, ADeviceThatNeedsAResetIsResetAndGoesOnWithItsQueue) {
  Create();
  ASSERT_TRUE(driver_->SubmitFlush(&recorder_, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  ring().Take();
  device_.status |= wire::kStatusDeviceNeedsReset;
  device_.SendEvent(wire::EventConfig{.device_status = device_.status});
  ASSERT_EQ(WaitFor([&] { return device_.status == 15 && !driver_->client().needs_reset(); }),
            absl::OkStatus());
  EXPECT_THAT(device_.log, AllOf(Contains("status 0"), Contains("set queue 0 size 16")));
  ASSERT_TRUE(ring().HasAvailable());
  // Again, without having done anything: it would go on for ever.
  device_.status |= wire::kStatusDeviceNeedsReset;
  device_.SendEvent(wire::EventConfig{.device_status = device_.status});
  ASSERT_EQ(WaitFor([&] { return !recorder_.done.empty(); }), absl::OkStatus());
  EXPECT_EQ(recorder_.done[0].second, absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(driver_->failure().message()), HasSubstr("DEVICE_NEEDS_RESET) again"));
  EXPECT_EQ(device_.status, 0u) << "reset before what it had is given back";
}

TEST_F(ResumeTest, WithoutQueuesThatGoOnADeviceThatNeedsAResetEnds) {
  bus_.bus.SetRecovery(nullptr);
  Create();
  ASSERT_TRUE(driver_->SubmitFlush(&recorder_, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  device_.status |= wire::kStatusDeviceNeedsReset;
  device_.SendEvent(wire::EventConfig{.device_status = device_.status});
  ASSERT_EQ(WaitFor([&] { return !recorder_.done.empty(); }), absl::OkStatus());
  EXPECT_EQ(recorder_.done[0].second, absl::StatusCode::kDataLoss);
  EXPECT_EQ(device_.status, 0u);
}

// [driver:Device Operation / Device Notifications / Driver]
// [driver:Device Operation / Configuration Changes During Operation / Driver]
// [driver:Transport Messages / VIRTIO_MSG_EVENT_CONFIG / Driver]
TEST_F(ResumeTest, ADiskThatWasResizedHasItsNewSize) {
  Create();
  EXPECT_EQ(driver_->Read(256 * 512, buffer_.address(), 512, Soon()).code(),
            absl::StatusCode::kOutOfRange);
  SetCapacity(512);
  ++device_.generation;
  device_.SendEvent(wire::EventConfig{.device_status = 15, .generation = device_.generation});
  ASSERT_EQ(WaitFor([&] { return driver_->limits().capacity == 512u * 512; }), absl::OkStatus());
  // And one that was while nobody told.
  Lose();
  SetCapacity(1024);
  ASSERT_EQ(WaitFor([&] { return driver_->limits().capacity == 1024u * 512; }), absl::OkStatus());
}

}  // namespace
}  // namespace vmsg::frontend
