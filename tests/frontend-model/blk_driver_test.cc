// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/drivers/blk_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/frontend-model/test_bus.h"
#include "tests/frontend-model/test_device.h"

namespace vmsg::frontend {
namespace {

// A disk in memory behind a TestDevice: serves when it is told of requests, in the order it likes.
class BlkDriverTest : public testing::Test {
 protected:
  BlkDriverTest() : disk_(256 * 512) {
    device_.features |= wire::kBlkFeatureSegMax | wire::kBlkFeatureSizeMax |
                        wire::kBlkFeatureFlush | wire::kFeatureIndirectDesc;
    device_.config.resize(sizeof(wire::BlkConfig));
    config_.capacity = disk_.size() / 512;
    config_.size_max = 1024;
    config_.seg_max = 4;
    std::memcpy(device_.config.data(), &config_, sizeof(config_));
    for (size_t i = 0; i < disk_.size(); ++i) disk_[i] = std::byte(i * 13 + i / 512);
    device_.on_avail = [this](uint32_t) { Serve(); };
  }

  void Create(BlkOptions options = {}) {
    auto driver = BlkDriver::Create(device_.Probe(), options);
    ASSERT_TRUE(driver.ok()) << driver.status();
    driver_ = *std::move(driver);
    buffer_ = device_.memory.Allocate(64 * 1024, 4096).value();
  }

  void Serve() {
    DeviceSideRing& ring = *device_.queues[0].ring;
    do {
      while (ring.HasAvailable()) {
        const DeviceSideRing::Chain chain = ring.Take();
        if (hold) {
          held_.push_back(chain);
        } else {
          Complete(chain);
        }
      }
    } while (ring.AskForKick());
  }
  void Complete(const DeviceSideRing::Chain& chain) {
    DeviceSideRing& ring = *device_.queues[0].ring;
    wire::BlkRequestHeader header;
    ASSERT_EQ(chain.pieces.front().size, sizeof(header));
    std::memcpy(&header, ring.Data(chain.pieces.front()), sizeof(header));
    types_.push_back(header.type);
    uint64_t at = header.sector * 512;
    uint32_t written = 0, data = 0;
    for (size_t i = 1; i + 1 < chain.pieces.size(); ++i) {
      const auto& piece = chain.pieces[i];
      data += piece.size;
      EXPECT_LE(piece.size, config_.size_max);
      if (header.type == wire::kBlkRequestIn) {
        std::memcpy(ring.Data(piece), disk_.data() + at, piece.size);
        written += piece.size;
      } else if (header.type == wire::kBlkRequestOut) {
        std::memcpy(disk_.data() + at, ring.Data(piece), piece.size);
      } else if (header.type == wire::kBlkRequestGetId) {
        std::memcpy(ring.Data(piece), "serial-0123456789abc", 20);
        written += piece.size;
      }
      at += piece.size;
    }
    EXPECT_LE(chain.pieces.size(), config_.seg_max + 2);
    largest_ = std::max(largest_, data);
    *ring.Data(chain.pieces.back()) = std::byte{status};
    if (ring.Return(chain.head, written + 1 - lie)) device_.SendEvent(wire::EventUsed{0});
  }

