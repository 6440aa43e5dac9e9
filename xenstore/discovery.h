// SPDX-License-Identifier: Apache-2.0
// The backend's view of xenstore: which buses and device entries exist, and what changed. Watches
// the own backend directory and every frontend's directory; reports differences, never repeats.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::xenstore {

// A frontend needs one bus, or a few to use several processors; each costs the service a window
// and a thread's attention.
inline constexpr size_t kMaxBusesPerFrontend = 16;
// What an administrator attaches by hand or in a config; bounds a scan of the device directory.
inline constexpr size_t kMaxDevicesPerBus = 256;
// Longest list of parameters of one device entry.
inline constexpr size_t kMaxKeysPerDevice = 32;
// Refusals remembered so that they are reported once.
inline constexpr size_t kMaxRefusedNames = 256;

struct BusView {
  XenbusState ours = XenbusState::kUnknown;  // our state node
  std::optional<XenbusState> frontend;       // nullopt: gone or not readable; kUnknown: no state
  std::string no_state;                      // what the frontend's state node holds instead of one
  // Not asked to go, and the frontend's domain and its directory for this bus exist.
  bool online = true;
  // Not online, and no driver is to be asked: `force` says so, or there is none.
  bool forced = false;
  bool operator==(const BusView&) const = default;
};

// One device/<n> as the toolstack wrote it.
struct DeviceNodes {
  uint16_t number = 0;
  std::string id;  // see kEntryId
  std::string type;
  absl::btree_map<std::string, std::string> keys;   // without type, online, force and ours
  absl::btree_map<std::string, std::string> found;  // see kFoundKeys
  // hotplug-status as a predecessor left it: empty, "connected" or "error".
  std::string status;
  bool operator==(const DeviceNodes&) const = default;
};

// Called from BusDiscovery::Process only. May use the store; must not call the discovery.
class BusListener {
 public:
  virtual ~BusListener() = default;
  virtual void OnBusAppeared(const BusAddress& bus, const BusView& view) = 0;
  // Anything but our own state is another than last reported, or the frontend is in 3 and wrote its
  // state: it may have been elsewhere in between, with another request now. Our own state is not
  // watched.
  virtual void OnBusChanged(const BusAddress& bus, const BusView& view) = 0;
  // The backend directory is gone: write nothing into it. Its devices are not reported one by one.
  virtual void OnBusVanished(const BusAddress& bus) = 0;
  // After OnBusAppeared.
  virtual void OnDeviceAdded(const BusAddress& bus, const DeviceNodes& device) = 0;
  // device/<n>/online became 0. `force`: do not wait for the driver; may follow a call without.
  virtual void OnDeviceRemovalRequested(const BusAddress& bus, uint16_t number, bool force) = 0;
  // device/<n> is gone, whoever removed it. A later OnDeviceAdded may carry the same number.
  virtual void OnDeviceVanished(const BusAddress& bus, uint16_t number) = 0;
  // The entry is not served and not looked at again while it exists. `name`: its directory's name.
  virtual void OnDeviceRefused(const BusAddress& bus, const std::string& name,
                               const absl::Status& reason) = 0;
  // A directory below backend/virtio-msg that is no bus, or one bus too many. `path`: relative.
  virtual void OnBusRefused(const std::string& path, const absl::Status& reason) = 0;
  // @releaseDomain: some domain, not always one of ours, was shut down or destroyed.
  virtual void OnDomainReleased() {}
};

// Frontend and bus id come from the names of the backend's own directories, never from the value of
// a node. Runs on one thread. A guest can make us look at one state node of its own per turn and
// bus, whatever it writes: events only mark what to look at, and only differences are reported.
class BusDiscovery {
 public:
  // Both must outlive the result. `self`: the domain of this store connection (OwnDomain). What
  // exists already is reported by the first calls of Process.
  static absl::StatusOr<std::unique_ptr<BusDiscovery>> Start(Store* store, BusListener* listener,
                                                             uint16_t self);
  BusDiscovery(const BusDiscovery&) = delete;
  BusDiscovery& operator=(const BusDiscovery&) = delete;
  ~BusDiscovery();

