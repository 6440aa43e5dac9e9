// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tools/vmsgctl/commands.h"
#include "tools/vmsgctl/inventory.h"
#include "tools/vmsgctl/waiting.h"
#include "xenstore/bus_offer.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/device_entry.h"
#include "xenstore/toolstack/xl_config.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::Store;

// One entry on its way into the store.
struct Item {
  std::string label;  // as the administrator wrote it, and where
  xenstore::DeviceEntry entry;
  uint16_t number = 0;
};

struct Plan {
  uint16_t frontend = 0;
  uint16_t backend = 0;
  std::string domain_label;
  absl::btree_map<uint32_t, std::vector<Item>> buses;
};

absl::Status EntryError(const Item& item, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(item.label, ": ", reason));
}

absl::StatusOr<std::vector<Item>> ReadEntries(const Arguments& arguments,
                                              std::optional<std::string>& domain,
                                              std::optional<std::string>& backend) {
  std::vector<Item> items;
  if (!arguments.config.has_value()) {
    for (const std::string& text : arguments.entries) {
      absl::StatusOr<xenstore::DeviceEntry> entry = xenstore::ParseDeviceEntry(text);
      Item item{absl::StrCat("entry ", xenstore::Quoted(text)), {}, 0};
      if (!entry.ok()) return EntryError(item, entry.status().message());
      item.entry = *std::move(entry);
      items.push_back(std::move(item));
    }
    return items;
  }
  absl::StatusOr<xenstore::XlConfig> config = xenstore::ReadXlConfig(*arguments.config);
  if (!config.ok()) return config.status();
  if (!domain.has_value()) domain = config->name;
  if (!backend.has_value()) backend = config->backend;
  for (size_t i = 0; i < config->entries.size(); ++i) {
    items.push_back({absl::StrCat(*arguments.config, ": virtio_msg[", i, "] ",
                                  xenstore::Quoted(config->texts[i])),
                     config->entries[i], 0});
  }
  if (items.empty()) {
    return absl::NotFoundError(absl::StrCat(
        *arguments.config, ": there is no virtio_msg = [ ... ] in it: nothing to attach"));
  }
  return items;
}

// Numbers as given, then the lowest free ones. Refuses a number that is taken before anything is
// written.
absl::Status AssignNumbers(Store& store, const BusAddress& bus, std::vector<Item>& items) {
  absl::StatusOr<std::vector<uint16_t>> existing = xenstore::ListDevices(store, bus);
  if (!existing.ok()) return existing.status();
  const absl::btree_set<uint16_t> attached(existing->begin(), existing->end());
  absl::btree_set<uint16_t> used = attached;
  for (Item& item : items) {
    if (!item.entry.number.has_value()) continue;
    item.number = *item.entry.number;
    if (used.insert(item.number).second) continue;
    return EntryError(
        item, absl::StrCat("key \"num\": device ", item.number, " of bus ", bus.id,
                           attached.contains(item.number)
                               ? " is attached already; detach it first, or take another number"
                               : " is given twice"));
  }
  uint32_t next = 0;
  for (Item& item : items) {
    if (item.entry.number.has_value()) continue;
    while (next <= UINT16_MAX && used.contains(static_cast<uint16_t>(next))) ++next;
    if (next > UINT16_MAX) return EntryError(item, "no device number is free");
    item.number = static_cast<uint16_t>(next++);
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const Arguments& arguments, Store& store) {
  std::optional<std::string> domain = arguments.domain;
  std::optional<std::string> backend = arguments.backend;
  absl::StatusOr<std::vector<Item>> items = ReadEntries(arguments, domain, backend);
  if (!items.ok()) return items.status();
  if (!domain.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        *arguments.config, ": there is no name in it; give the domain on the command line"));
  }
  Plan plan;
  absl::StatusOr<uint16_t> frontend = FindDomain(store, *domain);
  if (!frontend.ok()) return frontend.status();
  plan.frontend = *frontend;
  plan.domain_label = DomainLabel(store, plan.frontend);
  absl::StatusOr<uint16_t> at =
      backend.has_value() ? FindDomain(store, *backend) : xenstore::OwnDomain(store);
  if (!at.ok()) return at.status();
  plan.backend = *at;
  for (Item& item : *items) plan.buses[item.entry.bus].push_back(std::move(item));
  for (auto& [id, of_bus] : plan.buses) {
    if (absl::Status status = AssignNumbers(store, {plan.frontend, plan.backend, id}, of_bus);
        !status.ok()) {
      return status;
    }
  }
  return plan;
}

