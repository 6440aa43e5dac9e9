// SPDX-License-Identifier: Apache-2.0
// A thread that serves guests: one loop, one event channel handle, one file I/O ring.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/bus/bus_interfaces.h"
#include "backend/devices/async_file_io.h"
#include "backend/devices/device.h"
#include "backend/runtime/event_loop.h"
#include "grants/event_channels.h"

namespace vmsg::backend {

// A bound event channel, closed on destruction. On its thread.
class BoundPort : public Doorbell {
 public:
  // The event came; the port is masked until Unmask.
  virtual void SetHandler(absl::AnyInvocable<void()> on_event) = 0;
};

class IoThread {
 public:
  // `channels` and the loop belong to the new thread from here on. `keeps` as NewUringFileIo's.
  static absl::StatusOr<std::unique_ptr<IoThread>> Start(
      std::unique_ptr<grants::EventChannels> channels, const SpinLimits& spin, int keeps = -1);
  // Stops it. Everything that ran on it is gone already.
  ~IoThread();

  // Thread-safe: Post is what other threads may use.
  EventLoop& loop() { return *loop_; }
  // From any thread.
  LoopProgress progress() const { return loop_->progress(); }
  void SetSpinLimits(const SpinLimits& limits) {
    loop_->Post([loop = loop_.get(), limits] { loop->SetSpinLimits(limits); });
  }

  // On the thread.
  DeviceEnvironment environment() { return {.loop = loop_.get(), .io = io_.get()}; }
  absl::StatusOr<std::unique_ptr<BoundPort>> Bind(grants::DomainId remote,
                                                  grants::EventPort remote_port);

  // How many guests were given to it; the control thread's own count.
  size_t sessions = 0;

 private:
  class Port;
  IoThread(std::unique_ptr<ThreadLoop> loop, std::unique_ptr<grants::EventChannels> channels)
      : loop_(std::move(loop)), channels_(std::move(channels)) {}
  void OnPending();

  std::unique_ptr<ThreadLoop> loop_;
  std::unique_ptr<grants::EventChannels> channels_;
  std::unique_ptr<AsyncFileIo> io_;
  absl::flat_hash_map<grants::EventPort, Port*> ports_;
  std::thread thread_;
};

}  // namespace vmsg::backend
