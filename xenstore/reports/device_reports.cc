// SPDX-License-Identifier: Apache-2.0
#include "xenstore/reports/device_reports.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

std::string NodeOf(absl::string_view entry, absl::string_view node) {
  return absl::StrCat(entry, "/", node);
}

absl::Status WriteAnswer(NodeAccess& nodes, const std::string& entry, const absl::Status& result) {
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
}

}  // namespace

absl::Status ReportRemoval(Store& store, const EntryAddress& entry, const char* status) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
    absl::StatusOr<bool> leaving = IsLeaving(nodes, entry.bus, entry.number);
    if (!leaving.ok()) return leaving.status();
    if (!*leaving) {
      return absl::FailedPreconditionError(absl::StrCat(entry.Path(), " is another entry by now"));
    }
    return nodes.Write(NodeOf(entry.Path(), kHotplugStatus), status);
  });
}

absl::Status ReportDevice(Store& store, const EntryAddress& entry, const absl::Status& result) {
  return store.Transaction([&](NodeAccess& nodes) {
    absl::Status same = RequireEntry(nodes, entry);
    return same.ok() ? WriteAnswer(nodes, entry.Path(), result) : same;
  });
}

absl::Status ReportDevice(Store& store, const BusAddress& bus, absl::string_view device,
                          const absl::Status& result) {
  const std::string entry = absl::StrCat(bus.BackendPath(), "/", kDevice, "/", device);
  return store.Transaction([&](NodeAccess& nodes) {
    // A write would bring back an entry that was removed.
    absl::Status there = nodes.Read(NodeOf(entry, kType)).status();
    return there.ok() ? WriteAnswer(nodes, entry, result) : there;
  });
}

absl::Status ReportIoErrors(Store& store, const EntryAddress& entry, uint64_t count,
                            absl::string_view last) {
  return store.Transaction([&](NodeAccess& nodes) {
    if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
    const std::pair<const char*, std::string> values[] = {{kIoErrors, absl::StrCat(count)},
                                                          {kIoError, std::string(last)}};
    for (const auto& [name, value] : values) {
      const std::string node = NodeOf(entry.Path(), name);
      absl::Status status = count == 0 ? nodes.Remove(node) : nodes.Write(node, value);
      if (!status.ok() && !(count == 0 && absl::IsNotFound(status))) return status;
    }
    return absl::OkStatus();
  });
}

absl::Status NoteFoundKeys(Store& store, const EntryAddress& entry,
                           const absl::btree_map<std::string, std::string>& keys) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
    for (const auto& [key, value] : keys) {
      absl::Status written =
          nodes.Write(absl::StrCat(NodeOf(entry.Path(), kFoundKeys), "/", key), value);
      if (!written.ok()) return written;
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> NoteOpenedAs(Store& store, const EntryAddress& entry,
                                         absl::string_view seen_as) {
  const std::string node = NodeOf(entry.Path(), kOpenedAs);
  std::string before;
  absl::Status noted = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
    absl::StatusOr<std::string> old = nodes.Read(node);
    if (!old.ok() && !absl::IsNotFound(old.status())) return old.status();
    before = old.ok() ? *old : "";
    return before == seen_as ? absl::OkStatus() : nodes.Write(node, seen_as);
  });
  if (!noted.ok()) return noted;
  return before;
}

}  // namespace vmsg::xenstore
