// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/bus_connection.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grants/directory.h"
#include "xenstore/bus_nodes.h"

namespace vmsg::frontend {
namespace {

using xenstore::XenbusState;

constexpr uint32_t kBindingVersion = 1;
constexpr char kWatchToken[] = "backend-state";

// A directory that was removed: a guest may look into none of those above, so that xenstored does
// not tell it what is missing from what it may not see.
bool IsGone(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BusConnection>> BusConnection::Open(grants::Platform& platform,
                                                                   const ConnectOptions& options) {
  ConnectionParts parts;
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore(platform.store_socket());
  if (!store.ok()) return store.status();
  parts.store = *std::move(store);
  absl::StatusOr<std::unique_ptr<grants::GrantSharer>> sharer = platform.OpenGrantSharer();
  if (!sharer.ok()) return sharer.status();
  parts.sharer = *std::move(sharer);
  absl::StatusOr<std::unique_ptr<grants::EventChannels>> events = platform.OpenEventChannels();
  if (!events.ok()) return events.status();
  parts.events = *std::move(events);
  return Open(std::move(parts), options);
}

absl::StatusOr<std::unique_ptr<BusConnection>> BusConnection::Open(ConnectionParts parts,
                                                                   const ConnectOptions& options) {
  if (options.ring_order == 0 || options.ring_order > wire::kMaxRingOrder) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring order ", options.ring_order, ", not 1 to ", wire::kMaxRingOrder));
  }
  std::unique_ptr<BusConnection> connection(new BusConnection(std::move(parts), options));
  absl::StatusOr<xenstore::BusAddress> address =
      xenstore::ReadOwnBus(*connection->parts_.store, options.bus_id);
  if (!address.ok()) return address.status();
  connection->address_ = *address;
  if (absl::Status status = connection->Handshake(); !status.ok()) return status;
  return connection;
}

BusConnection::~BusConnection() { Close().IgnoreError(); }

absl::StatusOr<XenbusState> BusConnection::BackendState() {
  absl::StatusOr<XenbusState> state = xenstore::ReadState(*parts_.store, address_.BackendPath());
  // A directory that is gone has nothing mapped.
  if (IsGone(state.status())) return XenbusState::kUnknown;
  return state;
}

std::string BusConnection::BackendReason() {
  for (const std::string& path :
       {absl::StrCat(address_.BackendPath(), "/", xenstore::kHotplugErrorNode),
        xenstore::BackendErrorPath(address_)}) {
    absl::StatusOr<std::string> reason = parts_.store->Read(path);
    if (reason.ok() && !reason->empty()) return *std::move(reason);
  }
  return "it gave no reason";
}

absl::StatusOr<XenbusState> BusConnection::WaitForBackend(
    absl::FunctionRef<bool(XenbusState)> wanted, absl::string_view what) {
  const Deadline deadline = After(options_.timeout);
  for (;;) {
    absl::StatusOr<std::vector<xenstore::WatchEvent>> events = parts_.store->TakeWatchEvents();
    if (!events.ok()) return events.status();
    absl::StatusOr<XenbusState> state = BackendState();
    if (!state.ok() || wanted(*state)) return state;
    pollfd ready = {.fd = parts_.store->fd(), .events = POLLIN};
    if (::poll(&ready, 1, PollTimeout(deadline)) < 0 && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "poll on xenstore");
    }
    if (ready.revents == 0 && Clock::now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "waited in vain for ", what, ": ", address_.BackendPath(), "/state is ",
          xenstore::StateName(*state), ". Does vmsgd run in domain ", address_.backend, "?"));
    }
  }
}

absl::Status BusConnection::BackendClosed(XenbusState state) {
  return absl::UnavailableError(absl::StrCat("the backend closed the bus (",
                                             xenstore::StateName(state), "): ", BackendReason()));
}

absl::Status BusConnection::CreateRing() {
  absl::StatusOr<grants::SharedPages> page =
      parts_.sharer->Share(address_.backend, 1, grants::Access::kReadWrite);
  if (!page.ok()) return page.status();
  interface_page_ = *std::move(page);
  absl::StatusOr<grants::SharedPages> data = parts_.sharer->Share(
      address_.backend, size_t{1} << options_.ring_order, grants::Access::kReadWrite);
  if (!data.ok()) return data.status();
  ring_pages_ = *std::move(data);
  auto* const shared = reinterpret_cast<wire::RingInterface*>(interface_page_.bytes().data());
  shared->ring_order = options_.ring_order;
  std::copy(ring_pages_.refs().begin(), ring_pages_.refs().end(), shared->ref);

  absl::StatusOr<grants::EventPort> port = parts_.events->AllocateUnbound(address_.backend);
  if (!port.ok()) return port.status();
  port_ = *port;
  const RingTerms terms = {
      .suppression = options_.ring_event_idx && offer_.ring_event_idx,
      .max_message_size = std::min(options_.message_size, offer_.max_message_size)};
  bus_ = std::make_unique<FrontendBus>(RingMemory{shared, ring_pages_.bytes()}, terms,
                                       parts_.events.get(), *port);
  return absl::OkStatus();
}

absl::Status BusConnection::PublishRequest(const GuestMemory::Grant& window) {
  xenstore::FrontendRequest request;
  request.version = kBindingVersion;
  request.message_size = static_cast<uint32_t>(bus_->link().max_message_size());
  request.ring_ref = interface_page_.refs().front();
  request.event_channel = *port_;
  request.directory_ref = window.directory_ref();
  request.directory_pages = window.pages();
  request.ring_event_idx = options_.ring_event_idx && offer_.ring_event_idx;
  return xenstore::WriteRequest(*parts_.store, address_, request);
}

