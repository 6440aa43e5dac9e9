// SPDX-License-Identifier: Apache-2.0
// The console device (virtio 1.4, "Console Device"), port 0 on a Terminal.
//
// Flow control. Output never waits for a terminal: what it does not take at once is copied to a
// backlog, which keeps the newest bytes, and what is lost is counted. While nobody is attached
// output is dropped and counted, too. The end of a connection, or a reset, waits while a reader
// takes what is left. Input: read into the guest's buffers only; without any, it stays in the
// kernel, and the terminal is not looked at until there are some.
#pragma once

#include <memory>
#include <optional>

#include "backend/devices/console/output_backlog.h"
#include "backend/devices/console/terminal/terminal.h"
#include "backend/devices/device.h"
#include "virtio-msg/virtio_console.h"

namespace vmsg::backend {

inline constexpr uint32_t kConsoleMaxQueueSize = 64;
// At the end of a connection: all that a reader gets, and how long it may take nothing. The guest's
// pages, a restart and the guest's other devices wait for it.
inline constexpr absl::Duration kConsoleLastWords = absl::Seconds(2);
inline constexpr absl::Duration kConsoleStall = absl::Milliseconds(250);

class ConsoleDevice final : public Device, private TerminalListener {
 public:
  ConsoleDevice(std::unique_ptr<Terminal> terminal, EventLoop* loop);
  ~ConsoleDevice() override;

  const DeviceIdentity& identity() const override { return identity_; }
  void VisitCounters(CounterVisitor visit) const override;
  void ReadConfig(uint32_t offset, std::span<std::byte> out) const override;
  absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data) override;
  void OnStart(DeviceHost& host, uint64_t features) override;
  bool OnQueue(uint32_t queue, uint32_t budget) override;
  void OnQueueStopping(uint32_t queue) override;
  bool Settle(DeviceHost& host) override;
  void OnReset() override;

 private:
  // What a queue's work ended with.
  enum class Pumped {
    kMore,     // the budget is used up
    kEmpty,    // the driver's chains are
    kBlocked,  // waits for input, or for the next turn
    kFailed,   // the queue is broken; the driver has been told
  };
  struct Direction {
    std::optional<DescriptorChain> held;  // taken and not finished
    uint64_t done = 0;                    // bytes of it
    std::optional<EventLoop::TimerId> again;
    bool returned = false;  // something, in this turn
  };

  Pumped Pump(uint32_t queue, uint32_t budget);
  // With a chain in `held`: true when it was finished and returned. False: no input.
  bool Receive(SplitQueue* split_queue);
  // False: this turn has moved as much as it may.
  bool Transmit(SplitQueue* split_queue);
  // Gives the terminal what waits, as far as it takes it.
  void DrainBacklog();
  // While it settles: gives a reader its time.
  void AwaitReader();
  void DropBacklog();
  // Work that is not the driver's doing.
  void PumpOnOurOwn(uint32_t queue);
  void PumpSoon(uint32_t queue);
  void Return(Direction& direction, SplitQueue* split_queue, uint64_t written);
  void Cancel(std::optional<EventLoop::TimerId>& timer);

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
  OutputBacklog backlog_;
  uint64_t moved_this_turn_ = 0;  // of the guest's output
  std::optional<EventLoop::TimerId> drain_again_;
  DeviceHost* settling_ = nullptr;                // waits for the backlog
  std::optional<EventLoop::TimerId> last_words_;  // looks whether its reader takes any
  absl::Time last_words_end_;
  uint64_t dropped_unattached_ = 0;  // bytes of output that nobody was attached to see
  uint64_t dropped_unread_ = 0;      // bytes that whoever was attached did not read
};

}  // namespace vmsg::backend
