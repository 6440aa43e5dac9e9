// SPDX-License-Identifier: Apache-2.0
// What vmsgctl expects of vmsgd, on a store in memory: answers entries, removes what it is asked to
// remove. Acts when Run is called.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/bus_offer.h"
#include "xenstore/discovery.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::ctl {

class ModelService : public xenstore::BusListener {
 public:
  explicit ModelService(xenstore::MemoryTree& tree) : store_(tree.Connect(0)) {
    discovery_ = *xenstore::BusDiscovery::Start(store_.get(), this, 0);
  }

  std::string refused_type = "nonsense";
  std::set<uint16_t> busy;     // devices whose driver does not let go
  std::set<uint16_t> hanging;  // devices whose requests do not end, forced or not
  std::string bus_error;       // not empty: no bus is served, for this reason

  void Run() {
    while (true) {
      absl::StatusOr<bool> more = discovery_->Process();
      if (!more.ok() || !*more) return;
    }
  }

  void OnBusAppeared(const xenstore::BusAddress& bus, const xenstore::BusView&) override {
    if (!bus_error.empty()) {
      xenstore::ReportBackendError(*store_, bus, absl::ResourceExhaustedError(bus_error))
          .IgnoreError();
      return;
    }
    xenstore::WriteState(*store_, bus.BackendPath(), xenstore::XenbusState::kInitWait)
        .IgnoreError();
  }
  void OnBusChanged(const xenstore::BusAddress& bus, const xenstore::BusView& view) override {
    if (view.online) return;
    for (const uint16_t number : hanging) Tell(bus, number, xenstore::kStatusDraining);
    if (!view.forced) {
      for (const uint16_t number : busy) Tell(bus, number, xenstore::kStatusAsked);
    }
    if (!hanging.empty() || (!view.forced && !busy.empty())) return;
    xenstore::WriteState(*store_, bus.BackendPath(), xenstore::XenbusState::kClosed).IgnoreError();
    xenstore::RemoveBackendDirectory(*store_, bus).IgnoreError();
  }
  void OnBusVanished(const xenstore::BusAddress&) override {}
  void OnDeviceAdded(const xenstore::BusAddress& bus,
                     const xenstore::DeviceNodes& device) override {
    if (!bus_error.empty()) return;
    absl::Status result = absl::OkStatus();
    if (device.type == refused_type) {
      result = absl::InvalidArgumentError("key \"type\": \"nonsense\" is no type; there is rng");
    }
    xenstore::ReportDevice(*store_, bus, std::to_string(device.number), result).IgnoreError();
  }
  void OnDeviceRemovalRequested(const xenstore::BusAddress& bus, uint16_t number,
                                bool force) override {
    if (hanging.contains(number)) return Tell(bus, number, xenstore::kStatusDraining);
    if (!force && busy.contains(number)) return Tell(bus, number, xenstore::kStatusAsked);
    xenstore::RemoveLeavingEntry(*store_, Entry(bus, number)).IgnoreError();
  }
  void OnDeviceVanished(const xenstore::BusAddress&, uint16_t) override {}
  void OnDeviceRefused(const xenstore::BusAddress&, const std::string&,
                       const absl::Status&) override {}
  void OnBusRefused(const std::string&, const absl::Status&) override {}

 private:
  void Tell(const xenstore::BusAddress& bus, uint16_t number, const char* status) {
    xenstore::ReportRemoval(*store_, Entry(bus, number), status).IgnoreError();
  }
  xenstore::EntryAddress Entry(const xenstore::BusAddress& bus, uint16_t number) {
    xenstore::EntryAddress entry{bus, number, ""};
    entry.id = xenstore::ReadEntryId(*store_, entry.Path()).value_or("");
    return entry;
  }

  std::unique_ptr<xenstore::MemoryStore> store_;
  std::unique_ptr<xenstore::BusDiscovery> discovery_;
};

}  // namespace vmsg::ctl
