// SPDX-License-Identifier: Apache-2.0
// The device entries of one bus.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "xenstore/discovery.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

std::string OwnDevicesPath(const BusAddress& bus) {
  return absl::StrCat("backend/", kKind, "/", bus.frontend, "/", bus.id, "/", kDevice);
}

std::string OwnDevicePath(const BusAddress& bus, absl::string_view name) {
  return absl::StrCat(OwnDevicesPath(bus), "/", name);
}

// Whether there was one. A store that is lost is found out by the next look.
bool TakeRefusalBack(Store& store, const std::string& entry) {
  const std::string status = absl::StrCat(entry, "/", kHotplugStatus);
  const auto refused = [&status](NodeAccess& nodes) {
    absl::StatusOr<std::string> value = nodes.Read(status);
    return value.ok() && *value == kStatusError;
  };
  if (!refused(store)) return false;
  bool taken = false;
  absl::Status done = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    taken = refused(nodes);
    if (!taken) return absl::OkStatus();
    if (absl::Status removed = nodes.Remove(status); !removed.ok()) return removed;
    absl::Status reason = nodes.Remove(absl::StrCat(entry, "/", kHotplugError));
    return absl::IsNotFound(reason) ? absl::OkStatus() : reason;
  });
  return done.ok() && taken;
}

}  // namespace

size_t BusDiscovery::TryRefusedAgain() {
  size_t count = 0;
  for (auto& [address, bus] : buses_) {
    absl::btree_set<uint16_t> numbers;
    for (const auto& [number, device] : bus.devices) {
      if (device.progress == Progress::kServed) numbers.insert(number);
    }
    for (const std::string& name : bus.refused) {
      absl::StatusOr<uint64_t> number = ParseDecimal(name, "the device number", 0, UINT16_MAX);
      if (number.ok()) numbers.insert(static_cast<uint16_t>(*number));
    }
    for (const uint16_t number : numbers) {
      if (!TakeRefusalBack(*store_, OwnDevicePath(address, absl::StrCat(number)))) continue;
      Dirty& dirty = dirty_buses_[address];
      dirty.entries.insert(number);
      dirty.answered.insert(number);
      ++count;
    }
  }
  return count;
}

