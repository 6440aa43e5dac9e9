// SPDX-License-Identifier: Apache-2.0
#include "xenstore/standalone/disk_claims.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "text/foreign_text.h"
#include "xenstore/text_value.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/domain_names.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::xenstore {
namespace {

constexpr char kDisks[] = "backend/virtio_disk";
constexpr char kBuses[] = "backend/virtio-msg";
constexpr char kDisksToken[] = "disks";
constexpr char kBusesToken[] = "buses";
// The device that a disk became, in its directory: for when we start again.
constexpr char kOurDevice[] = "virtio-msg-device";
constexpr char kOurEntry[] = "virtio-msg-entry";  // its id
constexpr size_t kClaimEventsPerTurn = 256;
constexpr size_t kClaimLooksPerTurn = 32;

}  // namespace

absl::StatusOr<std::unique_ptr<DiskClaims>> DiskClaims::Start(Store* store, uint16_t self,
                                                              Log log) {
  if (absl::Status may_ask = store->IsDomainIntroduced(self).status(); !may_ask.ok()) {
    return may_ask;
  }
  auto claims = std::unique_ptr<DiskClaims>(new DiskClaims(store, self, std::move(log)));
  if (absl::Status status = store->Watch(kDisks, kDisksToken); !status.ok()) return status;
  if (absl::Status status = store->Watch(kBuses, kBusesToken); !status.ok()) return status;
  return claims;
}

DiskClaims::~DiskClaims() {
  store_->Unwatch(kDisks, kDisksToken).IgnoreError();
  store_->Unwatch(kBuses, kBusesToken).IgnoreError();
}

absl::StatusOr<bool> DiskClaims::Process() {
  absl::StatusOr<std::vector<WatchEvent>> events = store_->TakeWatchEvents(kClaimEventsPerTurn);
  if (!events.ok()) return events.status();
  for (const WatchEvent& event : *events) Mark(event);
  if (std::exchange(scan_, false)) {
    if (absl::Status status = Scan(); !status.ok()) return status;
  }
  for (size_t i = 0; i < kClaimLooksPerTurn && !look_.empty(); ++i) {
    const Key key = *look_.begin();
    look_.erase(look_.begin());
    if (absl::Status status = Look(key); absl::IsUnavailable(status)) return status;
  }
  return events->size() == kClaimEventsPerTurn || scan_ || !look_.empty();
}

void DiskClaims::Mark(const WatchEvent& event) {
  const std::vector<absl::string_view> parts = absl::StrSplit(event.path, '/');
  absl::StatusOr<uint64_t> frontend = absl::CancelledError();
  if (parts.size() > 2) frontend = ParseDecimal(parts[2], "the domain", 0, kLastDomain);
  if (event.token == kBusesToken) {
    // A device was answered or is gone.
    for (auto it = disks_.lower_bound({static_cast<uint16_t>(frontend.value_or(0)), 0});
         it != disks_.end() && (!frontend.ok() || it->first.frontend == *frontend); ++it) {
      look_.insert(it->first);
    }
    return;
  }
  absl::StatusOr<uint64_t> id = absl::CancelledError();
  if (parts.size() > 3) id = ParseDecimal(parts[3], "the disk's id", 0, UINT32_MAX);
  if (frontend.ok() && id.ok()) {
    look_.insert({static_cast<uint16_t>(*frontend), static_cast<uint32_t>(*id)});
  } else {
    scan_ = true;
  }
}