absl::Status BusConnection::Handshake() {
  xenstore::Store& store = *parts_.store;
  if (!watching_) {
    absl::Status status = store.Watch(absl::StrCat(address_.BackendPath(), "/state"), kWatchToken);
    if (!status.ok()) return status;
    watching_ = true;
  }
  // A state left by a connection that ended, or by a frontend that died in one: start over.
  absl::StatusOr<XenbusState> ours = xenstore::ReadState(store, address_.FrontendPath());
  if (!ours.ok()) return ours.status();
  if (*ours != XenbusState::kInitialising) {
    absl::Status status =
        xenstore::WriteState(store, address_.FrontendPath(), XenbusState::kInitialising);
    if (!status.ok()) return status;
  }
  absl::StatusOr<XenbusState> state = WaitForBackend(
      [](XenbusState s) { return s == XenbusState::kInitWait; }, "the backend's offer (state 2)");
  if (!state.ok()) return state.status();

  absl::StatusOr<xenstore::BackendOffer> offer = xenstore::ReadOffer(store, address_);
  if (!offer.ok()) return offer.status();
  offer_ = *std::move(offer);
  if (std::find(offer_.versions.begin(), offer_.versions.end(), kBindingVersion) ==
      offer_.versions.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the backend does not offer version ", kBindingVersion, " of the binding"));
  }
  if (options_.pages > offer_.max_window_pages || options_.ring_order > offer_.max_ring_order) {
    return absl::FailedPreconditionError(
        absl::StrCat("a window of ", options_.pages, " pages and ring order ", options_.ring_order,
                     " were asked for; the backend allows ", offer_.max_window_pages, " and ",
                     offer_.max_ring_order));
  }
  absl::StatusOr<GuestMemory::Grant> window =
      GuestMemory::Share(*parts_.sharer, address_.backend, options_.pages);
  if (!window.ok()) return window.status();
  if (absl::Status status = CreateRing(); !status.ok()) {
    Abandon();
    return status;
  }
  memory_ = std::make_unique<GuestMemory>();
  open_ = true;
  absl::Status status = PublishRequest(*window);
  if (status.ok()) {
    state = WaitForBackend(
        [](XenbusState s) {
          return s == XenbusState::kConnected || s == XenbusState::kClosing ||
                 s == XenbusState::kClosed || s == XenbusState::kUnknown;
        },
        "the backend to connect (state 4)");
    status = state.status();
    if (status.ok() && *state != XenbusState::kConnected) {
      status = absl::FailedPreconditionError(
          absl::StrCat("the backend refused the bus: ", BackendReason()));
    }
  }
  if (status.ok()) {
    status = xenstore::WriteState(store, address_.FrontendPath(), XenbusState::kConnected);
  }
  if (status.ok()) status = memory_->AddSegment(0, *std::move(window));
  if (!status.ok()) {
    xenstore::ReportFrontendError(store, address_, status).IgnoreError();
    Close().IgnoreError();
    return status;
  }
  bus_->AddFd(store.fd(), [this] { return OnStoreEvent(); });
  xenstore::ClearFrontendError(store, address_).IgnoreError();  // an earlier one's
  return absl::OkStatus();
}

absl::Status BusConnection::OnStoreEvent() {
  absl::StatusOr<std::vector<xenstore::WatchEvent>> events = parts_.store->TakeWatchEvents();
  if (!events.ok()) return events.status();
  absl::StatusOr<XenbusState> state = BackendState();
  if (!state.ok()) return state.status();
  // 2: a backend that was killed and came back without its old connection.
  const bool connected = *state == XenbusState::kConnected;
  return connected ? absl::OkStatus() : BackendClosed(*state);
}

absl::Status BusConnection::Close() {
  if (!std::exchange(open_, false)) {
    Abandon();
    return absl::OkStatus();
  }
  xenstore::Store& store = *parts_.store;
  const auto gone = [](XenbusState s) {
    return s == XenbusState::kClosed || s == XenbusState::kUnknown;
  };
  absl::Status status = xenstore::WriteState(store, address_.FrontendPath(), XenbusState::kClosing);
  if (status.ok()) {
    status = WaitForBackend([&](XenbusState s) { return s == XenbusState::kClosing || gone(s); },
                            "the backend to come to rest (state 5)")
                 .status();
  }
  if (status.ok()) {
    status = xenstore::WriteState(store, address_.FrontendPath(), XenbusState::kClosed);
  }
  if (status.ok()) status = WaitForBackend(gone, "the backend to unmap (state 6)").status();
  Abandon();
  // Without a frontend directory there is nothing left to report a state to.
  return IsGone(status) ? absl::OkStatus() : status;
}

void BusConnection::Abandon() {
  if (bus_ != nullptr) bus_->RemoveFd(parts_.store->fd());
  bus_.reset();
  memory_.reset();
  undecided_.clear();
  ring_pages_.Reset();
  interface_page_.Reset();
  if (port_.has_value()) parts_.events->Unbind(*port_).IgnoreError();
  port_.reset();
}

absl::Status BusConnection::Reconnect() {
  if (absl::Status status = Close(); !status.ok()) return status;
  return Handshake();
}

}  // namespace vmsg::frontend
