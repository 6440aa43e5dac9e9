// SPDX-License-Identifier: Apache-2.0
// What the store says about domains, buses and devices, read anew each time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/config_mark.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::ctl {

// Whom a removal waits for.
enum class WaitsFor {
  kNobody,  // it was not asked for
  kVmsgd,   // which has not answered
  kDriver,  // which was asked to let go of the device
  kDevice,  // what the entry names: requests to it have not ended
};

struct DeviceFacts {
  uint16_t number = 0;
  std::string id;           // see xenstore::kEntryId
  std::string from_config;  // the file that it is from; empty: none
  std::string type;
  std::string status;  // "connected", "error", "removing" or "waiting"
  std::string error;
  WaitsFor waits_for = WaitsFor::kNobody;  // while it is removed
  std::string io_errors;                   // how many requests the disk failed; empty: none
  std::string io_error;                    // the last
  absl::btree_map<std::string, std::string> parameters;
};

struct BusFacts {
  xenstore::BusAddress address;
  std::string domain_name;  // empty: the domain has none, or is gone
  std::optional<xenstore::XenbusState> backend;
  std::optional<xenstore::XenbusState> frontend;
  bool online = true;
  std::string error;
  std::vector<DeviceFacts> devices;
};

// Every bus of every backend domain, ordered by frontend, backend and id; without their devices.
absl::StatusOr<std::vector<xenstore::BusAddress>> FindBuses(xenstore::NodeAccess& nodes);
// What the domains' xl configs did for them, by ascending domid.
struct ConfigFacts {
  uint16_t domain = 0;
  std::string domain_name;
  xenstore::ConfigMark mark;
};
absl::StatusOr<std::vector<ConfigFacts>> FindConfigs(xenstore::NodeAccess& nodes);
absl::StatusOr<BusFacts> ReadBus(xenstore::NodeAccess& nodes, const xenstore::BusAddress& bus);
// NotFound: no such entry.
absl::StatusOr<DeviceFacts> ReadDevice(xenstore::NodeAccess& nodes, const xenstore::BusAddress& bus,
                                       uint16_t number);

}  // namespace vmsg::ctl
