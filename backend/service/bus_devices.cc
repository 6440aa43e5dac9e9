// SPDX-License-Identifier: Apache-2.0
// The device entries of a bus: opened by a worker, given to the session, removed again.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/bus_control.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::backend {

void BusControl::AddDevice(const xenstore::DeviceNodes& nodes) {
  auto [entry, fresh] = devices_.try_emplace(nodes.number);
  if (!fresh) {
    // The one before it is still on its way out.
    entry->second.next = nodes;
    return;
  }
  entry->second.nodes = nodes;
  entry->second.ticket = ++last_ticket_;
  // A session that is on its way out may still hold what this one names.
  if (phase_ == Phase::kClosing) {
    entry->second.state = DeviceState::kWaiting;
    return;
  }
  Open(nodes.number);
}

void BusControl::Open(uint16_t number) {
  DeviceControl& device = devices_[number];
  device.state = DeviceState::kOpening;
  LogLine(LogLevel::kDebug, absl::StrCat("device ", number, ": opening ", device.nodes.type));
  DeviceEntry entry{.number = number, .type = device.nodes.type, .keys = device.nodes.keys};
  entry.keys.insert(device.nodes.found.begin(), device.nodes.found.end());
  services_.workers->Submit(opening_lane(), [entry = std::move(entry), ticket = device.ticket,
                                             lane = opening_lane(), workers = services_.workers,
                                             loop = services_.loop, anchor = anchor_]() mutable {
    loop->Post([number = entry.number, ticket, lane, workers, opened = OpenDevice(entry),
                anchor = std::move(anchor)]() mutable {
      if (anchor->control != nullptr && anchor->control->OnOpened(number, ticket, opened)) return;
      // Its entry, or its bus, is gone. Closing may take as long as opening did.
      if (!opened.ok()) return;
      workers->Submit(lane,
                      [opened = *std::move(opened)]() mutable { CloseDevice(std::move(opened)); });
    });
  });
}

BusControl::DeviceControl* BusControl::Find(uint16_t number, uint64_t ticket) {
  auto entry = devices_.find(number);
  return entry != devices_.end() && entry->second.ticket == ticket ? &entry->second : nullptr;
}

bool BusControl::OnOpened(uint16_t number, uint64_t ticket, absl::StatusOr<OpenedDevice>& opened) {
  DeviceControl* const found = Find(number, ticket);
  if (found == nullptr || found->state != DeviceState::kOpening) return false;
  DeviceControl& device = *found;
  if (!opened.ok()) {
    device.state = DeviceState::kFailed;
    Report(device, opened.status());
  } else {
    device.state = DeviceState::kOpened;
    device.opened = *std::move(opened);
    WatchHealth(device);
    LogLine(LogLevel::kDebug, absl::StrCat("device ", number, ": opened"));
    // Before the guest can touch it.
    NoteFound(device);
    CompareWithBefore(device);
  }
  if (device.leaving) {
    FinishRemoval(number);
  } else if (device.state == DeviceState::kOpened) {
    if (phase_ == Phase::kConnected) {
      Attach(device, /*announce=*/true);
    } else {
      Report(device, absl::OkStatus());
    }
  }
  // Connecting may have waited for it.
  Evaluate();
  return true;
}

// Closes what a session was given, on the lane that opened it: the session's thread, and this one,
// have others to serve. Its own end is when all of it is closed.
class BusControl::LaneCloser final : public FdCloser {
 public:
  LaneCloser(WorkerPool* workers, WorkerPool::Key lane, absl::AnyInvocable<void()> closed)
      : workers_(workers), lane_(lane), closed_(std::move(closed)) {}
  ~LaneCloser() override { closed_(); }
  void Close(int fd, std::shared_ptr<FdCloser> self) override {
    // In this order: `self` goes when the descriptor is closed.
    workers_->Submit(lane_, [self = std::move(self), file = UniqueFd(fd)]() mutable {
      file = UniqueFd();
      self = nullptr;
    });
  }

