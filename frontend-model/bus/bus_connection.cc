// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/bus_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "xenstore/bus_nodes.h"

namespace vmsg::frontend {
namespace {

using xenstore::XenbusState;

}  // namespace

absl::StatusOr<std::unique_ptr<BusConnection>> BusConnection::Open(grants::Platform& platform,
                                                                   const ConnectOptions& options) {
  ConnectionParts parts;
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore(platform.store_socket());
  if (!store.ok()) return store.status();
  parts.store = *std::move(store);
  // Before the claim: a bus that does not exist is nobody's.
  absl::StatusOr<xenstore::BusAddress> address = xenstore::ReadOwnBus(*parts.store, options.bus_id);
  if (!address.ok()) return address.status();
  absl::StatusOr<BusClaim> claim = BusClaim::Take(ClaimPlaces::Of(platform), options.bus_id);
  if (!claim.ok()) return claim.status();
  parts.claim = *std::move(claim);
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
  if (absl::Status status = connection->Reconnect(); !status.ok()) return status;
  return connection;
}

BusConnection::~BusConnection() { Close().IgnoreError(); }

absl::Status BusConnection::Reconnect() {
  if (absl::Status status = Close(); !status.ok()) return status;
  // A state left by a connection that ended, or by a frontend that died in one: start over.
  absl::StatusOr<XenbusState> ours = xenstore::ReadState(*parts_.store, address_.FrontendPath());
  if (!ours.ok()) return ours.status();
  if (*ours != XenbusState::kInitialising) {
    if (absl::Status status = WriteState(XenbusState::kInitialising); !status.ok()) return status;
  }
  phase_ = Phase::kAwaitOffer;
  if (absl::Status status = Connect(); !status.ok()) {
    if (phase_ != Phase::kAwaitOffer) {
      xenstore::ReportFrontendError(*parts_.store, address_, status).IgnoreError();
    }
    Close().IgnoreError();
    return status;
  }
  bus_->AddFd(parts_.store->fd(), [this] { return OnStoreEvent(); });
  xenstore::ClearFrontendError(*parts_.store, address_).IgnoreError();  // an earlier one's
  return absl::OkStatus();
}

absl::Status BusConnection::Close() {
  const Phase phase = phase_;
  absl::Status status;
  // Before the offer was answered nobody has anything of ours.
  if (phase == Phase::kIdle || phase == Phase::kAwaitOffer) {
    phase_ = Phase::kIdle;
    Abandon();
    return status;
  }
  if (!said_closed_) status = WriteState(XenbusState::kClosing);
  if (status.ok()) status = WaitUntilUnmapped();
  if (status.ok() && !said_closed_) status = WriteState(XenbusState::kClosed);
  phase_ = Phase::kIdle;
  said_closed_ = false;
  Abandon();
  // Without a frontend directory there is nothing left to report a state to.
  const bool gone = absl::IsNotFound(status) || absl::IsPermissionDenied(status);
  return gone ? absl::OkStatus() : status;
}

void BusConnection::Abandon() {
  if (bus_ != nullptr) bus_->RemoveFd(parts_.store->fd());
  bus_.reset();
  memory_.reset();
  window_ = {};
  directory_ = {};
  undecided_.clear();
  ring_pages_ = {};
  interface_page_ = {};
  if (port_.has_value()) parts_.events->Unbind(*port_).IgnoreError();
  port_.reset();
}

void BusConnection::Notice(absl::string_view text) const {
  if (options_.notice) options_.notice(absl::StrCat("bus ", address_.id, ": ", text));
}

absl::Status BusConnection::OnStoreEvent() {
  absl::StatusOr<std::vector<xenstore::WatchEvent>> events = parts_.store->TakeWatchEvents();
  if (!events.ok()) return events.status();
  // Otherwise the recovery looks itself.
  if (phase_ != Phase::kConnected) return absl::OkStatus();
  absl::StatusOr<XenbusState> state = BackendState();
  if (!state.ok()) return state.status();
  if (*state == XenbusState::kConnected) return absl::OkStatus();
  const std::string reason = BackendReason();
  const std::string text =
      absl::StrCat("the backend closed the bus (", xenstore::StateName(*state), ")");
  const bool resumable = options_.queue_resume && offer_.queue_resume;
  if (!resumable || !reason.empty()) {
    return absl::UnavailableError(
        absl::StrCat(text, ": ", reason.empty() ? "it gave no reason" : reason));
  }
  if (absl::Status wanted = CheckWanted(); !wanted.ok()) return wanted;
  phase_ = Phase::kAwaitUnmapped;
  give_up_ =
      options_.patience == Clock::duration::max() ? Deadline::max() : After(options_.patience);
  Notice(absl::StrCat(text, "; waiting for vmsgd in domain ", address_.backend,
                      ", what is in flight goes on then"));
  bus_->Lose(absl::UnavailableError(text));
  return absl::OkStatus();
}

absl::StatusOr<bool> BusConnection::Recover() {
  if (absl::Status wanted = CheckWanted(); !wanted.ok()) return wanted;
  for (;;) {
    absl::StatusOr<bool> stepped = Step();
    if (!stepped.ok()) {
      // In the middle of a step the toolstack may have removed the bus.
      absl::Status wanted = CheckWanted();
      return wanted.ok() ? stepped.status() : wanted;
    }
    if (*stepped) continue;
    if (phase_ == Phase::kConnected) return true;
    if (Clock::now() < give_up_) return false;
    absl::StatusOr<XenbusState> state = BackendState();
    return state.ok() ? Waited(*state) : state.status();
  }
}

void BusConnection::OnRestored(std::span<const uint16_t> absent) {
  if (absent.empty()) return Notice("connected again");
  // Opened in a moment, or not at all: the reason is where its entry is.
  Notice(absl::StrCat("connected again; waiting for device ", absl::StrJoin(absent, ", "),
                      ", which is not there yet: `vmsgctl list` in domain ", address_.backend,
                      " shows why if it does not come"));
}

}  // namespace vmsg::frontend