absl::Status DiskClaims::Scan() {
  for (const auto& [key, disk] : disks_) look_.insert(key);
  absl::StatusOr<std::vector<std::string>> frontends = store_->List(kDisks);
  if (!frontends.ok()) {
    return absl::IsUnavailable(frontends.status()) ? frontends.status() : absl::OkStatus();
  }
  for (const std::string& name : *frontends) {
    absl::StatusOr<uint64_t> frontend = ParseDecimal(name, "the domain", 0, kLastDomain);
    absl::StatusOr<std::vector<std::string>> ids = store_->List(absl::StrCat(kDisks, "/", name));
    if (absl::IsUnavailable(ids.status())) return ids.status();
    if (!frontend.ok() || !ids.ok()) continue;
    for (const std::string& text : *ids) {
      absl::StatusOr<uint64_t> id = ParseDecimal(text, "the disk's id", 0, UINT32_MAX);
      if (id.ok()) {
        look_.insert({static_cast<uint16_t>(*frontend), static_cast<uint32_t>(*id)});
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DiskClaims::ReadOrEmpty(const std::string& path) {
  absl::StatusOr<std::string> value = store_->Read(path);
  if (value.ok() || absl::IsUnavailable(value.status())) return value;
  return std::string();
}

absl::Status DiskClaims::WriteIfThere(const Key& key, const Values& values, bool refused) {
  const std::string path = absl::StrCat(kDisks, "/", key.frontend, "/", key.id);
  return store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    const std::string state = absl::StrCat(path, "/", kState);
    if (absl::Status exists = nodes.Read(state).status(); !exists.ok()) return exists;
    for (const auto& [node, value] : values) {
      absl::Status written = nodes.Write(absl::StrCat(path, "/", node), value);
      if (!written.ok()) return written;
    }
    return refused ? nodes.Remove(state) : absl::OkStatus();
  });
}

absl::Status DiskClaims::Look(const Key& key) {
  const std::string path = absl::StrCat(kDisks, "/", key.frontend, "/", key.id);
  absl::StatusOr<std::string> state = ReadOrEmpty(absl::StrCat(path, "/", kState));
  if (!state.ok()) return state.status();
  absl::StatusOr<std::string> online = ReadOrEmpty(absl::StrCat(path, "/", kOnline));
  if (!online.ok()) return online.status();
  const XenbusState ours = ParseState(*state).value_or(XenbusState::kUnknown);
  auto known = disks_.find(key);
  if (known == disks_.end()) {
    // Claimed before we started?
    absl::StatusOr<std::string> device = ReadOrEmpty(absl::StrCat(path, "/", kOurDevice));
    if (!device.ok()) return device.status();
    absl::StatusOr<std::string> id = ReadOrEmpty(absl::StrCat(path, "/", kOurEntry));
    if (!id.ok()) return id.status();
    if (absl::StatusOr<uint64_t> number = ParseDecimal(*device, kOurDevice, 0, UINT16_MAX);
        number.ok()) {
      known = disks_
                  .emplace(key, Disk{.ready = ours == XenbusState::kInitWait,
                                     .entry = {bus(key), static_cast<uint16_t>(*number), *id}})
                  .first;
    }
  }
  const bool wanted = !state->empty() && *online != "0" && ours != XenbusState::kClosing &&
                      ours != XenbusState::kClosed;
  if (known != disks_.end()) {
    return wanted ? Follow(key, known->second) : Leave(key, known->second);
  }
  // In any other state it is another backend's, or one that we refused.
  return wanted && ours == XenbusState::kInitialising ? Claim(key) : absl::OkStatus();
}

absl::Status DiskClaims::Claim(const Key& key) {
  const std::string path = absl::StrCat(kDisks, "/", key.frontend, "/", key.id);
  const auto read = [&](const char* node) {
    return ReadOrEmpty(absl::StrCat(path, "/", node)).value_or("");
  };
  const std::string params = read("params");
  const std::string mode = read("mode");
  if (read("type") != "standalone" || read("specification") != "virtio") return absl::OkStatus();
  if (disks_.size() >= kMaxStandaloneDisks) {
    return Refuse(key, absl::ResourceExhaustedError(
                           absl::StrCat("there are ", disks_.size(), " such disks already")));
  }
  if (read("device-type") == "cdrom") {
    return Refuse(key, absl::InvalidArgumentError("devtype=cdrom is not served; only disks are"));
  }
  if (params.empty() || params[0] != '/') {
    return Refuse(key, absl::InvalidArgumentError(absl::StrCat("target=", Quoted(params),
                                                               ": an absolute path is needed")));
  }
  AttachItem item{.label = absl::StrCat("disk ", read("dev")), .entry = {}, .number = 0};
  item.entry.type = "blk";
  item.entry.keys = {{"path", params}, {"format", "raw"}, {"readonly", mode == "w" ? "0" : "1"}};
  AttachPlan plan = PlanAttachment(key.frontend, self_, {std::move(item)});
  auto created = WriteAttachment(*store_, plan, "");
  if (!created.ok()) return Refuse(key, created.status());
  const AttachItem& made = plan.buses.begin()->second[0];
  disks_[key] = {.entry = {bus(key), made.number, made.id}};
  absl::Status noted =
      WriteIfThere(key, {{kOurEntry, made.id}, {kOurDevice, absl::StrCat(made.number)}});
  look_.insert(key);
  return absl::IsNotFound(noted) ? absl::OkStatus() : noted;
}

absl::Status DiskClaims::Follow(const Key& key, Disk& disk) {
  if (disk.ready) return absl::OkStatus();
  std::string status, reason;
  absl::Status read = store_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    if (absl::Status same = RequireEntry(nodes, disk.entry); !same.ok()) return same;
    const auto value = [&](const char* node) {
      return nodes.Read(absl::StrCat(disk.entry.Path(), "/", node)).value_or("");
    };
    status = value(kHotplugStatus);
    reason = value(kHotplugError);
    return absl::OkStatus();
  });
  // Detached by hand before it was answered.
  if (absl::IsNotFound(read)) return absl::OkStatus();
  if (!read.ok()) return read;
  if (status == kStatusConnected) {
    disk.ready = true;
    log_(false, absl::StrCat(GuestLabel(*store_, key.frontend), ": standalone disk ", key.id,
                             " is bus 0 device ", disk.entry.number));
    return WriteIfThere(key, {{kState, StateText(XenbusState::kInitWait)}});
  }
  if (status != kStatusError) return absl::OkStatus();  // vmsgd has not answered yet
  RemoveEntry(*store_, disk.entry).IgnoreError();
  disks_.erase(key);
  return Refuse(key, absl::InvalidArgumentError(reason));
}

