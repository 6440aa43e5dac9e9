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
#include "xenstore/xenbus_state.h"

namespace vmsg::ctl {

struct DeviceFacts {
  uint16_t number = 0;
  std::string type;
  std::string status;  // "connected", "error", "removing" or "waiting"
  std::string error;
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

// A domain by id or name. NotFound: there is none; FailedPrecondition: the name fits several.
// `may_be_gone`: an id needs no living domain, so that what one left behind can be removed.
absl::StatusOr<uint16_t> FindDomain(xenstore::NodeAccess& nodes, const std::string& name_or_id,
                                    bool may_be_gone = false);
// The name of a domain, or "domain <id>".
std::string DomainLabel(xenstore::NodeAccess& nodes, uint16_t domain);

// Every bus of every backend domain, ordered by frontend, backend and id; without their devices.
absl::StatusOr<std::vector<xenstore::BusAddress>> FindBuses(xenstore::NodeAccess& nodes);
absl::StatusOr<BusFacts> ReadBus(xenstore::NodeAccess& nodes, const xenstore::BusAddress& bus);
// NotFound: no such entry.
absl::StatusOr<DeviceFacts> ReadDevice(xenstore::NodeAccess& nodes, const xenstore::BusAddress& bus,
                                       uint16_t number);

}  // namespace vmsg::ctl
