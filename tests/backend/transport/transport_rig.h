// SPDX-License-Identifier: Apache-2.0
// A device transport without a bus: the test hands it requests and sees what it asks of the bus.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/transport/device_transport.h"
#include "tests/backend/held_device.h"
#include "tests/backend/message_size.h"
#include "tests/virtqueue/guest_memory.h"
#include "tests/virtqueue/ring_driver.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::testing {

class TransportRig : public ::testing::Test, private backend::TransportEvents {
 protected:
  static constexpr uint32_t kAck = wire::kStatusAcknowledge;
  static constexpr uint32_t kDriver = wire::kStatusDriver;
  static constexpr uint32_t kFeaturesOk = wire::kStatusFeaturesOk;
  static constexpr uint32_t kDriverOk = wire::kStatusDriverOk;
  static constexpr uint64_t kBuffer = 64 * 4096;  // where buffers are

  TransportRig() { Make(); }
  backend::TransportEvents& events() { return *this; }
  ~TransportRig() override {
    if (transport_ == nullptr) return;
    bool gone = false;
    transport_->Shutdown([&] { gone = true; });
    while (!device_->held.empty()) device_->ReturnOne();
    transport_->Advance();
    EXPECT_TRUE(gone);
    transport_.reset();
    EXPECT_TRUE(device_->destroyed);
  }

  // queue_resume: the bus has feature-queue-resume.
  void Make(bool queue_resume = false) {
    auto made = backend::DeviceTransport::Create(std::make_unique<HeldDevice>(device_),
                                                 memory_.window(), *this, queue_resume);
    ASSERT_TRUE(made.ok()) << made.status();
    transport_ = *std::move(made);
  }

  // nullopt: the answer is deferred; it comes in *late.
  std::optional<uint32_t> SetStatus(uint32_t status, std::optional<uint32_t>* late = nullptr) {
    auto answer = std::make_shared<std::optional<uint32_t>>();
    auto returned = std::make_shared<bool>(false);
    transport_->HandleDeferred(wire::SetDeviceStatusRequest{status},
                               [answer, returned, late](wire::SetDeviceStatusResponse response) {
                                 *answer = response.status;
                                 if (*returned && late != nullptr) *late = response.status;
                               });
    *returned = true;
    return *answer;
  }
  uint32_t Status() { return transport_->Handle(wire::GetDeviceStatusRequest{}).status; }

  std::vector<uint32_t> GetFeatures(uint32_t block, uint32_t count) {
    const auto response =
        transport_->Handle(wire::GetDeviceFeaturesRequest{block, count}, scratch_);
    EXPECT_EQ(response.block_index, block);
    EXPECT_EQ(response.num_blocks, response.features.size());
    std::vector<uint32_t> words;
    for (size_t i = 0; i < response.features.size(); ++i) words.push_back(response.features[i]);
    return words;
  }
  void SetFeatures(uint32_t block, std::vector<uint32_t> words) {
    std::vector<std::byte> bytes(4 * words.size());
    std::memcpy(bytes.data(), words.data(), bytes.size());
    transport_->Handle(wire::SetDriverFeaturesRequest{block, static_cast<uint32_t>(words.size()),
                                                      wire::WordView(bytes)});
  }
  // Up to FEATURES_OK with these bits.
  void Negotiate(uint64_t features = wire::kFeatureVersion1 | wire::kFeatureRingReset) {
    ASSERT_EQ(SetStatus(kAck), kAck);
    ASSERT_EQ(SetStatus(kAck | kDriver), kAck | kDriver);
    SetFeatures(0, {static_cast<uint32_t>(features), static_cast<uint32_t>(features >> 32)});
    ASSERT_EQ(SetStatus(kAck | kDriver | kFeaturesOk), kAck | kDriver | kFeaturesOk);
  }
  void GoLive(uint64_t features = wire::kFeatureVersion1 | wire::kFeatureRingReset) {
    Negotiate(features);
    SetQueue(0, ring0_.layout());
    ASSERT_EQ(SetStatus(kAck | kDriver | kFeaturesOk | kDriverOk),
              kAck | kDriver | kFeaturesOk | kDriverOk);
  }

  // True: answered at once.
  bool SetQueue(uint32_t index, const backend::QueueLayout& layout,
                std::shared_ptr<bool> answered = std::make_shared<bool>(false)) {
    transport_->HandleDeferred(
        wire::SetVqueueRequest{index, layout.size, layout.desc, layout.driver, layout.device},
        [answered] { *answered = true; });
    return *answered;
  }
  wire::GetVqueueResponse GetQueue(uint32_t index) {
    return transport_->Handle(wire::GetVqueueRequest{index});
  }
  bool ResetQueue(uint32_t index, std::shared_ptr<bool> answered = std::make_shared<bool>(false)) {
    transport_->HandleDeferred(wire::ResetVqueueRequest{index}, [answered] { *answered = true; });
    return *answered;
  }

  // One buffer, device-writable, made available on queue 0 and announced.
  void OfferAndKick(uint16_t head = 0) {
    ring0_.WriteDesc(head, {.address = kBuffer, .length = 64, .flags = kWrite});
    ring0_.MakeAvailable(head);
    Kick(0);
  }
  void Kick(uint32_t queue) {
    transport_->HandleEvent(wire::EventAvail{queue, 0});
    RunToRest();
  }
  // What the bus does in its turns.
  void RunToRest() {
    for (int i = 0; i < 100; ++i) {
      wants_turn_ = false;
      transport_->Advance();
      const bool worked = transport_->RunQueues(8);
      if (!worked && !wants_turn_ && !transport_->ArmQueues()) return;
    }
    FAIL() << "does not come to rest";
  }

  GuestMemory memory_{128};
  RingDriver ring0_{memory_, 16, 4096};
  RingDriver ring1_{memory_, 16, 16 * 4096};
  std::shared_ptr<HeldDevice::View> device_ = std::make_shared<HeldDevice::View>();
  std::unique_ptr<backend::DeviceTransport> transport_;
  std::array<std::byte, wire::kMaxMessageSize> scratch_memory_;
  // As much as a message's payload may be.
  const std::span<std::byte> scratch_{scratch_memory_.data(),
                                      TestMessageSize() - wire::kHeaderSize};

  std::vector<uint32_t> used_events_;
  int config_events_ = 0;
  bool wants_turn_ = false;
  std::vector<std::string> problems_;

 private:
  void WantEventUsed(uint32_t queue) override { used_events_.push_back(queue); }
  void WantEventConfig() override { ++config_events_; }
  void ForgetEventUsed(uint32_t queue) override { std::erase(used_events_, queue); }
  void ForgetEventConfig() override { config_events_ = 0; }
  void WantTurn() override { wants_turn_ = true; }
  void Problem(const absl::Status& what) override { problems_.emplace_back(what.message()); }
};

}  // namespace vmsg::testing