  // Takes a bounded number of watch events and looks at a bounded number of buses. Call it when
  // store->fd() is readable and again, soon, while it returns true. An error means the store is
  // lost.
  absl::StatusOr<bool> Process();

  size_t bus_count() const { return buses_.size(); }
  // Domains with a bus here, ascending.
  std::vector<uint16_t> Frontends() const;
  // Somebody who knows says that this domain is gone or dying, whatever the store shows: its buses
  // are not wanted any more. Takes effect in the next Process, which is to be called soon. Called
  // again, it makes up for events that were lost on the way.
  void EndDomain(uint16_t frontend);
  // Takes the answers of refused entries back, so that they are looked at as new ones in the next
  // Process, which is to be called soon: what was wrong with them may be repaired. What is served
  // or on its way out is not touched. How many they are is returned.
  size_t TryRefusedAgain();

 private:
  enum class Progress : uint8_t { kServed, kRemoving, kForced };
  struct DeviceRecord {
    std::string id;
    Progress progress = Progress::kServed;
    bool answered = false;  // hotplug-status was there, or is known to have been
  };
  // What to look at.
  struct Dirty {
    bool bus = false;                    // our directory: existence, online
    bool frontend = false;               // the frontend's state
    bool devices = false;                // the whole device directory
    absl::btree_set<uint16_t> entries;   // single entries
    absl::btree_set<uint16_t> answered;  // those whose hotplug-status was written meanwhile
  };
  struct Bus {
    BusView reported;
    bool online_node = true;
    bool force_node = false;     // read while online is 0
    bool frontend_gone = false;  // its directory, not only the state in it
    bool domain_gone = false;    // as the store says
    bool ended = false;          // as EndDomain said
    absl::btree_map<uint16_t, DeviceRecord> devices;
    absl::btree_set<std::string> refused;  // names below device/
  };

  BusDiscovery(Store* store, BusListener* listener, uint16_t self)
      : store_(store), listener_(listener), self_(self) {}

  void Mark(const WatchEvent& event);
  void MarkBackend(absl::string_view below);
  void MarkBus(const BusAddress& bus);
  absl::Status ScanRoot();
  absl::Status ScanFrontend(uint16_t frontend);
  void CheckDomain(uint16_t frontend);
  absl::Status ScanBus(const BusAddress& address, const Dirty& dirty);
  absl::Status Appear(const BusAddress& address);
  void Vanish(const BusAddress& address);
  absl::StatusOr<std::optional<std::string>> ReadNode(const std::string& path);
  absl::Status ReadFrontend(const BusAddress& address, Bus& bus, BusView& view);
  absl::Status ReadOnline(const BusAddress& address, Bus& bus);
  static void Judge(const Bus& bus, BusView& view);
  bool DomainGone(uint16_t frontend);
  // discovery_devices.cc
  absl::Status ScanDevices(const BusAddress& address, Bus& bus);
  absl::Status ScanDevice(const BusAddress& address, Bus& bus, uint16_t number);
  absl::Status AddDevice(const BusAddress& address, Bus& bus, DeviceNodes device);
  absl::Status CheckRemoval(const BusAddress& address, uint16_t number, DeviceRecord& device,
                            bool wanted);
  void RefuseBus(const std::string& path, const absl::Status& reason);
  void RefuseDevice(const BusAddress& address, Bus& bus, const std::string& name,
                    const absl::Status& reason);

  Store* store_;
  BusListener* listener_;
  uint16_t self_;
  absl::btree_map<BusAddress, Bus> buses_;
  absl::btree_set<std::string> refused_buses_;
  bool root_dirty_ = false;
  bool starved_ = false;  // a bus was refused because xenstored gives us no more
  absl::btree_set<uint16_t> dirty_frontends_;
  absl::btree_set<uint16_t> dirty_domains_;
  absl::btree_map<BusAddress, Dirty> dirty_buses_;
  BusAddress last_looked_at_;
};

}  // namespace vmsg::xenstore
