// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/facts/inventory.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "xenstore/bus_offer.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::ctl {
namespace {

using xenstore::BusAddress;
using xenstore::NodeAccess;

constexpr char kDomains[] = "/local/domain";

// The children of `path` whose names are numbers up to `max`. A missing path has none.
absl::StatusOr<std::vector<uint64_t>> NumberedChildren(NodeAccess& nodes, const std::string& path,
                                                       uint64_t max) {
  std::vector<uint64_t> numbers;
  absl::StatusOr<std::vector<std::string>> names = nodes.List(path);
  if (absl::IsNotFound(names.status())) return numbers;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> number = xenstore::ParseDecimal(name, "a name", 0, max);
    if (number.ok()) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// Empty text: the node is not there.
absl::StatusOr<std::string> ReadOrEmpty(NodeAccess& nodes, const std::string& path) {
  absl::StatusOr<std::string> value = nodes.Read(path);
  if (absl::IsNotFound(value.status())) return std::string();
  return value;
}

absl::StatusOr<std::optional<xenstore::XenbusState>> ReadState(NodeAccess& nodes,
                                                               const std::string& directory) {
  absl::StatusOr<xenstore::XenbusState> state = xenstore::ReadState(nodes, directory);
  if (state.ok()) return std::optional(*state);
  if (absl::IsNotFound(state.status())) return std::optional<xenstore::XenbusState>();
  if (absl::IsInvalidArgument(state.status()))
    return std::optional(xenstore::XenbusState::kUnknown);
  return state.status();
}

}  // namespace

absl::StatusOr<std::vector<BusAddress>> FindBuses(NodeAccess& nodes) {
  std::vector<BusAddress> buses;
  absl::StatusOr<std::vector<uint64_t>> backends =
      NumberedChildren(nodes, kDomains, xenstore::kLastDomain);
  if (!backends.ok()) return backends.status();
  for (const uint64_t backend : *backends) {
    const std::string root = absl::StrCat(kDomains, "/", backend, "/backend/", xenstore::kKind);
    absl::StatusOr<std::vector<uint64_t>> frontends =
        NumberedChildren(nodes, root, xenstore::kLastDomain);
    if (!frontends.ok()) return frontends.status();
    for (const uint64_t frontend : *frontends) {
      absl::StatusOr<std::vector<uint64_t>> ids =
          NumberedChildren(nodes, absl::StrCat(root, "/", frontend), UINT32_MAX);
      if (!ids.ok()) return ids.status();
      for (const uint64_t id : *ids) {
        buses.push_back({static_cast<uint16_t>(frontend), static_cast<uint16_t>(backend),
                         static_cast<uint32_t>(id)});
      }
    }
  }
  std::sort(buses.begin(), buses.end());
  return buses;
}

absl::StatusOr<std::vector<ConfigFacts>> FindConfigs(NodeAccess& nodes) {
  std::vector<ConfigFacts> configs;
  absl::StatusOr<std::vector<uint16_t>> domains = xenstore::ListConfigMarks(nodes);
  if (!domains.ok()) return domains.status();
  for (const uint16_t domain : *domains) {
    absl::StatusOr<xenstore::ConfigMark> mark = xenstore::ReadConfigMark(nodes, domain);
    if (absl::IsNotFound(mark.status())) continue;
    if (!mark.ok()) return mark.status();
    absl::StatusOr<std::string> name =
        ReadOrEmpty(nodes, absl::StrCat(kDomains, "/", domain, "/name"));
    if (!name.ok()) return name.status();
    configs.push_back({domain, *std::move(name), *std::move(mark)});
  }
  return configs;
}

absl::StatusOr<BusFacts> ReadBus(NodeAccess& nodes, const BusAddress& bus) {
  BusFacts facts;
  facts.address = bus;
  const std::string directory = bus.BackendPath();
  const auto read = [&](const std::string& path, std::string& value) {
    absl::StatusOr<std::string> text = ReadOrEmpty(nodes, path);
    if (!text.ok()) return text.status();
    value = *std::move(text);
    return absl::OkStatus();
  };
  std::string online;
  if (absl::Status status =
          read(absl::StrCat(kDomains, "/", bus.frontend, "/name"), facts.domain_name);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = read(absl::StrCat(directory, "/", xenstore::kOnline), online);
      !status.ok()) {
    return status;
  }
  facts.online = online != "0";
  if (absl::Status status =
          read(absl::StrCat(directory, "/", xenstore::kHotplugErrorNode), facts.error);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<std::optional<xenstore::XenbusState>> backend = ReadState(nodes, directory);
  if (!backend.ok()) return backend.status();
  facts.backend = *backend;
  absl::StatusOr<std::optional<xenstore::XenbusState>> frontend =
      ReadState(nodes, bus.FrontendPath());
  if (!frontend.ok()) return frontend.status();
  facts.frontend = *frontend;

  absl::StatusOr<std::vector<uint16_t>> numbers = xenstore::ListDevices(nodes, bus);
  if (!numbers.ok()) return numbers.status();
  for (const uint16_t number : *numbers) {
    absl::StatusOr<DeviceFacts> device = ReadDevice(nodes, bus, number);
    if (absl::IsNotFound(device.status())) continue;
    if (!device.ok()) return device.status();
    facts.devices.push_back(*std::move(device));
  }
  return facts;
}

absl::StatusOr<DeviceFacts> ReadDevice(NodeAccess& nodes, const BusAddress& bus, uint16_t number) {
  DeviceFacts device;
  device.number = number;
  const std::string directory =
      absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/", number);
  absl::StatusOr<std::vector<std::string>> names = nodes.List(directory);
  if (!names.ok()) return names.status();
  bool online = true;
  for (const std::string& name : *names) {
    absl::StatusOr<std::string> value = nodes.Read(absl::StrCat(directory, "/", name));
    if (absl::IsNotFound(value.status())) continue;
    if (!value.ok()) return value.status();
    if (name == xenstore::kType) {
      device.type = *value;
    } else if (name == xenstore::kHotplugStatus) {
      device.status = *value;
    } else if (name == xenstore::kHotplugError) {
      device.error = *value;
    } else if (name == xenstore::kDeviceOnline) {
      online = *value != "0";
    } else if (!xenstore::IsControlNode(name)) {
      device.parameters.emplace(name, *std::move(value));
    }
  }
  const auto note = [&](const char* node, std::string& text) {
    absl::StatusOr<std::string> value = ReadOrEmpty(nodes, absl::StrCat(directory, "/", node));
    if (value.ok()) text = *std::move(value);
    return value.status();
  };
  for (const auto& [node, text] : {std::pair(xenstore::kEntryId, &device.id),
                                   std::pair(xenstore::kFromConfig, &device.from_config),
                                   std::pair(xenstore::kIoErrors, &device.io_errors),
                                   std::pair(xenstore::kIoError, &device.io_error)}) {
    if (absl::Status read = note(node, *text); !read.ok()) return read;
  }
  if (device.type.empty()) {
    return absl::NotFoundError(absl::StrCat(directory, " holds no device entry"));
  }
  if (device.status == xenstore::kStatusAsked) {
    device.waits_for = WaitsFor::kDriver;
  } else if (device.status == xenstore::kStatusDraining) {
    device.waits_for = WaitsFor::kDevice;
  } else if (!online) {
    device.waits_for = WaitsFor::kVmsgd;
  }
  if (device.waits_for != WaitsFor::kNobody) {
    device.status = "removing";
  } else if (device.status.empty()) {
    device.status = "waiting";
  }
  return device;
}

}  // namespace vmsg::ctl