 private:
  WorkerPool* const workers_;
  const WorkerPool::Key lane_;
  absl::AnyInvocable<void()> closed_;
};

void BusControl::Attach(DeviceControl& device, bool announce) {
  // One connection's at a time, so that a guest that connects again and again while closing hangs
  // has no more files open than one that does not.
  if (device.lent) {
    device.awaits_return = true;
    LogLine(LogLevel::kWarning,
            absl::StrCat("device ", device.nodes.number,
                         ": files of its last connection are still being closed; the guest gets it "
                         "when they are"));
    return;
  }
  device.lent = true;
  const auto closer = std::make_shared<LaneCloser>(
      services_.workers, opening_lane(),
      [number = device.nodes.number, ticket = device.ticket, loop = services_.loop,
       anchor = anchor_]() mutable {
        PostBack(loop, std::move(anchor),
                 [number, ticket](BusControl& control) { control.OnReturned(number, ticket); });
      });
  // Ours stays: it is what the next connection gets.
  absl::StatusOr<OpenedDevice> duplicate = device.opened->Duplicate(closer);
  if (!duplicate.ok()) return Report(device, duplicate.status());
  device.state = DeviceState::kAttached;
  thread_->loop().Post([session = session_, announce, opened = *std::move(duplicate),
                        ticket = device.ticket, loop = services_.loop, anchor = anchor_]() mutable {
    const uint16_t number = opened.number;
    absl::Status status = session->AddDevice(std::move(opened), announce);
    PostBack(loop, std::move(anchor), [number, ticket, status](BusControl& control) {
      control.OnAttached(number, ticket, status);
    });
  });
}

void BusControl::OnAttached(uint16_t number, uint64_t ticket, const absl::Status& status) {
  DeviceControl* const device = Find(number, ticket);
  if (device == nullptr || device->state != DeviceState::kAttached) return;
  // Its entry tells by now how far its removal is.
  if (!device->leaving || !status.ok()) Report(*device, status);
  if (status.ok()) return;
  device->state = DeviceState::kFailed;
  CloseElsewhere(*device);
  if (device->leaving) FinishRemoval(number);
  Evaluate();
}

void BusControl::OnReturned(uint16_t number, uint64_t ticket) {
  DeviceControl* const device = Find(number, ticket);
  if (device == nullptr) return;
  device->lent = false;
  if (std::exchange(device->awaits_return, false) && phase_ == Phase::kConnected &&
      device->state == DeviceState::kOpened) {
    Attach(*device, /*announce=*/true);
  }
  // Connecting may have waited for it.
  Evaluate();
}

void BusControl::AttachAll() {
  for (auto& [number, device] : devices_) {
    if (device.state == DeviceState::kOpened) Attach(device, /*announce=*/false);
  }
}

void BusControl::RemoveDevice(uint16_t number, bool force) {
  auto entry = devices_.find(number);
  if (entry == devices_.end()) return;
  DeviceControl& device = entry->second;
  // The number's entry is the one that waits, of which nothing is open yet.
  if (device.next.has_value()) {
    RemoveEntry({address_, number, device.next->id});
    device.next.reset();
    if (device.leaving) return;
  }
  device.leaving = true;
  switch (device.state) {
    case DeviceState::kOpening:
      return;  // until it is opened
    case DeviceState::kOpened:
    case DeviceState::kWaiting:
    case DeviceState::kFailed:
      return FinishRemoval(number);
    case DeviceState::kAttached:
      // While the session drains, it goes with the session.
      if (phase_ != Phase::kConnected) return;
      thread_->loop().Post(
          [session = session_, number, force] { session->RemoveDevice(number, force); });
      return;
  }
}

void BusControl::DeviceVanished(uint16_t number) {
  auto entry = devices_.find(number);
  if (entry == devices_.end()) return;
  if (entry->second.next.has_value()) {
    entry->second.next.reset();
    return;
  }
  entry->second.vanished = true;
  RemoveDevice(number, /*force=*/true);
}

