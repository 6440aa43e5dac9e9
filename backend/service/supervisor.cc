// SPDX-License-Identifier: Apache-2.0
#include "backend/service/supervisor.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/session/map_bus.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::backend {
namespace {

// An orderly end waits this long for I/O in flight; then the kernel unmaps.
constexpr absl::Duration kStopLimit = absl::Seconds(10);
// How long the control thread waits for the trace's disk, at the start and at a reload.
constexpr absl::Duration kTracePatience = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Start(
    EventLoop* loop, grants::Platform& platform, const ServiceOptions& options,
    absl::AnyInvocable<void(absl::Status)> stopped) {
  auto self = std::unique_ptr<Supervisor>(new Supervisor(loop, std::move(stopped)));
  self->max_window_pages_ = options.max_window_pages;
  BusServices& services = self->services_;
  services.trace = std::make_shared<Trace>();
  if (absl::Status traced = services.trace->Use(options.trace, kTracePatience); !traced.ok()) {
    // A mistake is the administrator's to repair; a disk that is full or hangs is no reason to keep
    // the guests' disks from them.
    if (absl::IsInvalidArgument(traced)) return traced;
    Log(LogLevel::kError, traced.message());
  }
  absl::StatusOr<std::unique_ptr<grants::GrantMapper>> mapper = platform.OpenGrantMapper();
  if (!mapper.ok()) return mapper.status();
  self->mapper_ = *std::move(mapper);
  for (size_t i = 0; i < options.io_threads; ++i) {
    absl::StatusOr<std::unique_ptr<grants::EventChannels>> channels = platform.OpenEventChannels();
    if (!channels.ok()) return channels.status();
    absl::StatusOr<std::unique_ptr<IoThread>> thread =
        IoThread::Start(*std::move(channels), options.spin, options.keeps);
    if (!thread.ok()) return thread.status();
    self->threads_.push_back(*std::move(thread));
  }
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore(platform.store_socket());
  if (!store.ok()) return store.status();
  self->store_ = *std::move(store);
  absl::StatusOr<uint16_t> domain = xenstore::OwnDomain(*self->store_);
  if (!domain.ok()) return domain.status();
  self->self_ = *domain;
  self->workers_ = std::make_unique<WorkerPool>();
  services.store = self->store_.get();
  services.loop = loop;
  services.workers = self->workers_.get();
  services.mapper = self->mapper_.get();
  services.bounce =
      options.bounce == ServiceOptions::Bounce::kOn ||
      (options.bounce == ServiceOptions::Bounce::kAuto && platform.unmapping_is_unsafe_during_io());
  Log(LogLevel::kInfo,
      absl::StrCat("disk requests ",
                   services.bounce ? "are copied (bounce)" : "name the guests' pages (no bounce)"));
  services.offer.max_message_size = wire::kMaxMessageSize;
  services.offer.max_window_pages = options.max_window_pages;
  services.offer.max_ring_order = RingLimits::kMaxOrder;
  services.choose_thread = [raw = self.get()] {
    return std::min_element(raw->threads_.begin(), raw->threads_.end(),
                            [](const auto& a, const auto& b) { return a->sessions < b->sessions; })
        ->get();
  };
  absl::StatusOr<std::unique_ptr<xenstore::BusDiscovery>> discovery =
      xenstore::BusDiscovery::Start(self->store_.get(), self.get(), *domain);
  if (!discovery.ok()) return discovery.status();
  self->discovery_ = *std::move(discovery);
  self->domain_check_ = std::make_unique<DomainCheck>(DomainCheck::Parts{
      .loop = loop,
      .workers = self->workers_.get(),
      .domains = platform.OpenDomainList(),
      .interval = options.domain_check_interval,
      .guests = [raw = self.get()] { return raw->discovery_->Frontends(); },
      .label =
          [raw = self.get()](uint16_t guest) { return xenstore::GuestLabel(*raw->store_, guest); },
      .ended =
          [raw = self.get()](uint16_t guest) {
            raw->discovery_->EndDomain(guest);
            raw->ProcessLater();
          }});
  absl::Status watch =
      loop->Watch(self->store_->fd(), EPOLLIN, [raw = self.get()](uint32_t) { raw->Process(); });
  if (!watch.ok()) return watch;
  self->ProcessLater();
  absl::StatusOr<std::vector<std::unique_ptr<StoreThread>>> toolstack =
      StartToolstackThreads(platform, options.toolstack, *domain);
  if (!toolstack.ok()) return toolstack.status();
  self->toolstack_ = *std::move(toolstack);
  return self;
}

Supervisor::~Supervisor() {
  *alive_ = false;
  if (stop_limit_ != 0) loop_->Cancel(stop_limit_);
  if (store_ != nullptr) loop_->Unwatch(store_->fd());
  toolstack_.clear();
  domain_check_.reset();
  discovery_.reset();
  buses_.clear();
  workers_.reset();
  threads_.clear();
}

void Supervisor::ProcessLater() {
  if (std::exchange(processing_later_, true)) return;
  loop_->Post([this, alive = alive_] {
    if (!*alive) return;
    processing_later_ = false;
    Process();
  });
}

void Supervisor::Process() {
  absl::StatusOr<bool> more = discovery_->Process();
  if (!more.ok()) return Finish(more.status());
  domain_check_->SetNeeded(discovery_->bus_count() > 0);
  if (*more) ProcessLater();
  // Every change of a bus or a device is written to the store, and so comes by here.
  if (changed_ != nullptr) changed_();
}

BusControl* Supervisor::Find(const xenstore::BusAddress& bus) {
  auto entry = buses_.find(bus);
  return entry == buses_.end() ? nullptr : entry->second.get();
}

std::shared_ptr<PageBudget> Supervisor::BudgetOf(uint16_t frontend) {
  std::shared_ptr<PageBudget> budget = budgets_[frontend].lock();
  if (budget == nullptr) {
    budget = std::make_shared<PageBudget>(max_window_pages_);
    budgets_[frontend] = budget;
  }
  return budget;
}

void Supervisor::OnBusAppeared(const xenstore::BusAddress& bus, const xenstore::BusView& view) {
  if (stopping_) return;
  auto [entry, fresh] = buses_.try_emplace(bus);
  if (fresh) {
    entry->second = std::make_unique<BusControl>(services_, bus, BudgetOf(bus.frontend),
                                                 [this, bus] { Forget(bus); });
  }
  entry->second->Reappear(view);
}

void Supervisor::Forget(const xenstore::BusAddress& bus) {
  // The caller is the bus itself.
  loop_->Post([this, alive = alive_, bus] {
    if (!*alive) return;
    buses_.erase(bus);
    absl::erase_if(budgets_, [](const auto& entry) { return entry.second.expired(); });
    if (stopping_ && buses_.empty()) return Finish(absl::OkStatus());
    // What was refused perhaps named an image of this bus: a migrated guest's does, which is
    // attached for the new domain while the old one still has it.
    if (Summarize().refused > 0) TryRefusedAgain();
  });
}

void Supervisor::OnBusChanged(const xenstore::BusAddress& bus, const xenstore::BusView& view) {
  if (BusControl* control = Find(bus)) control->Update(view);
}

void Supervisor::OnBusVanished(const xenstore::BusAddress& bus) {
  if (BusControl* control = Find(bus)) control->Vanish();
}

void Supervisor::OnDeviceAdded(const xenstore::BusAddress& bus,
                               const xenstore::DeviceNodes& device) {
  if (BusControl* control = Find(bus)) control->AddDevice(device);
}

void Supervisor::OnDeviceRemovalRequested(const xenstore::BusAddress& bus, uint16_t number,
                                          bool force) {
  if (BusControl* control = Find(bus)) control->RemoveDevice(number, force);
}

void Supervisor::OnDeviceVanished(const xenstore::BusAddress& bus, uint16_t number) {
  if (BusControl* control = Find(bus)) control->DeviceVanished(number);
}

void Supervisor::OnDeviceRefused(const xenstore::BusAddress& bus, const std::string& name,
                                 const absl::Status& reason) {
  Log(LogLevel::kError, absl::StrCat(xenstore::GuestLabel(*store_, bus.frontend), " bus ", bus.id,
                                     " device entry ", name, ": refused: ", reason.message()));
  (void)xenstore::ReportDevice(*store_, bus, name, reason);
}

void Supervisor::OnBusRefused(const std::string& path, const absl::Status& reason) {
  const absl::StatusOr<xenstore::BusAddress> bus =
      xenstore::ParseBackendPath(absl::StrCat("/local/domain/", self_, "/", path));
  Log(LogLevel::kError,
      absl::StrCat(bus.ok() ? xenstore::GuestLabel(*store_, bus->frontend) : "a guest", ": ", path,
                   ": refused: ", reason.message()));
  if (!bus.ok()) return;
  // The guest and the administrator are told; the bus is looked at again when there is room.
  xenstore::ReportBackendError(*store_, *bus, reason).IgnoreError();
  for (const xenstore::XenbusState state :
       {xenstore::XenbusState::kClosing, xenstore::XenbusState::kClosed}) {
    xenstore::WriteState(*store_, bus->BackendPath(), state).IgnoreError();
  }
}

void Supervisor::Stop() {
  if (std::exchange(stopping_, true)) {
    return Finish(absl::DeadlineExceededError("asked to stop again before all buses had ended"));
  }
  if (buses_.empty()) return Finish(absl::OkStatus());
  stop_limit_ = loop_->RunAfter(kStopLimit, [this] {
    stop_limit_ = 0;
    Finish(absl::DeadlineExceededError(
        absl::StrCat(buses_.size(), " buses did not end in ", absl::FormatDuration(kStopLimit))));
  });
  for (auto& [address, control] : buses_) control->Stop();
}

void Supervisor::Finish(absl::Status status) {
  if (stopped_ != nullptr) std::exchange(stopped_, nullptr)(std::move(status));
}

void Supervisor::LogCounters() {
  for (auto& [address, control] : buses_) control->LogCounters();
}

absl::Status Supervisor::Reconfigure(const ServiceOptions& options) {
  max_window_pages_ = options.max_window_pages;
  services_.offer.max_window_pages = options.max_window_pages;
  for (auto& thread : threads_) thread->SetSpinLimits(options.spin);
  return services_.trace->Use(options.trace, kTracePatience);
}

size_t Supervisor::TryRefusedAgain() {
  if (stopping_) return 0;
  const size_t count = discovery_->TryRefusedAgain();
  if (count > 0) ProcessLater();
  return count;
}

Supervisor::Summary Supervisor::Summarize() const {
  Summary summary{.buses = buses_.size()};
  for (const auto& [address, control] : buses_) {
    const BusControl::Summary bus = control->Summarize();
    summary.connected += bus.connected ? 1 : 0;
    summary.devices += bus.devices;
    summary.refused += bus.refused;
  }
  return summary;
}

std::vector<size_t> Supervisor::HangingThreads() {
  std::vector<size_t> hanging;
  turns_seen_.resize(threads_.size());
  for (size_t i = 0; i < threads_.size(); ++i) {
    const LoopProgress progress = threads_[i]->progress();
    const bool got_on = std::exchange(turns_seen_[i], progress.turns) != progress.turns;
    if (!got_on && !progress.sleeping) hanging.push_back(i);
  }
  return hanging;
}

}  // namespace vmsg::backend
