// SPDX-License-Identifier: Apache-2.0
// A device with its queues and the driver's side of them, without a transport.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/devices/device.h"
#include "tests/virtqueue/guest_memory.h"
#include "tests/virtqueue/ring_driver.h"

namespace vmsg::testing {

class DeviceRig final : public backend::DeviceHost {
 public:
  static constexpr uint32_t kQueueSize = 64;
  // Where a test's buffers are.
  static constexpr uint64_t kBuffers = 256 * 4096;
  static constexpr uint64_t kWindowPages = 2048;

  explicit DeviceRig(std::unique_ptr<backend::Device> device)
      : memory(kWindowPages), device_(std::move(device)) {
    uint64_t base = 4096;
    for (size_t i = 0; i < device_->identity().max_queue_sizes.size(); ++i) {
      drivers_.emplace_back(memory, kQueueSize, base);
      base = drivers_.back().end();
      next_desc_.push_back(0);
      notified_.push_back(0);
    }
    EXPECT_LE(base, kBuffers);
    queues_.resize(drivers_.size());
  }
  ~DeviceRig() override {
    if (started_) Reset();
    device_.reset();
  }

  backend::Device& device() { return *device_; }
  RingDriver& driver(uint32_t queue) { return drivers_[queue]; }

  void Start(uint64_t features) {
    for (size_t i = 0; i < queues_.size(); ++i) SetUp(i);
    device_->OnFeatures(features);
    device_->OnStart(*this, features);
    started_ = true;
  }
  bool started() const { return started_; }
  void SetUp(uint32_t index) {
    drivers_[index] = RingDriver(memory, kQueueSize, drivers_[index].layout().desc);
    std::memset(memory.At(drivers_[index].layout().desc), 0,
                drivers_[index].end() - drivers_[index].layout().desc);
    auto made = backend::SplitQueue::Create(memory.window(), drivers_[index].layout(),
                                            {.event_idx = false, .indirect = false});
    ASSERT_TRUE(made.ok()) << made.status();
    queues_[index] = *std::move(made);
    next_desc_[index] = 0;
  }

  // The driver's reset: as the transport does it. Drained() says when nothing is in flight.
  void BeginReset() {
    for (uint32_t i = 0; i < queues_.size(); ++i) {
      queues_[i]->Stop([] {});
      device_->OnQueueStopping(i);
    }
  }
  bool Drained() const {
    for (const auto& queue : queues_) {
      if (queue->in_flight() > 0) return false;
    }
    return true;
  }
  void EndReset() {
    ASSERT_TRUE(Drained());
    for (auto& queue : queues_) queue.reset();
    ASSERT_TRUE(device_->Settle(*this)) << "the device is at work for itself";
    device_->OnReset();
    started_ = false;
  }
  void Reset() {
    BeginReset();
    EndReset();
  }

  // A chain of the driver's: buffers are window addresses and lengths. Its head.
  struct Buffer {
    uint64_t address;
    uint32_t length;
    bool writable;
  };
  uint16_t Submit(uint32_t queue, const std::vector<Buffer>& buffers) {
    const uint16_t head = next_desc_[queue];
    for (size_t i = 0; i < buffers.size(); ++i) {
      const uint16_t index = (head + i) % kQueueSize;
      const bool last = i + 1 == buffers.size();
      drivers_[queue].WriteDesc(
          index, {.address = buffers[i].address,
                  .length = buffers[i].length,
                  .flags = uint16_t((buffers[i].writable ? kWrite : 0) | (last ? 0 : kNext)),
                  .next = uint16_t((index + 1) % kQueueSize)});
    }
    next_desc_[queue] = (head + buffers.size()) % kQueueSize;
    drivers_[queue].MakeAvailable(head);
    return head;
  }
  bool Kick(uint32_t queue, uint32_t budget = 64) { return device_->OnQueue(queue, budget); }
  std::vector<UsedEntry> Used(uint32_t queue) { return drivers_[queue].TakeAllUsed(); }

  void Put(uint64_t address, const std::string& bytes) {
    std::memcpy(memory.At(address), bytes.data(), bytes.size());
  }
  std::string Get(uint64_t address, size_t size) {
    return std::string(reinterpret_cast<char*>(memory.At(address)), size);
  }
  template <class T>
  T Config(uint32_t offset) {
    T value{};
    device_->ReadConfig(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  int notified(uint32_t queue) const { return notified_[queue]; }
  int config_changes() const { return config_changes_; }
  const std::vector<absl::Status>& needs_reset() const { return needs_reset_; }

  // DeviceHost.
  backend::SplitQueue* queue(uint32_t index) override {
    return index < queues_.size() ? queues_[index].get() : nullptr;
  }
  void Completed(uint32_t queue) override {
    if (queues_[queue]->Publish()) ++notified_[queue];
  }
  void ChangeConfig(uint32_t, uint32_t, absl::AnyInvocable<void()> change) override {
    change();
    ++config_changes_;
  }
  const std::vector<absl::Status>& reports() const { return reports_; }
  void Report(const absl::Status& what) override { reports_.push_back(what); }
  int settled() const { return settled_; }
  void Settled() override { ++settled_; }
  void NeedsReset(const absl::Status& reason) override { needs_reset_.push_back(reason); }

  GuestMemory memory;

 private:
  std::unique_ptr<backend::Device> device_;
  std::vector<RingDriver> drivers_;
  std::vector<std::unique_ptr<backend::SplitQueue>> queues_;
  std::vector<uint16_t> next_desc_;
  std::vector<int> notified_;
  int config_changes_ = 0;
  int settled_ = 0;
  std::vector<absl::Status> needs_reset_;
  std::vector<absl::Status> reports_;
  bool started_ = false;
};

}  // namespace vmsg::testing
