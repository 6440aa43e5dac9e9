// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/bus_creation.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/domain_names.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::xenstore {
namespace {

std::string DevicesPath(const BusAddress& bus) {
  return absl::StrCat(bus.BackendPath(), "/", kDevice);
}

std::string DevicePath(const BusAddress& bus, uint16_t number) {
  return absl::StrCat(DevicesPath(bus), "/", number);
}

std::string Parent(absl::string_view path) { return std::string(path.substr(0, path.rfind('/'))); }

absl::StatusOr<bool> Exists(NodeAccess& nodes, const std::string& path) {
  absl::StatusOr<std::string> value = nodes.Read(path);
  if (absl::IsNotFound(value.status())) return false;
  if (!value.ok()) return value.status();
  return true;
}

absl::Status RemoveIfThere(NodeAccess& nodes, const std::string& path) {
  absl::Status status = nodes.Remove(path);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

// Removes `path`, then `levels` parents as long as they are empty.
absl::Status RemoveWithParents(NodeAccess& nodes, std::string path, int levels) {
  if (absl::Status status = RemoveIfThere(nodes, path); !status.ok()) return status;
  for (; levels > 0; --levels) {
    path = Parent(path);
    absl::StatusOr<std::vector<std::string>> children = nodes.List(path);
    if (!children.ok() || !children->empty()) return absl::OkStatus();
    absl::Status status = RemoveIfThere(nodes, path);
    if (absl::IsPermissionDenied(status)) return absl::OkStatus();  // another one's to keep
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WriteAll(NodeAccess& nodes, const std::string& directory,
                      const std::vector<std::pair<std::string, std::string>>& values) {
  for (const auto& [node, value] : values) {
    if (absl::Status status = nodes.Write(absl::StrCat(directory, "/", node), value);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// Nodes made below it afterwards inherit the permissions.
absl::Status MakeOwned(NodeAccess& nodes, const std::string& path,
                       const std::vector<Permission>& permissions) {
  if (absl::Status status = nodes.MakeDirectory(path); !status.ok()) return status;
  return nodes.SetPermissions(path, permissions);
}

// The bus that the frontend's directory leads to, if it is at another backend and is there. The
// guest owns that directory, and can hide no bus but its own.
absl::StatusOr<std::optional<BusAddress>> BusElsewhere(NodeAccess& nodes, const BusAddress& bus) {
  absl::StatusOr<std::string> text = nodes.Read(absl::StrCat(bus.FrontendPath(), "/", kBackendId));
  if (absl::IsNotFound(text.status())) return std::optional<BusAddress>();
  if (!text.ok()) return text.status();
  const absl::StatusOr<uint64_t> backend = ParseDecimal(*text, kBackendId, 0, kLastDomain);
  if (!backend.ok() || *backend == bus.backend) return std::optional<BusAddress>();
  const BusAddress other{bus.frontend, static_cast<uint16_t>(*backend), bus.id};
  absl::StatusOr<bool> exists = Exists(nodes, absl::StrCat(other.BackendPath(), "/", kOnline));
  if (!exists.ok()) return exists.status();
  return *exists ? std::optional(other) : std::nullopt;
}

absl::Status CreateBus(NodeAccess& nodes, const BusAddress& bus) {
  const std::string domain = absl::StrCat("/local/domain/", bus.frontend);
  absl::StatusOr<bool> frontend_exists = Exists(nodes, domain);
  if (!frontend_exists.ok()) return frontend_exists.status();
  if (!*frontend_exists) {
    return absl::NotFoundError(absl::StrCat("there is no domain ", bus.frontend));
  }
  absl::StatusOr<std::optional<BusAddress>> other = BusElsewhere(nodes, bus);
  if (!other.ok()) return other.status();
  if (other->has_value()) {
    const std::string guest = DomainLabel(nodes, bus.frontend);
    return absl::FailedPreconditionError(absl::StrCat(
        "bus ", bus.id, " of ", guest, " is served by domain ", (*other)->backend,
        "; attach to that one, or detach the bus first (vmsgctl detach ",
        guest == absl::StrCat("domain ", bus.frontend) ? absl::StrCat(bus.frontend) : guest, " all",
        bus.id == 0 ? "" : absl::StrCat(" --bus ", bus.id), ")"));
  }
  const std::string front = bus.FrontendPath();
  const std::string back = bus.BackendPath();
  const std::string initial = StateText(XenbusState::kInitialising);
  // What an earlier bus of this id left behind on the guest's side is the guest's and worth
  // nothing.
  if (absl::Status status = RemoveIfThere(nodes, front); !status.ok()) return status;
  if (absl::Status status =
          MakeOwned(nodes, front, {{bus.frontend, Access::kNone}, {bus.backend, Access::kRead}});
      !status.ok()) {
    return status;
  }
  if (absl::Status status =
          WriteAll(nodes, front,
                   {{kBackend, back}, {kBackendId, absl::StrCat(bus.backend)}, {kState, initial}});
      !status.ok()) {
    return status;
  }
  // Its own, so that a backend outside Dom0 can remove it after its last bus.
  const std::vector<Permission> backends_own = {{bus.backend, Access::kNone}};
  absl::StatusOr<bool> parent_exists = Exists(nodes, Parent(back));
  if (!parent_exists.ok()) return parent_exists.status();
  if (!*parent_exists) {
    if (absl::Status status = MakeOwned(nodes, Parent(back), backends_own); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status =
          MakeOwned(nodes, back, {{bus.backend, Access::kNone}, {bus.frontend, Access::kRead}});
      !status.ok()) {
    return status;
  }
  if (absl::Status status = WriteAll(nodes, back,
                                     {{kFrontend, front},
                                      {kFrontendId, absl::StrCat(bus.frontend)},
                                      {kOnline, "1"},
                                      {kState, initial},
                                      // There from the start: a backend that may own no more
                                      // nodes can still say so.
                                      {kHotplugErrorNode, ""}});
      !status.ok()) {
    return status;
  }
  return MakeOwned(nodes, DevicesPath(bus), backends_own);
}

absl::Status AddDevice(NodeAccess& nodes, const BusAddress& bus, const DeviceNodesToWrite& device) {
  const std::string path = DevicePath(bus, device.number);
  absl::StatusOr<bool> exists = Exists(nodes, path);
  if (!exists.ok()) return exists.status();
  if (*exists) {
    return absl::AlreadyExistsError(absl::StrCat("bus ", bus.id, " of domain ", bus.frontend,
                                                 " has a device ", device.number,
                                                 " already; detach it first, or take another num"));
  }
  std::vector<std::pair<std::string, std::string>> values(device.keys.begin(), device.keys.end());
  values.emplace_back(kDeviceOnline, "1");
  values.emplace_back(kType, device.type);
  if (!device.id.empty()) values.emplace_back(kEntryId, device.id);
  if (!device.from_config.empty()) values.emplace_back(kFromConfig, device.from_config);
  return WriteAll(nodes, path, values);
}

absl::Status AskToLeave(NodeAccess& nodes, const EntryAddress& entry, bool force) {
  if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
  std::vector<std::pair<std::string, std::string>> values;
  if (force) values.emplace_back(kDeviceForce, "1");
  values.emplace_back(kDeviceOnline, "0");
  return WriteAll(nodes, entry.Path(), values);
}

absl::Status MadeAnew(const BusAddress& bus) {
  return absl::AlreadyExistsError(absl::StrCat("bus ", bus.id, " of domain ", bus.frontend,
                                               " was made anew meanwhile, and stays"));
}

absl::Status RemoveBusWithin(NodeAccess& nodes, const BusAddress& bus) {
  if (absl::Status status = RemoveWithParents(nodes, bus.BackendPath(), 1); !status.ok()) {
    return status;
  }
  // The guest's side may be another backend's.
  absl::StatusOr<std::optional<BusAddress>> other = BusElsewhere(nodes, bus);
  if (!other.ok()) return other.status();
  if (!other->has_value()) {
    if (absl::Status status = RemoveWithParents(nodes, bus.FrontendPath(), 1); !status.ok()) {
      return status;
    }
  }
  return RemoveWithParents(nodes, Parent(BackendErrorPath(bus)), 1);
}

}  // namespace

absl::StatusOr<DeviceCreation> AddDevicesWithin(NodeAccess& nodes, const BusAddress& bus,
                                                const std::vector<DeviceNodesToWrite>& devices) {
  DeviceCreation creation;
  absl::StatusOr<std::string> online = nodes.Read(absl::StrCat(bus.BackendPath(), "/", kOnline));
  if (absl::IsNotFound(online.status())) {
    if (absl::Status created = CreateBus(nodes, bus); !created.ok()) return created;
    creation.created_bus = true;
  } else if (!online.ok()) {
    return online.status();
  } else if (*online == "0") {
    return absl::FailedPreconditionError(absl::StrCat("bus ", bus.id, " of domain ", bus.frontend,
                                                      " is being removed; try again afterwards"));
  }
  for (const DeviceNodesToWrite& device : devices) {
    if (absl::Status added = AddDevice(nodes, bus, device); !added.ok()) return added;
    creation.numbers.push_back(device.number);
  }
  return creation;
}

absl::StatusOr<DeviceCreation> AddDevices(Store& store, const BusAddress& bus,
                                          const std::vector<DeviceNodesToWrite>& devices) {
  absl::StatusOr<DeviceCreation> creation;
  absl::Status status = store.Transaction([&](NodeAccess& nodes) {
    creation = AddDevicesWithin(nodes, bus, devices);
    return creation.status();
  });
  if (!status.ok()) return status;
  return creation;
}

absl::StatusOr<EntryAddress> RequestDeviceRemoval(Store& store, const BusAddress& bus,
                                                  uint16_t number, bool force) {
  EntryAddress entry{bus, number, ""};
  absl::Status status = store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> id = ReadEntryId(nodes, entry.Path());
    if (!id.ok()) return id.status();
    entry.id = *std::move(id);
    absl::Status asked = AskToLeave(nodes, entry, force);
    if (!absl::IsNotFound(asked)) return asked;
    return absl::NotFoundError(
        absl::StrCat("bus ", bus.id, " of domain ", bus.frontend, " has no device ", number));
  });
  if (!status.ok()) return status;
  return entry;
}

absl::Status RequestEntryRemoval(Store& store, const EntryAddress& entry, bool force) {
  return store.Transaction([&](NodeAccess& nodes) { return AskToLeave(nodes, entry, force); });
}

absl::Status RemoveEntry(Store& store, const EntryAddress& entry) {
  return store.Transaction([&](NodeAccess& nodes) {
    absl::Status same = RequireEntry(nodes, entry);
    return same.ok() ? nodes.Remove(entry.Path()) : same;
  });
}

absl::StatusOr<bool> IsLeaving(NodeAccess& nodes, const BusAddress& bus, uint16_t number) {
  absl::StatusOr<std::string> online =
      nodes.Read(absl::StrCat(DevicePath(bus, number), "/", kDeviceOnline));
  if (!online.ok()) return online.status();
  if (*online == "0") return true;
  online = nodes.Read(absl::StrCat(bus.BackendPath(), "/", kOnline));
  return online.ok() && *online == "0";
}

absl::Status RemoveLeavingEntry(Store& store, const EntryAddress& entry) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::Status same = RequireEntry(nodes, entry); !same.ok()) return same;
    absl::StatusOr<bool> leaving = IsLeaving(nodes, entry.bus, entry.number);
    if (!leaving.ok()) return leaving.status();
    if (!*leaving) {
      return absl::NotFoundError(absl::StrCat(entry.Path(), " is another entry by now, and stays"));
    }
    return nodes.Remove(entry.Path());
  });
}

absl::Status RequestBusRemoval(Store& store, const BusAddress& bus, bool force) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<bool> exists = Exists(nodes, bus.BackendPath());
    if (!exists.ok()) return exists.status();
    if (!*exists) {
      return absl::NotFoundError(absl::StrCat("domain ", bus.frontend, " has no bus ", bus.id));
    }
    std::vector<std::pair<std::string, std::string>> values;
    if (force) values.emplace_back(kForce, "1");
    values.emplace_back(kOnline, "0");
    return WriteAll(nodes, bus.BackendPath(), values);
  });
}

