// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/attachment.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "text/foreign_text.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/config_mark.h"

namespace vmsg::xenstore {
namespace {

struct Attached {
  uint32_t bus = 0;
  uint16_t number = 0;
  std::string id;
  std::string config;  // the file that it is from; empty: none
  std::string type;
  absl::btree_map<std::string, std::string> keys;
  absl::btree_map<std::string, std::string> remembered;  // nodes of a backend's for the next one
  bool refused = false;
  bool leaving = false;
  bool matched = false;  // by an item

  bool Is(const AttachItem& item) const {
    return !leaving && !matched && item.entry.bus == bus && item.entry.type == type &&
           item.entry.keys == keys && item.entry.number.value_or(number) == number;
  }
};

absl::StatusOr<std::vector<uint32_t>> ListBuses(NodeAccess& nodes, uint16_t frontend,
                                                uint16_t backend) {
  std::vector<uint32_t> buses;
  absl::StatusOr<std::vector<std::string>> names =
      nodes.List(absl::StrCat("/local/domain/", backend, "/backend/", kKind, "/", frontend));
  if (absl::IsNotFound(names.status())) return buses;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> id = ParseDecimal(name, "the bus id", 0, UINT32_MAX);
    if (id.ok()) buses.push_back(static_cast<uint32_t>(*id));
  }
  return buses;
}

std::string DevicePath(const BusAddress& bus, uint16_t number) {
  return absl::StrCat(bus.BackendPath(), "/", kDevice, "/", number);
}

// Its type is empty where there is no entry.
absl::StatusOr<Attached> Read(NodeAccess& nodes, const BusAddress& bus, uint16_t number) {
  Attached device{.bus = bus.id, .number = number};
  const std::string path = DevicePath(bus, number);
  absl::StatusOr<std::vector<std::string>> names = nodes.List(path);
  if (absl::IsNotFound(names.status())) return device;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<std::string> value = nodes.Read(absl::StrCat(path, "/", name));
    if (!value.ok()) return value.status();
    if (name == kType) {
      device.type = *std::move(value);
    } else if (name == kDeviceOnline) {
      device.leaving = *value == "0";
    } else if (name == kHotplugStatus) {
      device.refused = *value == kStatusError;
    } else if (!IsControlNode(name)) {
      device.keys.emplace(name, *std::move(value));
    }
  }
  absl::StatusOr<std::string> id = ReadEntryId(nodes, path);
  if (!id.ok()) return id.status();
  device.id = *std::move(id);
  absl::StatusOr<std::string> config = nodes.Read(absl::StrCat(path, "/", kFromConfig));
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  device.config = config.value_or("");
  std::vector<std::string> remembered = {kOpenedAs};
  absl::StatusOr<std::vector<std::string>> found = nodes.List(absl::StrCat(path, "/", kFoundKeys));
  if (!found.ok() && !absl::IsNotFound(found.status())) return found.status();
  if (found.ok()) {
    for (const std::string& key : *found) {
      remembered.push_back(absl::StrCat(kFoundKeys, "/", key));
    }
  }
  for (const std::string& note : remembered) {
    absl::StatusOr<std::string> value = nodes.Read(absl::StrCat(path, "/", note));
    if (!value.ok() && !absl::IsNotFound(value.status())) return value.status();
    if (value.ok()) device.remembered.emplace(note, *std::move(value));
  }
  return device;
}

std::string EntryText(const Attached& device) {
  return absl::StrCat("\"type=", device.type, device.keys.empty() ? "" : ",",
                      absl::StrJoin(device.keys, ",", absl::PairFormatter("=")), "\"");
}

std::string DetachCommand(uint16_t frontend, uint32_t bus, uint16_t number) {
  return absl::StrCat("vmsgctl detach ", frontend, " ", number,
                      bus == 0 ? "" : absl::StrCat(" --bus ", bus));
}

