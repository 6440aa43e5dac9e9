// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tools/vmsgctl/commands.h"
#include "tools/vmsgctl/inventory.h"
#include "tools/vmsgctl/waiting.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::Store;

constexpr absl::Duration kQuietWait = absl::Seconds(1);
constexpr absl::Duration kLongestWait = absl::Hours(1);

// Whom a removal waits for, and as what an administrator knows them.
struct Waiting {
  WaitsFor whom = WaitsFor::kVmsgd;
  std::string name;
};

std::string NameOf(const DeviceFacts& device) {
  const auto path = device.parameters.find("path");
  return absl::StrCat("device ", device.number, " (", device.type,
                      path == device.parameters.end() ? "" : absl::StrCat(" ", path->second), ")");
}

// Of these devices: a driver before a disk, because it comes first.
Waiting WhomOf(const std::vector<DeviceFacts>& devices, const BusAddress& bus) {
  for (const WaitsFor whom : {WaitsFor::kDriver, WaitsFor::kDevice}) {
    std::vector<std::string> names;
    for (const DeviceFacts& device : devices) {
      if (device.waits_for == whom) names.push_back(NameOf(device));
    }
    if (!names.empty()) return {whom, absl::StrJoin(names, ", ")};
  }
  return {WaitsFor::kVmsgd, absl::StrCat("vmsgd in domain ", bus.backend)};
}

std::string WaitingText(const Waiting& waiting) {
  switch (waiting.whom) {
    case WaitsFor::kDriver:
      return absl::StrCat("the guest's driver has not let go of ", waiting.name);
    case WaitsFor::kDevice:
      return absl::StrCat("requests to ", waiting.name,
                          " have not ended; vmsgd holds it until then");
    default:
      return absl::StrCat(waiting.name, " has not answered (is it running?)");
  }
}

// Waits until `node` below `directory` is gone; while it is there, `whom` says whose doing that is.
// What it returns last is returned; nullopt: it is gone.
absl::StatusOr<std::optional<Waiting>> AwaitEnd(
    const Arguments& arguments, Store& store, const std::string& what, const std::string& directory,
    absl::string_view node, absl::FunctionRef<Waiting()> whom, Console console) {
  // A driver may take as long as it needs.
  const bool patient = !arguments.timeout_given && !arguments.force;
  const absl::Time begin = absl::Now();
  std::string told;
  while (true) {
    Waiting now = whom();
    const absl::Duration limit =
        patient && now.whom != WaitsFor::kVmsgd ? absl::InfiniteDuration() : arguments.timeout;
    const absl::Duration left = limit - (absl::Now() - begin);
    // Most removals take no time worth a word.
    const bool quiet = absl::Now() - begin < kQuietWait;
    absl::StatusOr<bool> met = WaitFor(
        store, directory,
        std::min(std::max(left, absl::ZeroDuration()), quiet ? kQuietWait : kLongestWait),
        [&]() -> absl::StatusOr<bool> {
          absl::StatusOr<std::string> value = store.Read(absl::StrCat(directory, "/", node));
          if (absl::IsNotFound(value.status())) return true;
          if (!value.ok()) return value.status();
          return !quiet && WaitingText(whom()) != WaitingText(now);
        });
    if (!met.ok()) return met.status();
    absl::StatusOr<std::string> value = store.Read(absl::StrCat(directory, "/", node));
    if (absl::IsNotFound(value.status())) return std::optional<Waiting>();
    if (!value.ok()) return value.status();
    now = whom();
    if (!*met && left <= (quiet ? kQuietWait : kLongestWait) &&
        !(patient && now.whom != WaitsFor::kVmsgd)) {
      return std::optional<Waiting>(std::move(now));
    }
    if (std::string text = WaitingText(now); text != told) {
      console.Complain(absl::StrCat(what, ": waiting: ", text));
      told = std::move(text);
    }
  }
}

absl::Status NotEnded(absl::string_view what, const Waiting& waiting, absl::Duration timeout) {
  return absl::DeadlineExceededError(absl::StrCat(
      what, " is still there after ", absl::FormatDuration(timeout), ": ", WaitingText(waiting),
      ". The request stands; ",
      waiting.whom == WaitsFor::kDriver ? "--force does not wait for the driver"
                                        : "with --force the entry is removed without it"));
}

// The end of an entry or a bus that did not end by itself.
void TellForced(absl::string_view what, const Waiting& waiting, absl::string_view removed,
                Console console) {
  const absl::string_view held =
      waiting.whom == WaitsFor::kDevice
          ? ", but vmsgd still holds the image, and the guest's memory with it; it can be "
            "attached again when its disk has answered or vmsgd has ended"
          : "";
  console.Complain(absl::StrCat(what, ": ", WaitingText(waiting), ". ", removed, held));
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
  const auto whom = [&] {
    absl::StatusOr<DeviceFacts> device = ReadDevice(store, bus, number);
    return WhomOf(device.ok() ? std::vector<DeviceFacts>{*device} : std::vector<DeviceFacts>(),
                  bus);
  };
  absl::StatusOr<std::optional<Waiting>> left = AwaitEnd(
      arguments, store, what, absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/", number),
      xenstore::kType, whom, console);
  if (!left.ok()) return left.status();
  if (left->has_value()) {
    if (!arguments.force) return NotEnded(what, **left, arguments.timeout);
    absl::Status removed = xenstore::RemoveLeavingDevice(store, bus, number);
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    TellForced(what, **left, "The entry was removed", console);
  }
  console.Say(absl::StrCat(what, " detached"));
  return absl::OkStatus();
}

absl::Status DetachBus(const Arguments& arguments, Store& store, const BusAddress& bus,
                       Console console) {
  const std::string what =
      absl::StrCat(xenstore::DomainLabel(store, bus.frontend), ": bus ", bus.id);
  if (absl::Status status = xenstore::RequestBusRemoval(store, bus, arguments.force);
      !status.ok()) {
    return status;
  }
  const auto whom = [&] {
    absl::StatusOr<BusFacts> facts = ReadBus(store, bus);
    return WhomOf(facts.ok() ? facts->devices : std::vector<DeviceFacts>(), bus);
  };
  absl::StatusOr<std::optional<Waiting>> left =
      AwaitEnd(arguments, store, what, bus.BackendPath(), xenstore::kState, whom, console);
  if (!left.ok()) return left.status();
  if (left->has_value()) {
    if (!arguments.force) return NotEnded(what, **left, arguments.timeout);
    TellForced(what, **left, "The directories were removed", console);
  }
  // Made anew since, it is somebody else's.
  if (absl::Status status = xenstore::RemoveLeavingBus(store, bus);
      !status.ok() && !absl::IsAlreadyExists(status)) {
    return status;
  }
  console.Say(absl::StrCat(what, " removed"));
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
  console.Complain(status.message());
  return kExitRefused;
}

}  // namespace vmsg::ctl