  TestBus bus_;
  TestDevice device_{bus_, 3};
  wire::BlkConfig config_ = {};
  std::vector<std::byte> disk_;
  std::vector<DeviceSideRing::Chain> held_;
  std::vector<uint32_t> types_;
  uint32_t largest_ = 0;
  bool hold = false;
  uint8_t status = wire::kBlkStatusOk;
  uint32_t lie = 0;
  std::unique_ptr<BlkDriver> driver_;
  GuestBlock buffer_;
};

TEST_F(BlkDriverTest, ALargeReadIsSplitByTheDevicesLimits) {
  Create({.depth = 4});
  EXPECT_EQ(driver_->limits().max_request, 4096u);
  ASSERT_TRUE(driver_->Read(512, buffer_.address(), 64 * 1024 - 512, Soon()).ok());
  EXPECT_EQ(std::memcmp(buffer_.bytes().data(), disk_.data() + 512, 64 * 1024 - 512), 0);
  EXPECT_EQ(types_.size(), 16u);
  EXPECT_EQ(largest_, 4096u);
}

TEST_F(BlkDriverTest, WhatIsWrittenIsReadBack) {
  Create();
  std::memset(buffer_.bytes().data(), 0x5a, 8192);
  ASSERT_TRUE(driver_->Write(1024, buffer_.address(), 8192, Soon()).ok());
  ASSERT_TRUE(driver_->Flush(Soon()).ok());
  EXPECT_EQ(types_.back(), wire::kBlkRequestFlush);
  EXPECT_EQ(disk_[1023], std::byte(1023 * 13 + 1));
  EXPECT_EQ(disk_[1024], std::byte{0x5a});
  EXPECT_EQ(disk_[1024 + 8191], std::byte{0x5a});
}

TEST_F(BlkDriverTest, TheSerialIsCutAtItsEnd) {
  Create();
  EXPECT_EQ(driver_->GetId(Soon()).value(), "serial-0123456789abc");
}

TEST_F(BlkDriverTest, WithoutSegMaxARequestHasOneSegment) {
  device_.features &= ~(wire::kBlkFeatureSegMax | wire::kFeatureIndirectDesc);
  Create();
  EXPECT_EQ(driver_->limits().max_request, 1024u);
}

TEST_F(BlkDriverTest, RangesBeyondTheDiskAndHalfSectorsAreRefused) {
  Create();
  EXPECT_EQ(driver_->Read(disk_.size(), buffer_.address(), 512, Soon()).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(driver_->Read(UINT64_MAX - 511, buffer_.address(), 1024, Soon()).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(driver_->Read(1, buffer_.address(), 512, Soon()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(types_.empty());
}

TEST_F(BlkDriverTest, AnErrorOfTheDeviceIsTheCallers) {
  Create();
  status = wire::kBlkStatusIoError;
  EXPECT_EQ(driver_->Read(0, buffer_.address(), 512, Soon()).code(), absl::StatusCode::kDataLoss);
  status = wire::kBlkStatusUnsupported;
  EXPECT_EQ(driver_->GetId(Soon()).status().code(), absl::StatusCode::kUnimplemented);
  status = wire::kBlkStatusOk;
  EXPECT_TRUE(driver_->Read(0, buffer_.address(), 512, Soon()).ok());
}

TEST_F(BlkDriverTest, AShortReadThatClaimsSuccessIsAnError) {
  Create();
  lie = 1;
  EXPECT_EQ(driver_->Read(0, buffer_.address(), 512, Soon()).code(), absl::StatusCode::kInternal);
}

class Recorder final : public BlkCompletion {
 public:
  void OnBlkDone(uint64_t tag, const absl::Status& status) override {
    done.emplace_back(tag, status.code());
  }
  std::vector<std::pair<uint64_t, absl::StatusCode>> done;
};

// [driver:Device Operation / Device Notifications / Driver]
// [driver:Transport Messages / VIRTIO_MSG_EVENT_USED / Driver]
TEST_F(BlkDriverTest, RequestsCompleteInAnyOrderAndWithTheirOwnTag) {
  Create({.depth = 3});
  hold = true;
  Recorder recorder;
  for (uint64_t tag = 0; tag < 3; ++tag) {
    ASSERT_TRUE(
        driver_->SubmitRead(tag * 512, buffer_.address() + tag * 512, 512, &recorder, tag).ok());
  }
  EXPECT_EQ(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 9).code(),
            absl::StatusCode::kResourceExhausted);
  bus_.events.notified = 0;
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_EQ(bus_.events.notified, 1);  // one for the batch
  ASSERT_EQ(held_.size(), 3u);
  for (const int i : {2, 0, 1}) Complete(held_[i]);
  ASSERT_TRUE(bus_.bus.Poll().value());
  using enum absl::StatusCode;
  EXPECT_THAT(recorder.done,
              testing::ElementsAre(std::pair(2, kOk), std::pair(0, kOk), std::pair(1, kOk)));
}

// [bus:Device Operation / Hotplug and Removal / Bus]
// After REMOVED nothing is queued and what was in flight ends.
TEST_F(BlkDriverTest, SurpriseRemovalEndsWhatIsInFlight) {
  Create();
  hold = true;
  Recorder recorder;
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  bus_.Send(0, 0, wire::EventDevice{3, wire::kDeviceRemoved});
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kUnavailable)));
  EXPECT_EQ(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 2).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(BlkDriverTest, RequestedRemovalLetsRequestsEndThenResets) {
  Create();
  hold = true;
  Recorder recorder;
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
  bus_.Send(0, 0, wire::EventDevice{3, wire::kDeviceRemovalRequested});
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_EQ(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 2).code(),
            absl::StatusCode::kUnavailable);
  Complete(held_.at(0));
  device_.log.clear();
  ASSERT_TRUE(driver_->Quiesce(Soon()).ok());
  EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kOk)));
  EXPECT_THAT(device_.log, testing::ElementsAre("status 0"));
}

