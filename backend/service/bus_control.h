// SPDX-License-Identifier: Apache-2.0
// One bus as the control thread sees it: xenbus states, connecting and tearing down, and the
// device entries. What blocks runs on workers, what serves runs on an I/O thread; this decides.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "backend/devices/device.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/trace/trace.h"
#include "backend/session/io_thread.h"
#include "backend/session/map_bus.h"
#include "backend/session/session.h"
#include "backend/session/worker_pool.h"
#include "grants/grant_mapper.h"
#include "xenstore/bus_offer.h"
#include "xenstore/discovery.h"
#include "xenstore/entries/entry_id.h"
#include "xenstore/store.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::backend {

// How long connecting waits for devices that are being opened, so that a driver that enumerates at
// once finds them. A file that takes longer is announced when it is there.
inline constexpr absl::Duration kOpenPatience = absl::Seconds(2);
// How often in a row a connection is begun anew because the frontend's nodes are others by the time
// it is answered. One change is a frontend that died and its successor.
inline constexpr int kMaxRestarts = 8;

// A device's I/O errors are told at once, and then as often as this at most.
inline constexpr absl::Duration kIoErrorInterval = absl::Seconds(10);

// What all buses share. Outlives them, and the jobs they started.
struct BusServices {
  xenstore::Store* store = nullptr;
  EventLoop* loop = nullptr;  // the control thread's
  WorkerPool* workers = nullptr;
  grants::GrantMapper* mapper = nullptr;
  std::shared_ptr<Trace> trace;
  xenstore::BackendOffer offer;
  bool bounce = false;  // SessionOptions::bounce
  absl::AnyInvocable<IoThread*()> choose_thread;
};

class BusControl {
 public:
  // `finished`: the bus is gone and nothing of it is left; it may be destroyed, not from within.
  BusControl(BusServices& services, const xenstore::BusAddress& address,
             std::shared_ptr<PageBudget> budget, absl::AnyInvocable<void()> finished);
  ~BusControl();

  // Where what blocks runs: with a guest's window all that it maps; files are opened and closed in
  // one for each bus, so that one that hangs does not keep the window.
  static WorkerPool::Key MappingLane(const xenstore::BusAddress& bus) {
    return WorkerPool::Key{bus.frontend} << 32;
  }
  static WorkerPool::Key OpeningLane(const xenstore::BusAddress& bus) {
    return MappingLane(bus) | 1u << 31 | bus.id;
  }

  // What discovery reports.
  void Update(const xenstore::BusView& view);
  void Reappear(const xenstore::BusView& view);  // after Vanish, or when it is new
  void Vanish();
  void AddDevice(const xenstore::DeviceNodes& nodes);
  void RemoveDevice(uint16_t number, bool force);
  void DeviceVanished(uint16_t number);

  // Orderly end of the service: states 5 and 6, unmapped; then `finished`.
  void Stop();

  // Logs a line of counters, from the session's thread.
  void LogCounters();

  struct Summary {
    bool connected = false;
    size_t devices = 0;  // served, or ready to be
    size_t refused = 0;  // devices, and the bus itself
  };
  Summary Summarize() const;

 private:
  // Async parts find their way back through it; null once the control is gone.
  struct Anchor {
    BusControl* control;
  };
  using Task = absl::AnyInvocable<void(BusControl&)>;
  class Relay;
  class LaneCloser;

  enum class Phase : uint8_t {
    kIdle,        // nothing of the guest's is mapped
    kConnecting,  // a worker maps, or an I/O thread binds
    kConnected,   // session_ serves
    kClosing,     // session_ drains
    kQuiesced,    // remains_ is still mapped
    kUnmapping,   // a worker unmaps
  };
  // What tearing down leads to, when it was begun.
  enum class Goal : uint8_t { kNone, kClosed, kOffered, kRestart };

  enum class DeviceState : uint8_t { kWaiting, kOpening, kOpened, kAttached, kFailed };
  struct DeviceControl {
    xenstore::DeviceNodes nodes;
    DeviceState state = DeviceState::kOpening;
    uint64_t ticket = 0;                 // another entry of this number has another
    std::optional<OpenedDevice> opened;  // kept while the entry is; sessions get duplicates
    bool lent = false;                   // a session has duplicates, or they are not closed yet
    bool awaits_return = false;          // a session waits for that
    bool closing = false;                // a worker closes what was opened
    bool leaving = false;
    bool vanished = false;
    bool reported_ok = false;                   // hotplug-status says connected
    bool quota_told = false;                    // its answer did not fit; the bus's error says so
    std::optional<xenstore::DeviceNodes> next;  // the number was used again meanwhile
  };