absl::Status Changed(const AttachPlan& plan, const Attached& device) {
  return absl::FailedPreconditionError(absl::StrCat(
      device.config, ": domain ", plan.frontend, " has bus ", device.bus, " device ", device.number,
      " from it as ", EntryText(device), ", and it says otherwise now; detach it first (",
      DetachCommand(plan.frontend, device.bus, device.number), ")"));
}

absl::Status Taken(NodeAccess& nodes, const BusAddress& bus, const AttachItem& item) {
  absl::StatusOr<Attached> device = Read(nodes, bus, item.number);
  if (!device.ok()) return device.status();
  const std::string what =
      absl::StrCat(item.label, ": key \"num\": device ", item.number, " of bus ", bus.id);
  if (!device->refused || device->leaving) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is attached already; detach it first, or take another number"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      what, " is there as ", EntryText(*device),
      " and was refused; attach that again as it is to have it tried again, or detach it first (",
      DetachCommand(bus.frontend, bus.id, item.number), ")"));
}

absl::Status AssignNumbers(NodeAccess& nodes, const BusAddress& bus,
                           std::vector<AttachItem>& items) {
  absl::StatusOr<std::vector<uint16_t>> existing = ListDevices(nodes, bus);
  if (!existing.ok()) return existing.status();
  const absl::btree_set<uint16_t> attached(existing->begin(), existing->end());
  absl::btree_set<uint16_t> used = attached;
  for (const AttachItem& item : items) {
    if (item.retried) used.insert(item.number);
  }
  for (AttachItem& item : items) {
    if (item.Known() || !item.entry.number.has_value()) continue;
    item.number = *item.entry.number;
    if (used.insert(item.number).second) continue;
    if (attached.contains(item.number)) return Taken(nodes, bus, item);
    return absl::InvalidArgumentError(absl::StrCat(
        item.label, ": key \"num\": device ", item.number, " of bus ", bus.id, " is given twice"));
  }
  uint32_t next = 0;
  for (AttachItem& item : items) {
    if (item.Known() || item.entry.number.has_value()) continue;
    // A node that a transaction meets for the first time is as it is now, and may be newer than the
    // list; the commit finds out about that.
    while (next <= UINT16_MAX &&
           (used.contains(static_cast<uint16_t>(next)) ||
            nodes.Read(absl::StrCat(bus.BackendPath(), "/", kDevice, "/", next)).ok())) {
      ++next;
    }
    if (next > UINT16_MAX) {
      return absl::InvalidArgumentError(absl::StrCat(item.label, ": no device number is free"));
    }
    item.number = static_cast<uint16_t>(next++);
  }
  return absl::OkStatus();
}

// Those that say which one they mean come first.
void MatchItems(AttachPlan& plan, absl::FunctionRef<void(AttachItem&)> match) {
  for (const bool numbered : {true, false}) {
    for (auto& [id, items] : plan.buses) {
      for (AttachItem& item : items) {
        if (item.entry.number.has_value() == numbered && !item.Known()) match(item);
      }
    }
  }
}

Attached* Find(std::vector<Attached>& devices, AttachItem& item) {
  const auto found = std::find_if(devices.begin(), devices.end(),
                                  [&](const Attached& device) { return device.Is(item); });
  if (found == devices.end()) return nullptr;
  found->matched = true;
  item.number = found->number;
  return &*found;
}

