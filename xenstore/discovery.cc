// SPDX-License-Identifier: Apache-2.0
#include "xenstore/discovery.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "text/foreign_text.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr char kRoot[] = "backend/virtio-msg";
constexpr char kBackendToken[] = "backend";
constexpr char kFrontendToken[] = "frontend";
constexpr char kReleaseToken[] = "release";
constexpr char kReleaseDomain[] = "@releaseDomain";

constexpr size_t kEventsPerTurn = 256;
// Buses, frontends and domains looked at in one call: keeps a call under some milliseconds when
// many change at once (an operation on the store takes about 60 us).
constexpr size_t kLooksPerTurn = 32;

std::string RelativePath(const BusAddress& bus) {
  return absl::StrCat(kRoot, "/", bus.frontend, "/", bus.id);
}

absl::StatusOr<uint64_t> ParseDomain(absl::string_view text) {
  return ParseDecimal(text, "the frontend's domain", 0, kLastDomain);
}
absl::StatusOr<uint64_t> ParseBusId(absl::string_view text) {
  return ParseDecimal(text, "the bus id", 0, UINT32_MAX);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BusDiscovery>> BusDiscovery::Start(Store* store,
                                                                  BusListener* listener,
                                                                  uint16_t self) {
  auto discovery = std::unique_ptr<BusDiscovery>(new BusDiscovery(store, listener, self));
  if (absl::Status status = store->Watch(kRoot, kBackendToken); !status.ok()) return status;
  // Only Dom0 is told about domains; elsewhere a guest's end shows in its vanished nodes.
  absl::Status released = store->Watch(kReleaseDomain, kReleaseToken);
  if (absl::IsUnavailable(released)) return released;
  discovery->root_dirty_ = true;
  return discovery;
}

BusDiscovery::~BusDiscovery() {
  for (const auto& [address, bus] : buses_) {
    store_->Unwatch(address.FrontendPath(), kFrontendToken).IgnoreError();
  }
  store_->Unwatch(kRoot, kBackendToken).IgnoreError();
  store_->Unwatch(kReleaseDomain, kReleaseToken).IgnoreError();
}

absl::StatusOr<bool> BusDiscovery::Process() {
  absl::StatusOr<std::vector<WatchEvent>> events = store_->TakeWatchEvents(kEventsPerTurn);
  if (!events.ok()) return events.status();
  for (const WatchEvent& event : *events) Mark(event);

  if (std::exchange(root_dirty_, false)) {
    if (absl::Status status = ScanRoot(); !status.ok()) return status;
  }
  for (size_t i = 0; i < kLooksPerTurn && !dirty_frontends_.empty(); ++i) {
    const uint16_t frontend = *dirty_frontends_.begin();
    dirty_frontends_.erase(dirty_frontends_.begin());
    if (absl::Status status = ScanFrontend(frontend); !status.ok()) return status;
  }
  for (size_t i = 0; i < kLooksPerTurn && !dirty_domains_.empty(); ++i) {
    const uint16_t frontend = *dirty_domains_.begin();
    dirty_domains_.erase(dirty_domains_.begin());
    CheckDomain(frontend);
  }
  for (size_t i = 0; i < kLooksPerTurn && !dirty_buses_.empty(); ++i) {
    // From where the last turn ended, so that a bus that is always dirty does not hide the others.
    auto next = dirty_buses_.upper_bound(last_looked_at_);
    if (next == dirty_buses_.end()) next = dirty_buses_.begin();
    last_looked_at_ = next->first;
    const Dirty dirty = std::move(next->second);
    dirty_buses_.erase(next);
    if (absl::Status status = ScanBus(last_looked_at_, dirty); !status.ok()) return status;
  }
  return events->size() == kEventsPerTurn || root_dirty_ || !dirty_frontends_.empty() ||
         !dirty_domains_.empty() || !dirty_buses_.empty();
}

void BusDiscovery::Mark(const WatchEvent& event) {
  if (event.token == kBackendToken) {
    absl::string_view below = event.path;
    if (absl::ConsumePrefix(&below, kRoot)) MarkBackend(below);
  } else if (event.token == kReleaseToken) {
    for (const uint16_t frontend : Frontends()) dirty_domains_.insert(frontend);
    listener_->OnDomainReleased();
  } else if (event.token == kFrontendToken) {
    // /local/domain/<F>/device/virtio-msg/<id>, as we watch it, or its state below. The guest's
    // other nodes are nothing to us.
    const std::vector<absl::string_view> parts = absl::StrSplit(event.path, '/');
    if (parts.size() != 7 && (parts.size() != 8 || parts[7] != kState)) return;
    const absl::StatusOr<uint64_t> frontend = ParseDomain(parts[3]);
    const absl::StatusOr<uint64_t> id = ParseBusId(parts[6]);
    if (!frontend.ok() || !id.ok()) return;
    const BusAddress address{static_cast<uint16_t>(*frontend), self_, static_cast<uint32_t>(*id)};
    if (buses_.contains(address)) dirty_buses_[address].frontend = true;
  }
}

// `below`: "", "/<F>", "/<F>/<id>", "/<F>/<id>/<node>", ...
void BusDiscovery::MarkBackend(absl::string_view below) {
  std::vector<absl::string_view> parts = absl::StrSplit(below, '/');
  if (parts.size() < 2) {
    root_dirty_ = true;
    return;
  }
  const absl::StatusOr<uint64_t> frontend = ParseDomain(parts[1]);
  if (!frontend.ok()) {
    root_dirty_ = true;  // reported from there, once
    return;
  }
  if (parts.size() < 3 || !ParseBusId(parts[2]).ok()) {
    dirty_frontends_.insert(static_cast<uint16_t>(*frontend));
    return;
  }
  const BusAddress address{static_cast<uint16_t>(*frontend), self_,
                           static_cast<uint32_t>(*ParseBusId(parts[2]))};
  if (parts.size() == 3) {
    MarkBus(address);
  } else if (parts[3] == kState || parts[3] == kOnline || parts[3] == kForce) {
    dirty_buses_[address].bus = true;
  } else if (parts[3] == kDevice) {
    Dirty& dirty = dirty_buses_[address];
    absl::StatusOr<uint64_t> number =
        parts.size() > 4 ? ParseDecimal(parts[4], "the device number", 0, UINT16_MAX)
                         : absl::InvalidArgumentError("none");
    if (number.ok()) {
      dirty.entries.insert(static_cast<uint16_t>(*number));
      if (parts.size() == 6 && parts[5] == kHotplugStatus) {
        dirty.answered.insert(static_cast<uint16_t>(*number));
      }
    } else {
      dirty.devices = true;
    }
  }
}

void BusDiscovery::MarkBus(const BusAddress& bus) {
  Dirty& dirty = dirty_buses_[bus];
  dirty.bus = dirty.frontend = dirty.devices = true;
}

absl::Status BusDiscovery::ScanRoot() {
  absl::StatusOr<std::vector<std::string>> names = store_->List(kRoot);
  if (absl::IsUnavailable(names.status())) return names.status();
  for (const auto& [address, bus] : buses_) dirty_frontends_.insert(address.frontend);
  if (!names.ok()) return absl::OkStatus();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> frontend = ParseDomain(name);
    if (frontend.ok()) {
      dirty_frontends_.insert(static_cast<uint16_t>(*frontend));
    } else {
      RefuseBus(absl::StrCat(kRoot, "/", name), frontend.status());
    }
  }
  return absl::OkStatus();
}