// What vmsgd answered, or that it did not.
absl::Status AwaitAnswer(Store& store, const BusAddress& bus, const Item& item,
                         absl::Duration timeout) {
  DeviceFacts device;
  absl::StatusOr<bool> answered =
      WaitFor(store, absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/", item.number),
              timeout, [&]() -> absl::StatusOr<bool> {
                absl::StatusOr<DeviceFacts> now = ReadDevice(store, bus, item.number);
                if (!now.ok()) return now.status();
                device = *std::move(now);
                return device.status == xenstore::kStatusConnected ||
                       device.status == xenstore::kStatusError;
              });
  if (!answered.ok()) return answered.status();
  if (!*answered) {
    return absl::DeadlineExceededError(absl::StrCat("no answer from vmsgd in domain ", bus.backend,
                                                    " within ", absl::FormatDuration(timeout),
                                                    ": is it running?"));
  }
  if (device.status == xenstore::kStatusConnected) return absl::OkStatus();
  return absl::InvalidArgumentError(device.error.empty() ? "refused by vmsgd without a reason"
                                                         : device.error);
}

// A bus that this call made and that holds nothing is not left behind.
void RemoveEmptyBus(Store& store, const BusAddress& bus, bool vmsgd_answers,
                    absl::Duration timeout) {
  absl::StatusOr<std::vector<uint16_t>> left = xenstore::ListDevices(store, bus);
  if (!left.ok() || !left->empty()) return;
  if (vmsgd_answers && xenstore::RequestBusRemoval(store, bus).ok()) {
    WaitFor(store, bus.BackendPath(), timeout, [&]() -> absl::StatusOr<bool> {
      absl::StatusOr<std::string> state =
          store.Read(absl::StrCat(bus.BackendPath(), "/", xenstore::kState));
      return absl::IsNotFound(state.status());
    }).IgnoreError();
  }
  xenstore::RemoveBus(store, bus).IgnoreError();
}

// Exit status of one bus's entries.
int AttachToBus(Store& store, const Plan& plan, const BusAddress& bus,
                const std::vector<Item>& items, absl::Duration timeout, Console console) {
  std::vector<xenstore::DeviceNodesToWrite> devices;
  devices.reserve(items.size());
  for (const Item& item : items) {
    devices.push_back({item.number, item.entry.type, item.entry.keys});
  }
  absl::StatusOr<xenstore::DeviceCreation> creation = xenstore::AddDevices(store, bus, devices);
  if (!creation.ok()) {
    console.err << "vmsgctl: " << creation.status().message() << "\n";
    return kExitRefused;
  }
  int exit = kExitDone;
  bool vmsgd_answers = false;
  for (const Item& item : items) {
    // When there was no answer to the first, the others have had their time as well.
    const bool silent = exit != kExitDone && !vmsgd_answers;
    absl::Status answer = AwaitAnswer(store, bus, item, silent ? absl::ZeroDuration() : timeout);
    vmsgd_answers = vmsgd_answers || !absl::IsDeadlineExceeded(answer);
    if (answer.ok()) {
      console.out << plan.domain_label << ": bus " << bus.id << " device " << item.number << " ("
                  << item.entry.type << ") attached\n";
      continue;
    }
    console.err << "vmsgctl: " << item.label << ": " << answer.message() << "\n";
    xenstore::RemoveDevice(store, bus, item.number).IgnoreError();
    exit = kExitRefused;
  }
  if (exit != kExitDone && creation->created_bus) {
    RemoveEmptyBus(store, bus, vmsgd_answers, timeout);
  }
  return exit;
}

}  // namespace

int Attach(const Arguments& arguments, Store& store, Console console) {
  absl::StatusOr<Plan> plan = MakePlan(arguments, store);
  if (!plan.ok()) {
    console.err << "vmsgctl: " << plan.status().message() << "\n";
    return kExitRefused;
  }
  int exit = kExitDone;
  for (const auto& [id, items] : plan->buses) {
    exit = std::max(exit, AttachToBus(store, *plan, {plan->frontend, plan->backend, id}, items,
                                      arguments.timeout, console));
  }
  return exit;
}

}  // namespace vmsg::ctl