// Before numbers are chosen: items that are there as they read get their number and are marked so,
// those of a config that are attached and those that were refused, whose entries make room. So does
// what was refused of a config's others. FailedPrecondition: a device is attached that the config
// does not have any more; the text says what to do.
absl::Status MatchWhatIsThere(NodeAccess& nodes, AttachPlan& plan, const std::string& config) {
  for (auto& [id, items] : plan.buses) {
    for (AttachItem& item : items) item.attached = item.retried = false;
  }
  // Buses that the config does not have any more are looked at, too.
  absl::StatusOr<std::vector<uint32_t>> buses = ListBuses(nodes, plan.frontend, plan.backend);
  if (!buses.ok()) return buses.status();
  std::vector<Attached> attached;
  std::vector<Attached> refused;
  for (const uint32_t id : *buses) {
    if (config.empty() && !plan.buses.contains(id)) continue;
    absl::StatusOr<std::vector<uint16_t>> numbers = ListDevices(nodes, plan.bus(id));
    if (!numbers.ok()) return numbers.status();
    for (const uint16_t number : *numbers) {
      absl::StatusOr<Attached> device = Read(nodes, plan.bus(id), number);
      if (!device.ok()) return device.status();
      if (device->type.empty()) continue;
      if (device->refused && !device->leaving) {
        refused.push_back(*std::move(device));
      } else if (!config.empty() && !device->config.empty()) {
        attached.push_back(*std::move(device));
      }
    }
  }
  MatchItems(plan, [&](AttachItem& item) {
    const Attached* device = Find(attached, item);
    item.attached = device != nullptr;
    item.id = item.attached ? device->id : NewEntryId();
  });
  MatchItems(plan, [&](AttachItem& item) {
    const Attached* device = Find(refused, item);
    item.retried = device != nullptr;
    item.from_config = config.empty() && item.retried ? device->config : config;
    item.remembered.clear();
    if (item.retried) item.remembered = device->remembered;
  });
  for (const Attached& device : refused) {
    if (!device.matched && (config.empty() || device.config.empty())) continue;
    absl::Status removed = nodes.Remove(DevicePath(plan.bus(device.bus), device.number));
    if (!removed.ok()) return removed;
  }
  for (const Attached& device : attached) {
    if (!device.matched && !device.leaving) return Changed(plan, device);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<AttachItem> ItemsOfConfig(const std::string& path, const XlConfig& config) {
  std::vector<AttachItem> items;
  for (size_t i = 0; i < config.entries.size(); ++i) {
    items.push_back({absl::StrCat(path, ": virtio_msg[", i, "] ", Quoted(config.texts[i])),
                     config.entries[i], 0});
  }
  return items;
}

AttachPlan PlanAttachment(uint16_t frontend, uint16_t backend, std::vector<AttachItem> items) {
  AttachPlan plan{.frontend = frontend, .backend = backend, .buses = {}};
  for (AttachItem& item : items) plan.buses[item.entry.bus].push_back(std::move(item));
  return plan;
}

absl::StatusOr<absl::btree_map<uint32_t, DeviceCreation>> WriteAttachment(
    Store& store, AttachPlan& plan, const std::string& config) {
  absl::btree_map<uint32_t, DeviceCreation> creations;
  absl::Status status = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    creations.clear();  // the body may run again
    if (absl::Status matched = MatchWhatIsThere(nodes, plan, config); !matched.ok()) {
      return matched;
    }
    for (auto& [id, items] : plan.buses) {
      if (absl::Status numbered = AssignNumbers(nodes, plan.bus(id), items); !numbered.ok()) {
        return numbered;
      }
      std::vector<DeviceNodesToWrite> devices;
      devices.reserve(items.size());
      for (const AttachItem& item : items) {
        if (item.attached) continue;
        devices.push_back(
            {item.number, item.entry.type, item.entry.keys, item.from_config, item.id});
        devices.back().keys.insert(item.remembered.begin(), item.remembered.end());
      }
      if (devices.empty()) continue;
      absl::StatusOr<DeviceCreation> creation = AddDevicesWithin(nodes, plan.bus(id), devices);
      if (!creation.ok()) return creation.status();
      creations.emplace(id, *std::move(creation));
    }
    if (config.empty()) return absl::OkStatus();
    return WriteConfigMark(nodes, plan.frontend, {.config = config, .error = ""});
  });
  if (!status.ok()) return status;
  return creations;
}

}  // namespace vmsg::xenstore
