// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/vmsgctl/commands.h"
#include "tools/vmsgctl/inventory.h"
#include "tools/vmsgctl/waiting.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::Store;

// Waits until `node` is gone.
absl::StatusOr<bool> AwaitEnd(Store& store, const std::string& directory, absl::string_view node,
                              absl::Duration timeout) {
  return WaitFor(store, directory, timeout, [&]() -> absl::StatusOr<bool> {
    absl::StatusOr<std::string> value = store.Read(absl::StrCat(directory, "/", node));
    if (absl::IsNotFound(value.status())) return true;
    if (!value.ok()) return value.status();
    return false;
  });
}

absl::Status NotAnswered(absl::string_view what, const BusAddress& bus, absl::Duration timeout) {
  return absl::DeadlineExceededError(absl::StrCat(
      what, " is still there after ", absl::FormatDuration(timeout), ": is vmsgd in domain ",
      bus.backend, " running? The request stands; with --force the entry is removed without it"));
}

absl::Status DetachDevice(const Arguments& arguments, Store& store, const BusAddress& bus,
                          Console console) {
  const uint16_t number = *arguments.device;
  const std::string what = absl::StrCat(xenstore::DomainLabel(store, bus.frontend), ": bus ",
                                        bus.id, " device ", number);
  if (absl::Status status = xenstore::RequestDeviceRemoval(store, bus, number, arguments.force);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<bool> ended =
      AwaitEnd(store, absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/", number),
               xenstore::kType, arguments.timeout);
  if (!ended.ok()) return ended.status();
  if (!*ended) {
    if (!arguments.force) return NotAnswered(what, bus, arguments.timeout);
    if (absl::Status status = xenstore::RemoveDevice(store, bus, number); !status.ok()) {
      return status;
    }
    console.err << "vmsgctl: " << what << ": vmsgd did not answer; the entry was removed\n";
  }
  console.out << what << " detached\n";
  return absl::OkStatus();
}

absl::Status DetachBus(const Arguments& arguments, Store& store, const BusAddress& bus,
                       Console console) {
  const std::string what =
      absl::StrCat(xenstore::DomainLabel(store, bus.frontend), ": bus ", bus.id);
  if (absl::Status status = xenstore::RequestBusRemoval(store, bus); !status.ok()) return status;
  absl::StatusOr<bool> ended =
      AwaitEnd(store, bus.BackendPath(), xenstore::kState, arguments.timeout);
  if (!ended.ok()) return ended.status();
  if (!*ended) {
    if (!arguments.force) return NotAnswered(what, bus, arguments.timeout);
    console.err << "vmsgctl: " << what << ": vmsgd did not answer; the directories were removed\n";
  }
  if (absl::Status status = xenstore::RemoveBus(store, bus); !status.ok()) return status;
  console.out << what << " removed\n";
  return absl::OkStatus();
}

// The buses that the command line means.
absl::StatusOr<std::vector<BusAddress>> ChooseBuses(const Arguments& arguments, Store& store) {
  absl::StatusOr<uint16_t> frontend =
      xenstore::FindDomain(store, *arguments.domain, /*may_be_gone=*/true);
  if (!frontend.ok()) return frontend.status();
  std::optional<uint16_t> backend;
  if (arguments.backend.has_value()) {
    absl::StatusOr<uint16_t> at = xenstore::FindDomain(store, *arguments.backend);
    if (!at.ok()) return at.status();
    backend = *at;
  }
  // A device number means bus 0 unless one is named; "all" means every bus.
  std::optional<uint32_t> id = arguments.bus;
  if (!id.has_value() && arguments.device.has_value()) id = 0;

  absl::StatusOr<std::vector<BusAddress>> buses = FindBuses(store);
  if (!buses.ok()) return buses.status();
  buses->erase(std::remove_if(buses->begin(), buses->end(),
                              [&](const BusAddress& bus) {
                                return bus.frontend != *frontend ||
                                       (backend.has_value() && bus.backend != *backend) ||
                                       (id.has_value() && bus.id != *id);
                              }),
               buses->end());
  if (buses->empty()) {
    return absl::NotFoundError(absl::StrCat("domain ", *frontend, " has no virtio-msg bus",
                                            id.has_value() ? absl::StrCat(" ", *id) : ""));
  }
  if (arguments.device.has_value() && buses->size() > 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "domain ", *frontend, " has a bus ", *id, " at several backends; name one with --backend"));
  }
  return buses;
}

}  // namespace

int Detach(const Arguments& arguments, Store& store, Console console) {
  absl::StatusOr<std::vector<BusAddress>> buses = ChooseBuses(arguments, store);
  absl::Status status = buses.status();
  if (status.ok()) {
    for (const BusAddress& bus : *buses) {
      status.Update(arguments.device.has_value() ? DetachDevice(arguments, store, bus, console)
                                                 : DetachBus(arguments, store, bus, console));
    }
  }
  if (status.ok()) return kExitDone;
  console.err << "vmsgctl: " << status.message() << "\n";
  return kExitRefused;
}

}  // namespace vmsg::ctl