// libxl waits for 6, and removes the directory afterwards.
absl::Status DiskClaims::Leave(const Key& key, Disk& disk) {
  absl::Status there = RequireEntry(*store_, disk.entry);
  if (!there.ok() && !absl::IsNotFound(there)) return there;
  if (there.ok()) {
    if (std::exchange(disk.leaving, true)) return absl::OkStatus();
    // libxl takes such a disk away only with its guest, which is paused by then: its driver does
    // not answer.
    absl::Status asked = RequestEntryRemoval(*store_, disk.entry, /*force=*/true);
    return absl::IsNotFound(asked) ? absl::OkStatus() : asked;
  }
  disks_.erase(key);
  absl::StatusOr<std::string> state =
      ReadOrEmpty(absl::StrCat(kDisks, "/", key.frontend, "/", key.id, "/", kState));
  if (!state.ok()) return state.status();
  // Written once: we see our own writes, too.
  if (*state == StateText(XenbusState::kClosed)) return absl::OkStatus();
  absl::Status written = WriteIfThere(key, {{kState, StateText(XenbusState::kClosed)}});
  return absl::IsNotFound(written) ? absl::OkStatus() : written;
}

absl::Status DiskClaims::Refuse(const Key& key, const absl::Status& reason) {
  log_(true, absl::StrCat(GuestLabel(*store_, key.frontend), ": standalone disk ", key.id,
                          " refused: ", reason.message()));
  absl::Status status =
      WriteIfThere(key,
                   {{kHotplugError, std::string(reason.message().substr(0, 1024))},
                    {kHotplugStatus, kStatusError}},
                   /*refused=*/true);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace vmsg::xenstore
