// SPDX-License-Identifier: Apache-2.0
#include "xenstore/reports/device_reports.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

std::string NodeOf(absl::string_view entry, absl::string_view node) {
  return absl::StrCat(entry, "/", node);
}

}  // namespace

absl::Status ReportRemoval(Store& store, const BusAddress& bus, uint16_t device,
                           const char* status) {
  const std::string entry = absl::StrCat(bus.BackendPath(), "/", kDevice, "/", device);
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<bool> leaving = IsLeaving(nodes, bus, device);
    if (!leaving.ok()) return leaving.status();
    if (!*leaving) {
      return absl::FailedPreconditionError(absl::StrCat(entry, " is another entry by now"));
    }
    return nodes.Write(NodeOf(entry, kHotplugStatus), status);
  });
}

absl::Status ReportDevice(Store& store, const BusAddress& bus, absl::string_view device,
                          const absl::Status& result) {
  const std::string entry = absl::StrCat(bus.BackendPath(), "/", kDevice, "/", device);
  return store.Transaction([&](NodeAccess& nodes) {
    // A write would bring back an entry that was removed.
    if (absl::StatusOr<std::string> type = nodes.Read(NodeOf(entry, kType)); !type.ok()) {
      return type.status();
    }
    if (result.ok()) {
      if (absl::Status removed = nodes.Remove(NodeOf(entry, kHotplugError));
          !removed.ok() && !absl::IsNotFound(removed)) {
        return removed;
      }
      return nodes.Write(NodeOf(entry, kHotplugStatus), kStatusConnected);
    }
    if (absl::Status status = nodes.Write(NodeOf(entry, kHotplugError), ErrorText(result));
        !status.ok()) {
      return status;
    }
    return nodes.Write(NodeOf(entry, kHotplugStatus), kStatusError);
  });
}

absl::Status ReportIoErrors(Store& store, const BusAddress& bus, uint16_t device, uint64_t count,
                            absl::string_view last) {
  const std::string entry = absl::StrCat(bus.BackendPath(), "/", kDevice, "/", device);
  return store.Transaction([&](NodeAccess& nodes) {
    // As above.
    if (absl::StatusOr<std::string> type = nodes.Read(NodeOf(entry, kType)); !type.ok()) {
      return type.status();
    }
    const std::pair<const char*, std::string> values[] = {{kIoErrors, absl::StrCat(count)},
                                                          {kIoError, std::string(last)}};
    for (const auto& [name, value] : values) {
      absl::Status status =
          count == 0 ? nodes.Remove(NodeOf(entry, name)) : nodes.Write(NodeOf(entry, name), value);
      if (!status.ok() && !(count == 0 && absl::IsNotFound(status))) return status;
    }
    return absl::OkStatus();
  });
}

absl::Status NoteFoundKeys(Store& store, const BusAddress& bus, uint16_t number,
                           const absl::btree_map<std::string, std::string>& keys) {
  const std::string entry = absl::StrCat(bus.BackendPath(), "/", kDevice, "/", number);
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::StatusOr<std::string> type = nodes.Read(NodeOf(entry, kType)); !type.ok()) {
      return type.status();
    }
    for (const auto& [key, value] : keys) {
      if (absl::Status written = nodes.Write(NodeOf(entry, absl::StrCat(kFoundPrefix, key)), value);
          !written.ok()) {
        return written;
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace vmsg::xenstore