absl::Status BusDiscovery::ScanFrontend(uint16_t frontend) {
  const std::string directory = absl::StrCat(kRoot, "/", frontend);
  absl::StatusOr<std::vector<std::string>> names = store_->List(directory);
  if (absl::IsUnavailable(names.status())) return names.status();
  for (auto it = buses_.lower_bound({frontend, 0, 0});
       it != buses_.end() && it->first.frontend == frontend; ++it) {
    MarkBus(it->first);
  }
  if (!names.ok()) return absl::OkStatus();
  for (const std::string& name : *names) {
    absl::StatusOr<uint64_t> id = ParseBusId(name);
    if (id.ok()) {
      MarkBus({frontend, self_, static_cast<uint32_t>(*id)});
    } else {
      RefuseBus(absl::StrCat(directory, "/", name), id.status());
    }
  }
  return absl::OkStatus();
}

void BusDiscovery::CheckDomain(uint16_t frontend) {
  if (!DomainGone(frontend)) return;
  for (auto it = buses_.lower_bound({frontend, 0, 0});
       it != buses_.end() && it->first.frontend == frontend; ++it) {
    it->second.domain_gone = true;
    Dirty& dirty = dirty_buses_[it->first];
    dirty.bus = dirty.frontend = true;
  }
}

std::vector<uint16_t> BusDiscovery::Frontends() const {
  std::vector<uint16_t> frontends;
  for (auto it = buses_.begin(); it != buses_.end();
       it = buses_.lower_bound({static_cast<uint16_t>(it->first.frontend + 1), 0, 0})) {
    frontends.push_back(it->first.frontend);
  }
  return frontends;
}

