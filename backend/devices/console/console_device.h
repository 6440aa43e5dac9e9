// SPDX-License-Identifier: Apache-2.0
// The console device (virtio 1.4, "Console Device"), port 0 on a Terminal.
//
// Flow control. Output: a terminal that takes no more holds one chain, and the chains behind it
// stay in the guest's transmit queue until there is room: nothing is copied or buffered here, and
// no other guest notices. While nobody is attached output is dropped and counted, or a guest that
// boots unobserved would stand still. Input: read into the guest's buffers only; without any, it
// stays in the kernel, and the terminal is not looked at until there are some.
#pragma once

#include <memory>
#include <optional>

#include "backend/devices/console/terminal.h"
#include "backend/devices/device.h"
#include "virtio-msg/virtio_console.h"

namespace vmsg::backend {

inline constexpr uint32_t kConsoleMaxQueueSize = 64;

class ConsoleDevice final : public Device, private TerminalListener {
 public:
  ConsoleDevice(std::unique_ptr<Terminal> terminal, EventLoop* loop);
  ~ConsoleDevice() override;

  const DeviceIdentity& identity() const override { return identity_; }
  void ReadConfig(uint32_t offset, std::span<std::byte> out) const override;
  absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data) override;
  void OnStart(DeviceHost& host, uint64_t features) override;
  bool OnQueue(uint32_t queue, uint32_t budget) override;
  void OnQueueStopping(uint32_t queue) override;
  void OnReset() override;

  // Output that nobody was attached to see.
  uint64_t dropped_bytes() const { return dropped_bytes_; }

 private:
  // What a queue's work ended with.
  enum class Pumped {
    kMore,     // the budget is used up
    kEmpty,    // the driver's chains are
    kBlocked,  // waits for the terminal
    kFailed,   // the queue is broken; the driver has been told
  };
  struct Direction {
    std::optional<DescriptorChain> held;  // taken and not finished
    uint64_t done = 0;                    // bytes of it
    std::optional<EventLoop::TimerId> again;
    bool returned = false;  // something, in this turn
  };

  Pumped Pump(uint32_t queue, uint32_t budget);
  // With a chain in `held`: true when it was finished and returned.
  bool Receive(SplitQueue* split_queue);
  bool Transmit(SplitQueue* split_queue);
  // Work that the terminal caused, not the driver.
  void PumpOnOurOwn(uint32_t queue);
  void PumpSoon(uint32_t queue);
  void Return(Direction& direction, SplitQueue* split_queue, uint64_t written);
  void CancelAgain(Direction& direction);

  void OnAttached(bool attached) override;
  void OnInput() override;
  void OnRoom() override;
  void OnWindowSize(WindowSize size) override;

  const std::unique_ptr<Terminal> terminal_;
  EventLoop* const loop_;
  DeviceIdentity identity_;
  wire::ConsoleConfig config_ = {};
  DeviceHost* host_ = nullptr;
  Direction directions_[2];
  uint64_t dropped_bytes_ = 0;
};

}  // namespace vmsg::backend
