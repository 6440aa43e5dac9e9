// SPDX-License-Identifier: Apache-2.0
// One device entry, told apart from another one that has its number later: whoever comes back to an
// entry that was looked at before asks whether it is still that one.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

struct EntryAddress {
  BusAddress bus;
  uint16_t number = 0;
  std::string id;  // empty: it was made without one

  std::string Path() const { return absl::StrCat(bus.BackendPath(), "/", kDevice, "/", number); }
};

// For a new entry; no other has had it.
std::string NewEntryId();

// The id of the entry at `path`; empty: it has none, or there is no entry.
absl::StatusOr<std::string> ReadEntryId(NodeAccess& nodes, absl::string_view path);

// In a transaction, before anything is written or removed. NotFound: the entry is gone, or another
// one has its number.
absl::Status RequireEntry(NodeAccess& nodes, const EntryAddress& entry);

}  // namespace vmsg::xenstore
