// SPDX-License-Identifier: Apache-2.0
// One guest's bus while it is connected: endpoint, window and devices. It is given opened resources
// as values and reads neither store nor path, so that it could run in a process of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/bus/bus_endpoint.h"
#include "backend/devices/device.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/session/io_thread.h"
#include "backend/session/map_bus.h"

namespace vmsg::backend {

struct SessionOptions {
  std::string name;  // for log lines: "g<domain>/<bus>"
  size_t message_size = wire::kMaxMessageSize;
  bool suppression = false;
  bool queue_resume = false;
  uint32_t max_window_pages = 0;
  // Disk requests are copied: none in flight names the guest's pages (NewGuestFileIo).
  bool bounce = false;
};

// What the guest's memory looked like from here; to be unmapped where that may take its time.
struct SessionRemains {
  MappedRing ring;
  std::vector<grants::GrantMapping> window;
};

// How far the removal of a device has got.
enum class RemovalStage : uint8_t {
  kAsked,     // the driver was asked to let go of it, and may take its time
  kDraining,  // it has, or is not asked; requests in flight end
  kRemoved,   // it is closed
};

// Reports, on the session's thread. The session must not be destroyed in them.
class SessionListener {
 public:
  virtual ~SessionListener() = default;
  // The guest broke the bus: Close is next. Once.
  virtual void OnSessionBroken(const absl::Status& why) = 0;
  // After RemoveDevice. Stages may be left out, but not the last.
  virtual void OnRemoval(uint16_t number, RemovalStage stage) = 0;
};

// Everything on the thread of `loop`. What the parts refer to outlives it.
class Session : private BusEvents {
 public:
  struct Parts {
    EventLoop* loop = nullptr;
    DeviceEnvironment environment;
    std::unique_ptr<BoundPort> port;
    std::unique_ptr<WindowMapper> mapper;
    std::unique_ptr<MessageTap> tap;  // may be null
    std::unique_ptr<SessionListener> listener;
    std::shared_ptr<RateLimitedLog> log;  // for what the guest can cause
    MappedRing ring;
    grants::GrantMapping window;
  };
  // ResourceExhausted: the window is larger than the options allow, or there is no address space.
  static absl::StatusOr<std::unique_ptr<Session>> Start(Parts parts, const SessionOptions& options);
  // Close has finished.
  ~Session() override;

  // `announce`: the driver may have looked already; it is told.
  absl::Status AddDevice(OpenedDevice opened, bool announce);

  // Graceful: asks the driver to let go, waits for its reset as long as that takes, then removes. A
  // driver that does not use the device is not waited for. force: at once. OnRemoval follows, also
  // when there is no such device. May be called again with force.
  void RemoveDevice(uint16_t number, bool force);

  // Drains everything; `done` gets what is to be unmapped.
  void Close(absl::AnyInvocable<void(SessionRemains)> done);

  // One line of counters.
  std::string Describe() const;

 private:
  Session(Parts parts, const SessionOptions& options);

  // BusEvents.
  void OnBusBroken(const absl::Status& why) override;
  void OnDeviceReset(uint16_t number) override;
  void OnProblem(int device, const absl::Status& what) override;

  void Remove(uint16_t number);
  void ForgetLeaving();

  const SessionOptions options_;
  Parts parts_;
  std::unique_ptr<AsyncFileIo> file_io_;  // this guest's share of the thread's
  grants::Window window_;
  std::unique_ptr<BusEndpoint> endpoint_;
  // Asked to go; a timer once the driver has reset it, which is not 0 then.
  absl::flat_hash_map<uint16_t, EventLoop::TimerId> leaving_;
  absl::flat_hash_set<uint16_t> removing_;  // draining
};

}  // namespace vmsg::backend
