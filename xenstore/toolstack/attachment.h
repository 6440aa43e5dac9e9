// SPDX-License-Identifier: Apache-2.0
// From an administrator's entries to a guest's nodes: numbers are chosen, and everything is written
// in one transaction or not at all. Used alike by vmsgctl and by whoever follows xl's configs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/device_entry.h"
#include "xenstore/toolstack/xl_config.h"

namespace vmsg::xenstore {

// One entry on its way into the store.
struct AttachItem {
  std::string label;  // the entry as it was written, and where: for messages
  DeviceEntry entry;
  uint16_t number = 0;           // chosen by WriteAttachment
  bool attached = false;         // it was already, under that number: nothing was written
  bool retried = false;          // it was refused under that number, and is tried again as it reads
  std::string from_config = {};  // the file that the entry is noted to be from; empty: none
  std::string id = {};           // of the entry that was written, or was there
  // Notes of a refused entry's that stay: what a backend that once had it open knew.
  absl::btree_map<std::string, std::string> remembered = {};

  bool Known() const { return attached || retried; }
};

struct AttachPlan {
  uint16_t frontend = 0;
  uint16_t backend = 0;
  absl::btree_map<uint32_t, std::vector<AttachItem>> buses;  // by bus id, in the order written

  BusAddress bus(uint32_t id) const { return {frontend, backend, id}; }
};

// The entries of a config without a `problem`, labelled with the file and their index.
std::vector<AttachItem> ItemsOfConfig(const std::string& path, const XlConfig& config);

// The items by their buses.
AttachPlan PlanAttachment(uint16_t frontend, uint16_t backend, std::vector<AttachItem> items);

// Chooses the numbers, those given and then the lowest free ones, notes them in the plan, and
// writes it, in one transaction: others may attach at the same time. `config`: the file the plan
// comes from, noted as the domain's; empty: none is noted. What was done for each bus is returned
// by its id; one where nothing was is left out. An entry that is there and was refused is tried
// again, under its number, by an item that reads the same, so that what was away for a moment does
// not end up under a second number. InvalidArgument: a number is taken, or given twice; the text
// begins with the entry's label. With a config, what is attached from one already as it
// reads stays, and what was refused of it is replaced; FailedPrecondition: a device is attached
// that it does not have any more. For other refusals see AddDevices.
absl::StatusOr<absl::btree_map<uint32_t, DeviceCreation>> WriteAttachment(
    Store& store, AttachPlan& plan, const std::string& config);

}  // namespace vmsg::xenstore
