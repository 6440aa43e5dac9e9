// SPDX-License-Identifier: Apache-2.0
// What the backend writes into the entries of a bus's devices, for the administrator and for the
// backend that serves them next. None brings back an entry that the toolstack removed.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/entries/entry_id.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

// The answer to a device entry: hotplug-status "connected", or "error" and the reason in
// hotplug-error. NotFound, here and below: the entry is gone meanwhile, or another one has its
// number; nothing was written.
absl::Status ReportDevice(Store& store, const EntryAddress& entry, const absl::Status& result);
// The same of whatever is below device/ by this name.
absl::Status ReportDevice(Store& store, const BusAddress& bus, absl::string_view device,
                          const absl::Status& result);
// How far the removal that an entry's or its bus's `online` 0 asks for has got: kStatusAsked or
// kStatusDraining. FailedPrecondition: this entry is to stay.
absl::Status ReportRemoval(Store& store, const EntryAddress& entry, const char* status);

// How many requests of a device failed at the disk, and the last one's text; 0: none, the nodes go.
absl::Status ReportIoErrors(Store& store, const EntryAddress& entry, uint64_t count,
                            absl::string_view last);
// Values that keys of a device entry have from now on where it says nothing of them, for whoever
// serves it next.
absl::Status NoteFoundKeys(Store& store, const EntryAddress& entry,
                           const absl::btree_map<std::string, std::string>& keys);
// What the entry names, as it was opened now. Returns what it was when it was opened before; empty:
// it was not.
absl::StatusOr<std::string> NoteOpenedAs(Store& store, const EntryAddress& entry,
                                         absl::string_view seen_as);

}  // namespace vmsg::xenstore
