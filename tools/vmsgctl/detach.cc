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
#include "tools/vmsgctl/facts/inventory.h"
#include "tools/vmsgctl/waiting.h"
#include "xenstore/bus_offer.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::Store;

constexpr absl::Duration kQuietWait = absl::Seconds(1);
// The store does not tell when a vmsgd ends.
constexpr absl::Duration kServerInterval = absl::Seconds(5);

// Whom a removal waits for.
struct Waiting {
  WaitsFor whom = WaitsFor::kVmsgd;
  std::string text;  // a sentence
  Liveness server;
};

std::string NameOf(const DeviceFacts& device) {
  const auto path = device.parameters.find("path");
  return absl::StrCat("device ", device.number, " (", device.type,
                      path == device.parameters.end() ? "" : absl::StrCat(" ", path->second), ")");
}

// Of these devices: a driver before a disk, because it comes first. What they say is what a vmsgd
// left that does not run any more.
Waiting WhomOf(const std::vector<DeviceFacts>& devices, const BusAddress& bus,
               const Servers& servers) {
  const auto named = [&devices](WaitsFor whom) {
    std::vector<std::string> names;
    for (const DeviceFacts& device : devices) {
      if (device.waits_for == whom) names.push_back(NameOf(device));
    }
    return absl::StrJoin(names, ", ");
  };
  Waiting waiting{.server = servers.Of(bus.backend)};
  const std::string driver = named(WaitsFor::kDriver), device = named(WaitsFor::kDevice);
  if (!servers.MayLive(bus.backend) || (driver.empty() && device.empty())) {
    waiting.text = servers.WhyNoAnswer(bus.backend);
  } else if (!driver.empty()) {
    waiting.whom = WaitsFor::kDriver;
    waiting.text = absl::StrCat("the guest's driver has not let go of ", driver);
  } else {
    waiting.whom = WaitsFor::kDevice;
    waiting.text =
        absl::StrCat("requests to ", device, " have not ended; vmsgd holds it until then");
  }
  return waiting;
}

// Waits until what was asked to go is not `there` any more, also when something else has its place;
// `directory` changes with it. While it is there, `whom` says whose doing that is. What it returns
// last is returned; nullopt: it is gone.
absl::StatusOr<std::optional<Waiting>> AwaitEnd(const Arguments& arguments, Store& store,
                                                const std::string& what,
                                                const std::string& directory,
                                                absl::FunctionRef<absl::StatusOr<bool>()> there,
                                                absl::FunctionRef<Waiting()> whom,
                                                Console console) {
  // A driver may take as long as it needs.
  const bool patient = !arguments.timeout_given && !arguments.force;
  const absl::Time begin = absl::Now();
  // Since when it is vmsgd that is waited for.
  absl::Time since = begin;
  std::string told;
  while (true) {
    Waiting now = whom();
    if (patient && now.whom != WaitsFor::kVmsgd) since = absl::InfiniteFuture();
    const absl::Duration left = since == absl::InfiniteFuture()
                                    ? absl::InfiniteDuration()
                                    : arguments.timeout - (absl::Now() - since);
    // Most removals take no time worth a word.
    const bool quiet = absl::Now() - begin < kQuietWait;
    const absl::Duration step = quiet ? kQuietWait : kServerInterval;
    absl::StatusOr<bool> met =
        WaitFor(store, directory, std::min(std::max(left, absl::ZeroDuration()), step),
                [&]() -> absl::StatusOr<bool> {
                  absl::StatusOr<bool> still = there();
                  if (!still.ok() || !*still) return still.ok() ? true : still;
                  return !quiet && whom().text != now.text;
                });
    if (!met.ok()) return met.status();
    absl::StatusOr<bool> still = there();
    if (!still.ok()) return still.status();
    if (!*still) return std::optional<Waiting>();
    now = whom();
    if (patient && now.whom == WaitsFor::kVmsgd && since == absl::InfiniteFuture()) {
      since = absl::Now();
    } else if (!*met && left <= step && !(patient && now.whom != WaitsFor::kVmsgd)) {
      return std::optional<Waiting>(std::move(now));
    }
    if (now.text != told) {
      console.Complain(absl::StrCat(what, ": waiting: ", now.text));
      told = std::move(now.text);
    }
  }
}

absl::Status NotEnded(absl::string_view what, const Waiting& waiting, absl::Duration timeout) {
  return absl::DeadlineExceededError(absl::StrCat(
      what, " is still there after ", absl::FormatDuration(timeout), ": ", waiting.text,
      ". The request stands; ",
      waiting.whom == WaitsFor::kDriver ? "--force does not wait for the driver"
                                        : "with --force the entry is removed without it"));
}

