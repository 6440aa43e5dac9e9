// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/attachment.h"

#include <utility>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "text/foreign_text.h"
#include "xenstore/toolstack/config_mark.h"

namespace vmsg::xenstore {
namespace {

absl::Status AssignNumbers(NodeAccess& nodes, const BusAddress& bus,
                           std::vector<AttachItem>& items) {
  absl::StatusOr<std::vector<uint16_t>> existing = ListDevices(nodes, bus);
  if (!existing.ok()) return existing.status();
  const absl::btree_set<uint16_t> attached(existing->begin(), existing->end());
  absl::btree_set<uint16_t> used = attached;
  for (AttachItem& item : items) {
    if (!item.entry.number.has_value()) continue;
    item.number = *item.entry.number;
    if (used.insert(item.number).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(item.label, ": key \"num\": device ", item.number, " of bus ", bus.id,
                     attached.contains(item.number)
                         ? " is attached already; detach it first, or take another number"
                         : " is given twice"));
  }
  uint32_t next = 0;
  for (AttachItem& item : items) {
    if (item.entry.number.has_value()) continue;
    while (next <= UINT16_MAX && used.contains(static_cast<uint16_t>(next))) ++next;
    if (next > UINT16_MAX) {
      return absl::InvalidArgumentError(absl::StrCat(item.label, ": no device number is free"));
    }
    item.number = static_cast<uint16_t>(next++);
  }
  return absl::OkStatus();
}

// A config is attached once; what it attached may be gone again.
absl::Status CheckNotAttached(NodeAccess& nodes, const AttachPlan& plan) {
  absl::StatusOr<ConfigMark> mark = ReadConfigMark(nodes, plan.frontend);
  if (absl::IsNotFound(mark.status())) return absl::OkStatus();
  if (!mark.ok()) return mark.status();
  if (!mark->error.empty()) return absl::OkStatus();
  for (const auto& [id, items] : plan.buses) {
    absl::StatusOr<std::vector<uint16_t>> devices = ListDevices(nodes, plan.bus(id));
    if (!devices.ok()) return devices.status();
    if (devices->empty()) continue;
    return absl::AlreadyExistsError(absl::StrCat("domain ", plan.frontend, " has the devices of ",
                                                 mark->config,
                                                 " already; detach them first (vmsgctl detach ",
                                                 plan.frontend, " all), or attach single entries"));
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
    if (!config.empty()) {
      if (absl::Status once = CheckNotAttached(nodes, plan); !once.ok()) return once;
    }
    for (auto& [id, items] : plan.buses) {
      if (absl::Status numbered = AssignNumbers(nodes, plan.bus(id), items); !numbered.ok()) {
        return numbered;
      }
      std::vector<DeviceNodesToWrite> devices;
      devices.reserve(items.size());
      for (const AttachItem& item : items) {
        devices.push_back({item.number, item.entry.type, item.entry.keys});
      }
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