absl::Status BusDiscovery::ScanDevices(const BusAddress& address, Bus& bus) {
  absl::StatusOr<std::vector<std::string>> names = store_->List(OwnDevicesPath(address));
  if (absl::IsUnavailable(names.status())) return names.status();
  if (!names.ok()) names = std::vector<std::string>();
  absl::btree_set<uint16_t> look;
  for (const auto& [number, device] : bus.devices) look.insert(number);
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> number = ParseDecimal(name, "the device number", 0, UINT16_MAX);
    if (number.ok()) {
      look.insert(static_cast<uint16_t>(*number));
    } else {
      RefuseDevice(address, bus, name, number.status());
    }
  }
  absl::erase_if(bus.refused, [&](const std::string& name) {
    return std::find(names->begin(), names->end(), name) == names->end();
  });
  for (const uint16_t number : look) {
    if (absl::Status status = ScanDevice(address, bus, number); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status BusDiscovery::ScanDevice(const BusAddress& address, Bus& bus, uint16_t number) {
  const std::string path = OwnDevicePath(address, absl::StrCat(number));
  const auto read = [&](absl::string_view node) { return ReadNode(absl::StrCat(path, "/", node)); };
  // First: with what was read of an entry that takes its place meanwhile, this one is known by the
  // old one's id, and the next look finds out.
  absl::StatusOr<std::optional<std::string>> id = read(kEntryId);
  if (!id.ok()) return id.status();
  absl::StatusOr<std::optional<std::string>> type = read(kType);
  if (!type.ok()) return type.status();
  auto known = bus.devices.find(number);
  if (!type->has_value()) {
    bus.refused.erase(absl::StrCat(number));
    if (known == bus.devices.end()) return absl::OkStatus();
    bus.devices.erase(known);
    listener_->OnDeviceVanished(address, number);
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<std::string>> online = read(kDeviceOnline);
  if (!online.ok()) return online.status();
  absl::StatusOr<std::optional<std::string>> status = read(kHotplugStatus);
  if (!status.ok()) return status.status();

  const bool wanted = online->value_or("1") != "0";
  const bool answered = status->has_value();
  if (bus.refused.contains(absl::StrCat(number))) {
    // Answered: still the entry that was refused. Not answered: perhaps a new one in its place.
    if (answered) return absl::OkStatus();
    bus.refused.erase(absl::StrCat(number));
  }
  if (known != bus.devices.end()) {
    // Removed and made anew before we looked: a new entry is wanted and has no answer, although the
    // one we know had been answered or was to go.
    const bool anew = known->second.id != id->value_or("") ||
                      (known->second.answered && !answered) ||
                      (wanted && known->second.progress != Progress::kServed);
    if (!anew) {
      known->second.answered = answered;
      return CheckRemoval(address, number, known->second, wanted);
    }
    bus.devices.erase(known);
    listener_->OnDeviceVanished(address, number);
  }
  if (absl::Status added = AddDevice(address, bus,
                                     {.number = number,
                                      .id = id->value_or(""),
                                      .type = **type,
                                      .keys = {},
                                      .found = {},
                                      .status = status->value_or("")});
      !added.ok()) {
    return added;
  }
  known = bus.devices.find(number);
  if (known == bus.devices.end()) return absl::OkStatus();
  return CheckRemoval(address, number, known->second, wanted);
}

absl::Status BusDiscovery::AddDevice(const BusAddress& address, Bus& bus, DeviceNodes device) {
  const std::string name = absl::StrCat(device.number);
  if (bus.devices.size() >= kMaxDevicesPerBus) {
    RefuseDevice(address, bus, name,
                 absl::ResourceExhaustedError(
                     absl::StrCat("the bus has ", bus.devices.size(),
                                  " devices already, the limit of this backend; use another bus")));
    return absl::OkStatus();
  }
  const std::string path = OwnDevicePath(address, name);
  const std::string found = absl::StrCat(path, "/", kFoundKeys);
  for (const auto& [directory, keys] :
       {std::pair(&path, &device.keys), std::pair(&found, &device.found)}) {
    absl::StatusOr<std::vector<std::string>> nodes = store_->List(*directory);
    if (absl::IsUnavailable(nodes.status())) return nodes.status();
    if (!nodes.ok() && directory == &path) return absl::OkStatus();
    if (!nodes.ok()) continue;
    for (const std::string& node : *nodes) {
      if (directory == &path && IsControlNode(node)) continue;
      if (keys->size() >= kMaxKeysPerDevice) {
        RefuseDevice(address, bus, name,
                     absl::InvalidArgumentError(
                         absl::StrCat("the entry has more than ", kMaxKeysPerDevice, " keys")));
        return absl::OkStatus();
      }
      absl::StatusOr<std::optional<std::string>> value =
          ReadNode(absl::StrCat(*directory, "/", node));
      if (!value.ok()) return value.status();
      if (value->has_value()) keys->emplace(node, *std::move(*value));
    }
  }
  bus.devices.emplace(device.number,
                      DeviceRecord{.id = device.id, .answered = !device.status.empty()});
  listener_->OnDeviceAdded(address, device);
  return absl::OkStatus();
}

absl::Status BusDiscovery::CheckRemoval(const BusAddress& address, uint16_t number,
                                        DeviceRecord& device, bool wanted) {
  if (wanted || device.progress == Progress::kForced) return absl::OkStatus();
  absl::StatusOr<std::optional<std::string>> text =
      ReadNode(absl::StrCat(OwnDevicePath(address, absl::StrCat(number)), "/", kDeviceForce));
  if (!text.ok()) return text.status();
  const bool force = text->value_or("0") == "1";
  const Progress progress = force ? Progress::kForced : Progress::kRemoving;
  if (progress == device.progress) return absl::OkStatus();
  device.progress = progress;
  listener_->OnDeviceRemovalRequested(address, number, force);
  return absl::OkStatus();
}

void BusDiscovery::RefuseDevice(const BusAddress& address, Bus& bus, const std::string& name,
                                const absl::Status& reason) {
  if (bus.refused.size() >= kMaxRefusedNames || !bus.refused.insert(name).second) return;
  listener_->OnDeviceRefused(address, name, reason);
}

}  // namespace vmsg::xenstore