TEST_F(BlkDriverTest, AUsedRingThatLiesEndsTheDriverNotTheBus) {
  Create();
  hold = true;
  Recorder recorder;
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  device_.queues[0].ring->SetUsedIndex(700);
  bus_.held = true;
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_THAT(recorder.done, testing::IsEmpty()) << "the device has the buffer until it is reset";
  bus_.held = false;
  bus_.Run();
  EXPECT_EQ(device_.status, 0u);
  ASSERT_TRUE(bus_.bus.Poll().ok());
  EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kDataLoss)));
  EXPECT_FALSE(device_.memory.frozen());
  EXPECT_EQ(driver_->failure().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(bus_.bus.failure().ok());
}

TEST_F(BlkDriverTest, ABusThatFailedLeavesNoRequestWithoutAnEnd) {
  Create();
  hold = true;
  Recorder recorder;
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  bus_.bus.Fail(absl::UnavailableError("the backend closed the bus"));
  driver_->Abandon(bus_.bus.failure());
  EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kUnavailable)));
  EXPECT_FALSE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 2).ok());
}

TEST_F(BlkDriverTest, QuiesceEndsEveryRequestAlsoWhenTheBusFailed) {
  Create();
  hold = true;
  {
    Recorder recorder;
    ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
    bus_.bus.Fail(absl::UnavailableError("the backend closed the bus"));
    EXPECT_EQ(driver_->Quiesce(Soon()).code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kUnavailable)));
  }
  driver_.reset();  // has nobody left to tell
}

// What is out of time is still the device's: it is reset before anybody has the memory back.
TEST_F(BlkDriverTest, ARequestThatIsOutOfTimeEndsWithTheDevicesReset) {
  for (int kind = 0; kind < 3; ++kind) {
    SCOPED_TRACE(kind);
    Create();
    hold = true;
    device_.log.clear();
    absl::Status status;
    if (kind == 0) status = driver_->Read(0, buffer_.address(), 512, Now());
    if (kind == 1) status = driver_->Flush(Now());
    if (kind == 2) status = driver_->GetId(Now()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(device_.log, testing::ElementsAre("status 0"));
    EXPECT_FALSE(driver_->client().holds_memory());
    driver_.reset();
    EXPECT_FALSE(device_.memory.frozen());
  }
}

// A device that was not seen to let go may write for as long as its bus lives.
TEST_F(BlkDriverTest, MemoryThatTheDeviceMayStillWriteIsHandedOutToNobody) {
  Create();
  hold = true;
  Recorder recorder;
  ASSERT_TRUE(driver_->SubmitRead(0, buffer_.address(), 512, &recorder, 1).ok());
  ASSERT_TRUE(bus_.bus.Poll().ok());
  bus_.bus.Fail(absl::UnavailableError("the backend closed the bus"));
  const uint64_t before = device_.memory.free_bytes();
  driver_.reset();
  EXPECT_THAT(recorder.done, testing::ElementsAre(std::pair(1, absl::StatusCode::kCancelled)));
  buffer_.Reset();
  EXPECT_EQ(device_.memory.free_bytes(), before) << "rings, headers and buffers";
  device_.memory.Thaw();  // state 6
  EXPECT_EQ(device_.memory.free_bytes(), 1024u * 4096);
}

// Also a queue of which it is not known whether the device took it.
TEST_F(BlkDriverTest, AQueueWhoseSetUpWasNotAnsweredIsTheDevices) {
  bus_.handlers[wire::MessageId::kSetVqueue] = [this](const wire::Message&) {
    bus_.bus.Fail(absl::UnavailableError("the backend closed the bus"));
  };
  EXPECT_FALSE(BlkDriver::Create(device_.Probe()).ok());
  EXPECT_TRUE(device_.memory.frozen());
}

TEST_F(BlkDriverTest, OtherDeviceTypesAreRefused) {
  device_.device_id = wire::kDeviceIdEntropy;
  EXPECT_EQ(BlkDriver::Create(device_.Probe()).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmsg::frontend
