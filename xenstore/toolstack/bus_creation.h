// SPDX-License-Identifier: Apache-2.0
// The toolstack's part of docs/binding.md, section 1: making a bus and its device entries, asking
// for their removal, and cleaning up. Each call is one transaction: all of it or nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/entries/entry_id.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

// What goes below device/<n>.
struct DeviceNodesToWrite {
  uint16_t number = 0;
  std::string type;
  absl::btree_map<std::string, std::string> keys;
  std::string from_config = {};  // the file that names it; empty: none
  std::string id = {};           // NewEntryId
};

struct DeviceCreation {
  std::vector<uint16_t> numbers;  // as given, in order
  bool created_bus = false;       // the bus did not exist before
};

// Adds device entries, making the bus first when there is none: both directories with owners and
// permissions; the frontend can read the backend directory but not `device` and what is below.
// AlreadyExists: a device of that number exists already, or twice in the list. FailedPrecondition:
// the bus is being removed, or another backend serves it. NotFound: the frontend's domain does not
// exist.
absl::StatusOr<DeviceCreation> AddDevices(Store& store, const BusAddress& bus,
                                          const std::vector<DeviceNodesToWrite>& devices);
// The same as a part of the caller's transaction.
absl::StatusOr<DeviceCreation> AddDevicesWithin(NodeAccess& nodes, const BusAddress& bus,
                                                const std::vector<DeviceNodesToWrite>& devices);

// Asks the backend to remove a device: online=0, and force=1 when it shall not wait for the
// driver. NotFound: no such device.
// Returned is which one that is.
absl::StatusOr<EntryAddress> RequestDeviceRemoval(Store& store, const BusAddress& bus,
                                                  uint16_t number, bool force);
// The same of this entry. NotFound, here and below: it is gone, or another one has its number,
// which is left alone.
absl::Status RequestEntryRemoval(Store& store, const EntryAddress& entry, bool force);
// Removes the nodes of an entry that no backend serves.
absl::Status RemoveEntry(Store& store, const EntryAddress& entry);
// Its own removal, or its bus's, was asked for. NotFound: no such device.
absl::StatusOr<bool> IsLeaving(NodeAccess& nodes, const BusAddress& bus, uint16_t number);
// Removes the nodes after such a request. NotFound: also when the entry is to stay.
absl::Status RemoveLeavingEntry(Store& store, const EntryAddress& entry);

// Asks the backend to end the bus: online=0, and force=1 when it shall not wait for the drivers.
// NotFound: no such bus.
absl::Status RequestBusRemoval(Store& store, const BusAddress& bus, bool force = false);
// The same if it has no device entries; FailedPrecondition: it has.
absl::Status RequestEmptyBusRemoval(Store& store, const BusAddress& bus);
// Removes what is left of a bus on both sides: both directories, the error nodes and parents that
// became empty; not the frontend's directory if it is that of a bus at another backend. Nothing
// there is no error.
absl::Status RemoveBus(Store& store, const BusAddress& bus);
// The same after a request for its removal. AlreadyExists: the bus that is there now is another
// one, which was made since.
absl::Status RemoveLeavingBus(Store& store, const BusAddress& bus);
// The backend's part of it, after it wrote state 6: its own directory, the one of all the
// frontend's buses above if it is empty, and its error node. AlreadyExists: as above.
absl::Status RemoveBackendDirectory(Store& store, const BusAddress& bus);

// The numbers of the bus's device entries, ascending. Empty: none, or no bus. Names that are no
// device number are left out.
absl::StatusOr<std::vector<uint16_t>> ListDevices(NodeAccess& nodes, const BusAddress& bus);

}  // namespace vmsg::xenstore