absl::Status RequestEmptyBusRemoval(Store& store, const BusAddress& bus) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::vector<uint16_t>> devices = ListDevices(nodes, bus);
    if (!devices.ok()) return devices.status();
    if (!devices->empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("bus ", bus.id, " of domain ", bus.frontend, " has devices"));
    }
    const std::string online = absl::StrCat(bus.BackendPath(), "/", kOnline);
    absl::StatusOr<bool> exists = Exists(nodes, online);
    if (!exists.ok()) return exists.status();
    if (!*exists) {
      return absl::NotFoundError(absl::StrCat("domain ", bus.frontend, " has no bus ", bus.id));
    }
    return nodes.Write(online, "0");
  });
}

absl::Status RemoveBackendDirectory(Store& store, const BusAddress& bus) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> state = nodes.Read(absl::StrCat(bus.BackendPath(), "/", kState));
    if (!state.ok()) return state.status();
    if (*state != StateText(XenbusState::kClosed)) return MadeAnew(bus);
    // Where it never reported an error, it may not be allowed to look for one.
    RemoveWithParents(nodes, Parent(BackendErrorPath(bus)), 1).IgnoreError();
    return RemoveWithParents(nodes, bus.BackendPath(), 1);
  });
}

absl::Status RemoveBus(Store& store, const BusAddress& bus) {
  return store.Transaction([&](NodeAccess& nodes) { return RemoveBusWithin(nodes, bus); });
}

absl::Status RemoveLeavingBus(Store& store, const BusAddress& bus) {
  return store.Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> online = nodes.Read(absl::StrCat(bus.BackendPath(), "/", kOnline));
    if (!online.ok() && !absl::IsNotFound(online.status())) return online.status();
    if (online.ok() && *online != "0") {
      return MadeAnew(bus);
    }
    return RemoveBusWithin(nodes, bus);
  });
}

absl::StatusOr<std::vector<uint16_t>> ListDevices(NodeAccess& nodes, const BusAddress& bus) {
  std::vector<uint16_t> numbers;
  absl::StatusOr<std::vector<std::string>> names = nodes.List(DevicesPath(bus));
  if (absl::IsNotFound(names.status())) return numbers;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> number = ParseDecimal(name, "the device number", 0, UINT16_MAX);
    if (number.ok()) numbers.push_back(static_cast<uint16_t>(*number));
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace vmsg::xenstore
