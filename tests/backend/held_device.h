// SPDX-License-Identifier: Apache-2.0
// A device for tests of what surrounds devices: takes chains and holds them until the test returns
// them, has a configuration of plain bytes, and records what it was told.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/devices/device.h"

namespace vmsg::testing {

class HeldDevice final : public backend::Device {
 public:
  // What a test still sees when the transport owns the device.
  struct View {
    backend::DeviceIdentity identity{
        .device_id = 42, .features = 0x5, .config_size = 8, .max_queue_sizes = {16, 16}};
    std::vector<std::byte> config = std::vector<std::byte>(8, std::byte{0x11});
    uint32_t writable_from = 4;  // configuration below is read-only
    bool takes_chains = true;    // false: leaves them in the queue
    bool answers_at_once = false;
    bool settled = true;                 // false: at work for itself
    std::vector<std::byte> at_features;  // what configuration becomes then; empty: stays
    std::vector<std::byte> at_reset;

    backend::DeviceHost* host = nullptr;
    uint64_t features = 0;
    std::vector<std::string> log;
    struct Held {
      uint32_t queue;
      backend::DescriptorChain chain;
    };
    std::deque<Held> held;
    uint32_t on_queue_calls = 0;
    bool destroyed = false;

    // Returns the oldest held chain, `written` bytes of it used.
    void ReturnOne(uint32_t written = 0) {
      Held one = std::move(held.front());
      held.pop_front();
      host->queue(one.queue)->Return(std::move(one.chain), written);
      host->Completed(one.queue);
    }
  };

  explicit HeldDevice(std::shared_ptr<View> view) : view_(std::move(view)) {}
  ~HeldDevice() override { view_->destroyed = true; }

  const backend::DeviceIdentity& identity() const override { return view_->identity; }
  void ReadConfig(uint32_t offset, std::span<std::byte> out) const override {
    // What the transport must never ask for would be read out of bounds here, for ASan to see.
    std::memcpy(out.data(), view_->config.data() + offset, out.size());
  }
  absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data) override {
    if (offset < view_->writable_from) return absl::InvalidArgumentError("read-only field");
    std::memcpy(view_->config.data() + offset, data.data(), data.size());
    return absl::OkStatus();
  }
  bool AwaitsStorage() const override { return !view_->held.empty(); }
  void OnFeatures(uint64_t features) override {
    view_->features = features;
    if (!view_->at_features.empty()) view_->config = view_->at_features;
    view_->log.push_back("features");
  }
  void OnStart(backend::DeviceHost& host, uint64_t) override {
    view_->host = &host;
    view_->log.push_back("start");
  }
  bool OnQueue(uint32_t queue, uint32_t budget) override {
    ++view_->on_queue_calls;
    if (!view_->takes_chains) return false;
    backend::SplitQueue* ring = view_->host->queue(queue);
    for (uint32_t i = 0; i < budget; ++i) {
      auto chain = ring->Pop();
      if (!chain.ok()) {
        view_->host->NeedsReset(chain.status());
        return false;
      }
      if (!chain->has_value()) return false;
      view_->held.push_back({queue, **std::move(chain)});
      if (view_->answers_at_once) view_->ReturnOne();
    }
    return true;
  }
  void OnQueueStopping(uint32_t queue) override {
    view_->log.push_back("stopping " + std::to_string(queue));
  }
  bool Settle(backend::DeviceHost& host) override {
    view_->host = &host;
    return view_->settled;
  }
  void OnReset() override {
    if (!view_->at_reset.empty()) view_->config = view_->at_reset;
    view_->host = nullptr;
    view_->log.push_back("reset");
  }

 private:
  const std::shared_ptr<View> view_;
};

}  // namespace vmsg::testing