// What is true after an entry or a bus that did not end by itself was removed from the store.
void TellForced(absl::string_view what, const Waiting& waiting, absl::string_view removed,
                Console console) {
  const std::string vmsgd =
      waiting.server.pid == 0 ? "vmsgd" : absl::StrCat("vmsgd, process ", waiting.server.pid, ",");
  std::string held;
  if (waiting.whom == WaitsFor::kDevice) {
    held = absl::StrCat(", but ", vmsgd,
                        " still holds the image, and the guest's memory with it; it can be "
                        "attached again when its disk has answered or vmsgd has ended");
  } else if (waiting.server.answer == Liveness::Answer::kEnding) {
    held = absl::StrCat(", but ", vmsgd,
                        " still holds the image; it can be attached again when the kernel has "
                        "finished with it");
  } else if (waiting.server.answer != Liveness::Answer::kNone) {
    held = absl::StrCat(", but ", vmsgd,
                        " still holds the image if it runs, until it looks at xenstore or ends");
  }
  console.Complain(absl::StrCat(what, ": ", waiting.text, ". ", removed, held));
}

absl::StatusOr<bool> AsThere(const absl::Status& read) {
  if (absl::IsNotFound(read)) return false;
  if (!read.ok()) return read;
  return true;
}

absl::Status DetachDevice(const Arguments& arguments, Store& store, const BusAddress& bus,
                          const Servers& servers, Console console) {
  const uint16_t number = *arguments.device;
  const std::string what = absl::StrCat(xenstore::DomainLabel(store, bus.frontend), ": bus ",
                                        bus.id, " device ", number);
  absl::StatusOr<xenstore::EntryAddress> entry =
      xenstore::RequestDeviceRemoval(store, bus, number, arguments.force);
  if (!entry.ok()) return entry.status();
  const auto there = [&] { return AsThere(xenstore::RequireEntry(store, *entry)); };
  const auto whom = [&] {
    absl::StatusOr<DeviceFacts> device = ReadDevice(store, bus, number);
    return WhomOf(device.ok() ? std::vector<DeviceFacts>{*device} : std::vector<DeviceFacts>(), bus,
                  servers);
  };
  absl::StatusOr<std::optional<Waiting>> left =
      AwaitEnd(arguments, store, what, entry->Path(), there, whom, console);
  if (!left.ok()) return left.status();
  if (left->has_value()) {
    if (!arguments.force) return NotEnded(what, **left, arguments.timeout);
    absl::Status removed = xenstore::RemoveLeavingEntry(store, *entry);
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    TellForced(what, **left, "The entry was removed", console);
    if ((*left)->server.answer != Liveness::Answer::kNone) {
      console.Say(absl::StrCat(what, ": the entry was removed"));
      return absl::OkStatus();
    }
  }
  console.Say(absl::StrCat(what, " detached"));
  return absl::OkStatus();
}

absl::Status DetachBus(const Arguments& arguments, Store& store, const BusAddress& bus,
                       const Servers& servers, Console console) {
  const std::string what =
      absl::StrCat(xenstore::DomainLabel(store, bus.frontend), ": bus ", bus.id);
  if (absl::Status status = xenstore::RequestBusRemoval(store, bus, arguments.force);
      !status.ok()) {
    return status;
  }
  const auto there = [&]() -> absl::StatusOr<bool> {
    absl::StatusOr<bool> exists =
        AsThere(store.Read(absl::StrCat(bus.BackendPath(), "/", xenstore::kState)).status());
    if (!exists.ok() || !*exists) return exists;
    absl::StatusOr<std::string> online =
        store.Read(absl::StrCat(bus.BackendPath(), "/", xenstore::kOnline));
    // Made anew since, it is wanted.
    return online.ok() ? *online == "0" : AsThere(online.status());
  };
  const auto whom = [&] {
    absl::StatusOr<BusFacts> facts = ReadBus(store, bus);
    return WhomOf(facts.ok() ? facts->devices : std::vector<DeviceFacts>(), bus, servers);
  };
  absl::StatusOr<std::optional<Waiting>> left =
      AwaitEnd(arguments, store, what, bus.BackendPath(), there, whom, console);
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

int Detach(const Arguments& arguments, Store& store, Console console, const AskLiveness& ask) {
  absl::StatusOr<std::vector<BusAddress>> buses = ChooseBuses(arguments, store);
  absl::StatusOr<uint16_t> self = xenstore::OwnDomain(store);
  absl::Status status = buses.status();
  status.Update(self.status());
  if (status.ok()) {
    const Servers servers(ask, *self);
    for (const BusAddress& bus : *buses) {
      status.Update(arguments.device.has_value()
                        ? DetachDevice(arguments, store, bus, servers, console)
                        : DetachBus(arguments, store, bus, servers, console));
    }
  }
  if (status.ok()) return kExitDone;
  console.Complain(status.message());
  return kExitRefused;
}

}  // namespace vmsg::ctl