void BusDiscovery::EndDomain(uint16_t frontend) {
  for (auto it = buses_.lower_bound({frontend, 0, 0});
       it != buses_.end() && it->first.frontend == frontend; ++it) {
    it->second.ended = true;
    MarkBus(it->first);
  }
}

bool BusDiscovery::DomainGone(uint16_t frontend) {
  // Where we may not ask, the domain counts as alive: its vanished nodes say the rest.
  absl::StatusOr<bool> introduced = store_->IsDomainIntroduced(frontend);
  return introduced.ok() && !*introduced;
}

absl::StatusOr<std::optional<std::string>> BusDiscovery::ReadNode(const std::string& path) {
  absl::StatusOr<std::string> value = store_->Read(path);
  if (value.ok()) return std::optional<std::string>(*std::move(value));
  if (absl::IsUnavailable(value.status())) return value.status();
  return std::optional<std::string>();
}

absl::Status BusDiscovery::ReadFrontend(const BusAddress& address, Bus& bus, BusView& view) {
  const std::string directory = address.FrontendPath();
  absl::StatusOr<std::optional<std::string>> text = ReadNode(absl::StrCat(directory, "/", kState));
  if (!text.ok()) return text.status();
  bus.frontend_gone = false;
  view.frontend = std::nullopt;
  view.no_state.clear();
  if (text->has_value()) {
    view.frontend = ParseState(**text).value_or(XenbusState::kUnknown);
    if (view.frontend == XenbusState::kUnknown) view.no_state = Quoted(**text);
    return absl::OkStatus();
  }
  // Only the toolstack makes the directory, so it does not come back. Outside Dom0, forbidden may
  // mean gone: what is above is not ours to see.
  absl::Status exists = store_->Read(directory).status();
  if (absl::IsUnavailable(exists)) return exists;
  bus.frontend_gone = absl::IsNotFound(exists) || absl::IsPermissionDenied(exists);
  return absl::OkStatus();
}

absl::Status BusDiscovery::ReadOnline(const BusAddress& address, Bus& bus) {
  const std::string path = RelativePath(address);
  absl::StatusOr<std::optional<std::string>> text = ReadNode(absl::StrCat(path, "/", kOnline));
  if (!text.ok()) return text.status();
  bus.online_node = text->value_or("1") != "0";
  bus.force_node = false;
  if (bus.online_node) return absl::OkStatus();
  text = ReadNode(absl::StrCat(path, "/", kForce));
  if (!text.ok()) return text.status();
  bus.force_node = text->value_or("0") == "1";
  return absl::OkStatus();
}

void BusDiscovery::Judge(const Bus& bus, BusView& view) {
  const bool gone = bus.frontend_gone || bus.domain_gone || bus.ended;
  view.online = bus.online_node && !gone;
  view.forced = gone || bus.force_node;
}