void BusControl::OnRemoval(uint16_t number, RemovalStage stage) {
  auto entry = devices_.find(number);
  if (entry == devices_.end() || !entry->second.leaving) return;
  switch (stage) {
    case RemovalStage::kAsked:
      return ReportRemoval(entry->second, xenstore::kStatusAsked);
    case RemovalStage::kDraining:
      return ReportRemoval(entry->second, xenstore::kStatusDraining);
    case RemovalStage::kRemoved:
      FinishRemoval(number);
      // The end of the bus may have waited for it.
      return Evaluate();
  }
}

void BusControl::ReportRemoval(DeviceControl& device, const char* status) {
  if (gone_ || device.vanished) return;
  xenstore::ReportRemoval(*services_.store, EntryOf(device), status).IgnoreError();
}

void BusControl::RemoveEntry(const xenstore::EntryAddress& entry) {
  absl::Status status = xenstore::RemoveLeavingEntry(*services_.store, entry);
  if (!status.ok() && !absl::IsNotFound(status)) {
    Log(LogLevel::kError,
        absl::StrCat(name_, " device ", entry.number, ": removing its entry: ", status.message()));
  }
}

void BusControl::FinishRemoval(uint16_t number) {
  auto entry = devices_.find(number);
  if (entry == devices_.end() || !entry->second.leaving) return;
  // The entry goes when what it named is free, so that the same image can be attached again at
  // once.
  entry->second.state = DeviceState::kFailed;
  CloseElsewhere(entry->second);
  if (entry->second.closing) return;
  if (!entry->second.vanished) RemoveEntry(EntryOf(entry->second));
  Log(LogLevel::kInfo, absl::StrCat(name_, " device ", number, ": removed"));
  QuotaIsOver(entry->second);
  std::optional<xenstore::DeviceNodes> next = std::move(entry->second.next);
  devices_.erase(entry);
  if (next.has_value()) AddDevice(*next);
}

void BusControl::DevicesDetached() {
  std::vector<uint16_t> removed, waiting;
  for (auto& [number, device] : devices_) {
    if (device.state != DeviceState::kAttached && device.state != DeviceState::kWaiting) continue;
    if (device.leaving) {
      removed.push_back(number);
    } else if (device.state == DeviceState::kWaiting) {
      waiting.push_back(number);
    } else if (gone_ || stopping_ || !view_.online) {
      device.state = DeviceState::kFailed;  // nobody will want it again
      CloseElsewhere(device);
    } else {
      device.state = DeviceState::kOpened;
    }
  }
  for (uint16_t number : removed) FinishRemoval(number);
  // They may name what those named, which is closed in the same lane, before.
  for (uint16_t number : waiting) Open(number);
}

void BusControl::Report(DeviceControl& device, const absl::Status& status) {
  // Opened again for the next connection: nothing new.
  if (status.ok() && std::exchange(device.reported_ok, true)) return;
  if (!status.ok()) device.reported_ok = false;
  if (status.ok()) {
    Log(LogLevel::kInfo, absl::StrCat(name_, " device ", device.nodes.number, ": ",
                                      device.nodes.type, " connected"));
  } else {
    LogLine(LogLevel::kError,
            absl::StrCat("device ", device.nodes.number, " refused: ", status.message()));
  }
  if (gone_ || device.vanished) return;
  absl::Status reported = xenstore::ReportDevice(*services_.store, EntryOf(device), status);
  if (reported.ok() || absl::IsNotFound(reported)) return QuotaIsOver(device);
  LogLine(LogLevel::kError, absl::StrCat("device ", device.nodes.number,
                                         ": writing its status: ", reported.message()));
  // The bus's node for it is there already.
  if (!absl::IsResourceExhausted(reported)) return;
  device.quota_told = true;
  ReportError(xenstore::NodeQuotaError(reported));
}

