// SPDX-License-Identifier: Apache-2.0
// The control thread: finds buses in xenstore and has them served.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "backend/runtime/event_loop.h"
#include "backend/service/bus_control.h"
#include "backend/service/domain_check.h"
#include "backend/service/toolstack/toolstack_threads.h"
#include "grants/platform.h"
#include "xenstore/discovery.h"

namespace vmsg::backend {

struct ServiceOptions {
  size_t io_threads = 1;
  // Of one guest, over all its buses: half of what gntdev maps in all for a PV Dom0 by default is
  // the most that makes sense here.
  uint32_t max_window_pages = 65536;
  SpinLimits spin;
  TraceSettings trace;
  // How often Xen is asked which guests live, besides when it says that one ended. Zero: never.
  absl::Duration domain_check_interval = absl::Seconds(30);
  ToolstackOptions toolstack;
  // Whether disk requests are copied, so that none in flight names a guest's pages. kAuto: where
  // the domain that this runs in needs it.
  enum class Bounce : uint8_t { kAuto, kOn, kOff };
  Bounce bounce = Bounce::kAuto;
  // The lock of the one server (TakeServerLock), for the I/O threads' rings. -1: none.
  int keeps = -1;
};

// Everything on the thread of `loop`, but for what I/O threads and workers do.
class Supervisor : private xenstore::BusListener {
 public:
  // `stopped`: the service has ended, orderly (OK) or because xenstore is lost. The loop, the
  // platform and the store's domain must outlive it.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Start(
      EventLoop* loop, grants::Platform& platform, const ServiceOptions& options,
      absl::AnyInvocable<void(absl::Status)> stopped);
  ~Supervisor() override;

  // Quiesces, unmaps and closes every bus, then `stopped`. A second call, or a limit, does not wait
  // for what hangs.
  void Stop();

  void LogCounters();

  // Takes over what may change while guests are served; new connections get the new page limit. The
  // error is the trace's: everything else is in force.
  absl::Status Reconfigure(const ServiceOptions& options);
  // Has the entries that were refused looked at again. How many they are is returned.
  size_t TryRefusedAgain();

  struct Summary {
    size_t buses = 0;
    size_t connected = 0;  // of these
    size_t devices = 0;    // served, or ready to be
    size_t refused = 0;    // buses and devices
    friend bool operator==(const Summary&, const Summary&) = default;
  };
  Summary Summarize() const;
  // Called after anything that may have changed the summary. It must not call back.
  void OnChange(absl::AnyInvocable<void()> changed) { changed_ = std::move(changed); }

  // The I/O threads that have neither slept nor got on since the last call, by their index.
  std::vector<size_t> HangingThreads();

 private:
  Supervisor(EventLoop* loop, absl::AnyInvocable<void(absl::Status)> stopped)
      : loop_(loop), stopped_(std::move(stopped)) {}

  // BusListener.
  void OnBusAppeared(const xenstore::BusAddress& bus, const xenstore::BusView& view) override;
  void OnBusChanged(const xenstore::BusAddress& bus, const xenstore::BusView& view) override;
  void OnBusVanished(const xenstore::BusAddress& bus) override;
  void OnDeviceAdded(const xenstore::BusAddress& bus, const xenstore::DeviceNodes& device) override;
  void OnDeviceRemovalRequested(const xenstore::BusAddress& bus, uint16_t number,
                                bool force) override;
  void OnDeviceVanished(const xenstore::BusAddress& bus, uint16_t number) override;
  void OnDeviceRefused(const xenstore::BusAddress& bus, const std::string& name,
                       const absl::Status& reason) override;
  void OnBusRefused(const std::string& path, const absl::Status& reason) override;
  void OnDomainReleased() override { domain_check_->Now(); }

  void Process();
  void ProcessLater();
  BusControl* Find(const xenstore::BusAddress& bus);
  std::shared_ptr<PageBudget> BudgetOf(uint16_t frontend);
  void Forget(const xenstore::BusAddress& bus);
  void Finish(absl::Status status);

  EventLoop* const loop_;
  absl::AnyInvocable<void(absl::Status)> stopped_;
  absl::AnyInvocable<void()> changed_;
  uint32_t max_window_pages_ = 0;
  uint16_t self_ = 0;  // the own domain

  // In the order of what needs what: buses are gone before workers, workers before threads.
  std::unique_ptr<xenstore::Store> store_;
  std::unique_ptr<grants::GrantMapper> mapper_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::vector<uint64_t> turns_seen_;  // of each thread, by HangingThreads
  std::unique_ptr<WorkerPool> workers_;
  BusServices services_;
  absl::btree_map<uint16_t, std::weak_ptr<PageBudget>> budgets_;
  absl::btree_map<xenstore::BusAddress, std::unique_ptr<BusControl>> buses_;
  std::unique_ptr<xenstore::BusDiscovery> discovery_;
  std::unique_ptr<DomainCheck> domain_check_;
  std::vector<std::unique_ptr<StoreThread>> toolstack_;

  bool processing_later_ = false;
  bool stopping_ = false;
  EventLoop::TimerId stop_limit_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace vmsg::backend