absl::Status BusDiscovery::ScanBus(const BusAddress& address, const Dirty& dirty) {
  auto known = buses_.find(address);
  if (known == buses_.end()) return Appear(address);
  BusView view = known->second.reported;
  if (dirty.bus) {
    absl::StatusOr<std::optional<std::string>> state =
        ReadNode(absl::StrCat(RelativePath(address), "/", kState));
    if (!state.ok()) return state.status();
    if (!state->has_value()) {
      Vanish(address);
      return absl::OkStatus();
    }
    view.ours = ParseState(**state).value_or(XenbusState::kUnknown);
    if (known->second.domain_gone) known->second.domain_gone = DomainGone(address.frontend);
    if (absl::Status read = ReadOnline(address, known->second); !read.ok()) return read;
  }
  if (dirty.frontend) {
    if (absl::Status status = ReadFrontend(address, known->second, view); !status.ok()) {
      return status;
    }
  }
  Bus& bus = known->second;
  Judge(bus, view);
  // Removed and made anew before we looked: the toolstack starts a bus at 1.
  if (dirty.bus && view.online && !bus.reported.online && view.ours == XenbusState::kInitialising) {
    Vanish(address);
    return Appear(address);
  }
  bus.reported.ours = view.ours;
  const bool changed =
      view != bus.reported || (dirty.frontend && view.frontend == XenbusState::kInitialised);
  bus.reported = view;
  if (changed) listener_->OnBusChanged(address, view);
  for (const uint16_t number : dirty.answered) {
    auto device = bus.devices.find(number);
    if (device != bus.devices.end()) device->second.answered = true;
  }
  if (dirty.devices) return ScanDevices(address, bus);
  for (const uint16_t number : dirty.entries) {
    if (absl::Status status = ScanDevice(address, bus, number); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status BusDiscovery::Appear(const BusAddress& address) {
  const std::string path = RelativePath(address);
  absl::StatusOr<std::optional<std::string>> state = ReadNode(absl::StrCat(path, "/", kState));
  if (!state.ok()) return state.status();
  if (!state->has_value()) {
    refused_buses_.erase(path);
    return absl::OkStatus();
  }
  size_t count = 0;
  for (auto it = buses_.lower_bound({address.frontend, 0, 0});
       it != buses_.end() && it->first.frontend == address.frontend; ++it) {
    ++count;
  }
  if (count >= kMaxBusesPerFrontend) {
    RefuseBus(path, absl::ResourceExhaustedError(
                        absl::StrCat("domain ", address.frontend, " has ", count,
                                     " buses already, the limit of this backend; bus ", address.id,
                                     " is not served until another one is removed")));
    return absl::OkStatus();
  }
  if (absl::Status watch = store_->Watch(address.FrontendPath(), kFrontendToken);
      !watch.ok() && !absl::IsAlreadyExists(watch)) {
    if (absl::IsUnavailable(watch)) return watch;
    starved_ = true;
    RefuseBus(path, absl::IsResourceExhausted(watch)
                        ? absl::ResourceExhaustedError(absl::StrCat(
                              "this domain may watch no more of xenstore than ", buses_.size(),
                              " buses (xenstored's --watch-nb, 128 by default for a domain other "
                              "than Dom0): ",
                              watch.message()))
                        : watch);
    return absl::OkStatus();
  }
  refused_buses_.erase(path);
  Bus fresh;
  fresh.domain_gone = DomainGone(address.frontend);
  fresh.reported.ours = ParseState(**state).value_or(XenbusState::kUnknown);
  if (absl::Status read = ReadOnline(address, fresh); !read.ok()) return read;
  if (absl::Status read = ReadFrontend(address, fresh, fresh.reported); !read.ok()) return read;
  Judge(fresh, fresh.reported);
  Bus& bus = buses_[address] = std::move(fresh);
  listener_->OnBusAppeared(address, bus.reported);
  return ScanDevices(address, bus);
}

void BusDiscovery::Vanish(const BusAddress& address) {
  store_->Unwatch(address.FrontendPath(), kFrontendToken).IgnoreError();
  buses_.erase(address);
  // One that was refused for being too many may have its place now.
  dirty_frontends_.insert(address.frontend);
  if (std::exchange(starved_, false)) root_dirty_ = true;
  listener_->OnBusVanished(address);
}

void BusDiscovery::RefuseBus(const std::string& path, const absl::Status& reason) {
  if (refused_buses_.size() >= kMaxRefusedNames || !refused_buses_.insert(path).second) return;
  listener_->OnBusRefused(path, reason);
}

}  // namespace vmsg::xenstore