void BusControl::NoteFound(DeviceControl& device) {
  absl::btree_map<std::string, std::string> fresh = device.opened->found_keys;
  absl::erase_if(fresh, [&](const auto& entry) {
    return device.nodes.keys.contains(entry.first) || device.nodes.found.contains(entry.first);
  });
  if (fresh.empty() || gone_ || device.vanished) return;
  absl::Status noted = xenstore::NoteFoundKeys(*services_.store, EntryOf(device), fresh);
  if (noted.ok()) {
    device.nodes.found.insert(fresh.begin(), fresh.end());
  } else if (!absl::IsNotFound(noted)) {
    LogLine(LogLevel::kError, absl::StrCat("device ", device.nodes.number,
                                           ": noting what was found out: ", noted.message()));
  }
}

void BusControl::CompareWithBefore(DeviceControl& device) {
  const std::string& now = device.opened->seen_as;
  if (now.empty() || gone_ || device.vanished) return;
  absl::StatusOr<std::string> before =
      xenstore::NoteOpenedAs(*services_.store, EntryOf(device), now);
  if (before.ok() && !before->empty() && *before != now) {
    Log(LogLevel::kWarning,
        absl::StrCat(name_, " device ", device.nodes.number, ": its image was a ", *before,
                     " when it was opened before, and is a ", now,
                     " now: replaced, or its size changed, while no vmsgd had it"));
  } else if (!before.ok() && !absl::IsNotFound(before.status())) {
    LogLine(LogLevel::kError,
            absl::StrCat("device ", device.nodes.number,
                         ": noting what was opened: ", before.status().message()));
  }
}

void BusControl::CloseElsewhere(DeviceControl& device) {
  if (!device.opened.has_value()) return;
  device.closing = true;
  ++closing_;
  // Closing a file can wait for its server, too.
  services_.workers->Submit(opening_lane(), [number = device.nodes.number, ticket = device.ticket,
                                             opened = *std::move(device.opened),
                                             loop = services_.loop, anchor = anchor_]() mutable {
    CloseDevice(std::move(opened));
    PostBack(loop, std::move(anchor),
             [number, ticket](BusControl& control) { control.OnClosed(number, ticket); });
  });
  device.opened.reset();
}

void BusControl::OnClosed(uint16_t number, uint64_t ticket) {
  --closing_;
  DeviceControl* const device = Find(number, ticket);
  if (device != nullptr && std::exchange(device->closing, false)) FinishRemoval(number);
  // The end of the bus may wait for it.
  Evaluate();
}

BusControl::Summary BusControl::Summarize() const {
  Summary summary{.connected = phase_ == Phase::kConnected, .refused = refused_ ? 1u : 0u};
  for (const auto& [number, device] : devices_) {
    switch (device.state) {
      case DeviceState::kOpened:
      case DeviceState::kAttached:
        ++summary.devices;
        break;
      case DeviceState::kFailed:
        if (!device.leaving) ++summary.refused;
        break;
      case DeviceState::kWaiting:
      case DeviceState::kOpening:
        break;
    }
  }
  return summary;
}

bool BusControl::QuotaIsMet() const {
  return std::any_of(devices_.begin(), devices_.end(),
                     [](const auto& entry) { return entry.second.quota_told; });
}

void BusControl::QuotaIsOver(DeviceControl& device) {
  if (!std::exchange(device.quota_told, false) || gone_ || QuotaIsMet()) return;
  xenstore::ClearBackendError(*services_.store, address_).IgnoreError();
}

bool BusControl::in_use() const {
  return phase_ == Phase::kConnected &&
         std::any_of(devices_.begin(), devices_.end(), [](const auto& entry) {
           return entry.second.state == DeviceState::kAttached;
         });
}

size_t BusControl::opening() const {
  return static_cast<size_t>(std::count_if(devices_.begin(), devices_.end(), [](const auto& entry) {
    return entry.second.state == DeviceState::kOpening ||
           (entry.second.state == DeviceState::kOpened && entry.second.lent);
  }));
}

}  // namespace vmsg::backend