  static void PostBack(EventLoop* loop, std::shared_ptr<Anchor> anchor, Task task);

  void Evaluate();
  bool Step();  // false: nothing to do now
  bool Pursue();
  bool busy() const {
    return phase_ == Phase::kConnecting || phase_ == Phase::kClosing || phase_ == Phase::kUnmapping;
  }
  void SetState(xenstore::XenbusState state);
  bool Offer();
  void Refuse(const absl::Status& why);
  void ReportError(const absl::Status& why);
  bool RefuseNoState();
  void AskDrivers();
  void OnBroken(const absl::Status& why);

  // bus_connecting.cc
  void Connect();
  void Map();
  void Serve(MappedRing ring, grants::GrantMapping window);
  void OnServing(IoThread* thread, absl::StatusOr<Session*> session);
  void AnnounceConnected(const Session* session);
  // OK: state 4. False: the request does not stand any more, and is taken up anew.
  bool AnswerRequest(const absl::Status& answer);
  void RefuseRequest(const absl::Status& why);
  void CloseSession();
  void Unmap();
  // A line of which the guest can cause any number.
  void LogLine(LogLevel level, absl::string_view text);

  // bus_devices.cc
  void Open(uint16_t number);
  // Takes it, unless it is an entry's that is gone.
  bool OnOpened(uint16_t number, uint64_t ticket, absl::StatusOr<OpenedDevice>& opened);
  void Attach(DeviceControl& device, bool announce);
  void OnAttached(uint16_t number, uint64_t ticket, const absl::Status& status);
  // Of an entry of that number, unless it is another one by now.
  DeviceControl* Find(uint16_t number, uint64_t ticket);
  void OnRemoval(uint16_t number, RemovalStage stage);
  void FinishRemoval(uint16_t number);
  // All that the session had of it is closed.
  void OnReturned(uint16_t number, uint64_t ticket);
  void AttachAll();
  void DevicesDetached();
  void Report(DeviceControl& device, const absl::Status& status);
  void ReportRemoval(DeviceControl& device, const char* status);
  void RemoveEntry(const xenstore::EntryAddress& entry);
  xenstore::EntryAddress EntryOf(const DeviceControl& device) const {
    return {address_, device.nodes.number, device.nodes.id};
  }
  bool QuotaIsMet() const;
  void QuotaIsOver(DeviceControl& device);
  // device_health.cc
  void WatchHealth(DeviceControl& device);
  void ReportHealth(uint16_t number, const std::shared_ptr<DeviceHealth>& health);
  // What opening it has found out, for the next vmsgd.
  void NoteFound(DeviceControl& device);
  // What is opened now is to be what was opened when this entry was opened before.
  void CompareWithBefore(DeviceControl& device);
  void CloseElsewhere(DeviceControl& device);
  void OnClosed(uint16_t number, uint64_t ticket);
  size_t opening() const;  // or about to be ready, its last session's files being closed
  bool in_use() const;     // by a driver that was not forced
  WorkerPool::Key mapping_lane() const { return MappingLane(address_); }
  WorkerPool::Key opening_lane() const { return OpeningLane(address_); }

  BusServices& services_;
  const xenstore::BusAddress address_;
  const std::shared_ptr<PageBudget> budget_;
  absl::AnyInvocable<void()> finished_;
  const std::string name_;  // "guest 3 (g1) bus 0", for the log
  const std::shared_ptr<Anchor> anchor_;
  const std::shared_ptr<RateLimitedLog> log_;

  xenstore::BusView view_;
  Phase phase_ = Phase::kIdle;
  Goal goal_ = Goal::kNone;
  bool gone_ = false;
  bool stopping_ = false;
  bool refused_ = false;        // the last attempt to connect
  bool offer_refused_ = false;  // by xenstored; until the frontend moves
  bool quota_refusal_ = true;   // the last reason was that, or a predecessor's: unknown
  bool patient_ = true;         // connecting may wait for devices
  bool asked_ = false;          // the drivers, to let go of all devices
  bool error_told_ = true;      // the store may have a reason of ours, or a predecessor's
  // What is connected, or about to be; an error: it could not be read.
  absl::StatusOr<xenstore::FrontendRequest> request_ = absl::CancelledError();
  int restarts_ = 0;  // in a row
  EventLoop::TimerId patience_ = 0;

  IoThread* thread_ = nullptr;
  Session* session_ = nullptr;  // touched only on thread_
  uint32_t window_pages_ = 0;   // when it connected
  SessionRemains remains_;

  absl::btree_map<uint16_t, DeviceControl> devices_;
  uint64_t last_ticket_ = 0;
  int closing_ = 0;  // CloseElsewhere that has not come back
};

}  // namespace vmsg::backend
