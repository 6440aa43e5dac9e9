// SPDX-License-Identifier: Apache-2.0
// The frontend's way through the states of a bus, step by step (docs/binding.md, sections 1 and 7):
// each step is one that the nodes of the store allow now.
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "xenstore/bus_nodes.h"

namespace vmsg::frontend {
namespace {

using xenstore::XenbusState;

constexpr uint32_t kBindingVersion = 1;
constexpr char kWatchToken[] = "backend";

// A directory that was removed: a guest may look into none of those above, so that xenstored does
// not tell it what is missing from what it may not see.
bool IsGone(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status);
}

}  // namespace

absl::StatusOr<XenbusState> BusConnection::BackendState() {
  absl::StatusOr<XenbusState> state = xenstore::ReadState(*parts_.store, address_.BackendPath());
  // A directory that is gone has nothing mapped.
  if (IsGone(state.status())) return XenbusState::kUnknown;
  return state;
}

absl::Status BusConnection::WriteState(XenbusState state) {
  return xenstore::WriteState(*parts_.store, address_.FrontendPath(), state);
}

std::string BusConnection::BackendReason() {
  for (const std::string& path :
       {absl::StrCat(address_.BackendPath(), "/", xenstore::kHotplugErrorNode),
        xenstore::BackendErrorPath(address_)}) {
    absl::StatusOr<std::string> reason = parts_.store->Read(path);
    if (reason.ok() && !reason->empty()) return *std::move(reason);
  }
  return "";
}

absl::Status BusConnection::CheckWanted() {
  const absl::Status own = xenstore::ReadState(*parts_.store, address_.FrontendPath()).status();
  if (IsGone(own)) return absl::UnavailableError("the bus was removed");
  if (!own.ok()) return own;
  absl::StatusOr<std::string> online =
      parts_.store->Read(absl::StrCat(address_.BackendPath(), "/", xenstore::kOnline));
  if (online.ok() && *online == "0") {
    return absl::UnavailableError("the administrator removes the bus");
  }
  return absl::OkStatus();
}

absl::Status BusConnection::WatchBackend() {
  const std::string backend = address_.BackendPath();
  if (watched_ == backend) return absl::OkStatus();
  if (watched_.empty()) {
    // Both are the toolstack's: the bus goes, or moves.
    absl::Status status = parts_.store->Watch(
        absl::StrCat(address_.FrontendPath(), "/", xenstore::kBackend), kWatchToken);
    if (!status.ok()) return status;
  }
  watched_ = backend;
  return parts_.store->Watch(absl::StrCat(backend, "/state"), kWatchToken);
}

absl::Status BusConnection::SleepOnStore(Deadline deadline) {
  pollfd ready = {.fd = parts_.store->fd(), .events = POLLIN};
  if (::poll(&ready, 1, PollTimeout(deadline)) < 0 && errno != EINTR) {
    return absl::ErrnoToStatus(errno, "poll on xenstore");
  }
  if (ready.revents == 0 && Clock::now() >= deadline) {
    return absl::DeadlineExceededError("nothing changed in xenstore");
  }
  return absl::OkStatus();
}

absl::Status BusConnection::Waited(XenbusState state) const {
  const char* what = "the backend to unmap (state 6)";
  if (phase_ == Phase::kAwaitOffer) what = "the backend's offer (state 2)";
  if (phase_ == Phase::kAwaitConnected) what = "the backend to connect (state 4)";
  return absl::DeadlineExceededError(absl::StrCat(
      "waited in vain for ", what, ": ", address_.BackendPath(), "/state is ",
      xenstore::StateName(state), ". Does vmsgd run in domain ", address_.backend, "?"));
}

absl::Status BusConnection::Connect() {
  // Each state is waited for; a backend that begins again and again is not.
  int more_waits = 3;
  Phase waiting_in = phase_;
  Deadline deadline = After(options_.timeout);
  while (phase_ != Phase::kConnected) {
    absl::StatusOr<std::vector<xenstore::WatchEvent>> events = parts_.store->TakeWatchEvents();
    if (!events.ok()) return events.status();
    absl::StatusOr<bool> stepped = Step();
    if (!stepped.ok()) return stepped.status();
    if (std::exchange(waiting_in, phase_) != phase_ && more_waits-- > 0) {
      deadline = After(options_.timeout);
    }
    if (phase_ == Phase::kConnected) break;
    if (*stepped && Clock::now() < deadline) continue;
    absl::Status slept = SleepOnStore(deadline);
    if (absl::IsDeadlineExceeded(slept)) {
      absl::StatusOr<XenbusState> state = BackendState();
      return state.ok() ? Waited(*state) : state.status();
    }
    if (!slept.ok()) return slept;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> BusConnection::Step() {
  absl::StatusOr<XenbusState> state = BackendState();
  if (!state.ok()) return state.status();
  if (*state == XenbusState::kUnknown && phase_ != Phase::kConnected) {
    // Another backend may have been made for this bus.
    absl::StatusOr<xenstore::BusAddress> address = xenstore::ReadOwnBus(*parts_.store, address_.id);
    if (address.ok() && address->BackendPath() != address_.BackendPath()) {
      if (memory_ != nullptr && address->backend != address_.backend) {
        return absl::UnavailableError(
            absl::StrCat("the bus has moved to a backend in domain ", address->backend,
                         ", and this program's memory is granted to domain ", address_.backend,
                         ": start it again"));
      }
      address_ = *address;
      state = BackendState();
      if (!state.ok()) return state.status();
    }
  }
  if (absl::Status status = WatchBackend(); !status.ok()) return status;
  switch (phase_) {
    case Phase::kAwaitOffer:
      return StepOffer(*state);
    case Phase::kAwaitConnected:
      return StepConnected(*state);
    case Phase::kAwaitUnmapped:
      return StepUnmapped(*state);
    case Phase::kIdle:
    case Phase::kConnected:
      break;
  }
  return false;
}

absl::StatusOr<bool> BusConnection::StepUnmapped(XenbusState state) {
  const bool unmapped = state == XenbusState::kClosed || state == XenbusState::kInitWait ||
                        state == XenbusState::kUnknown;
  if (!unmapped) {
    // Closing: it keeps what it has until it sees that we have ended, too.
    if (state != XenbusState::kClosing || std::exchange(said_closed_, true)) return false;
    absl::Status status = WriteState(XenbusState::kClosed);
    if (!status.ok()) return status;
    return true;
  }
  undecided_.clear();
  if (memory_ != nullptr) memory_->Thaw();
  if (bus_ != nullptr) bus_->Unmapped();
  // Back to 1: only then does it offer again.
  if (absl::Status status = WriteState(XenbusState::kInitialising); !status.ok()) return status;
  said_closed_ = false;
  phase_ = Phase::kAwaitOffer;
  return true;
}

absl::Status BusConnection::CheckOffer() {
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
  if (memory_ != nullptr && !offer_.queue_resume) {
    return absl::FailedPreconditionError(
        "the new backend does not offer feature-queue-resume, so it cannot go on with the queues "
        "of the old one: start this program again");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> BusConnection::StepOffer(XenbusState state) {
  if (state != XenbusState::kInitWait) return false;
  absl::StatusOr<xenstore::BackendOffer> offer = xenstore::ReadOffer(*parts_.store, address_);
  if (!offer.ok()) {
    // Taken back while it was read?
    absl::StatusOr<XenbusState> now = BackendState();
    if (now.ok() && *now != XenbusState::kInitWait) return true;
    return offer.status();
  }
  offer_ = *std::move(offer);
  if (absl::Status status = CheckOffer(); !status.ok()) return status;
  if (memory_ == nullptr || memory_->segments().empty() ||
      memory_->segments().front().first_page != 0) {
    // New, or in the place of one that was withdrawn.
    const bool hole = memory_ != nullptr && !memory_->segments().empty();
    const uint32_t pages = hole ? memory_->segments().front().first_page : options_.pages;
    if (window_.pages() != pages) {
      absl::StatusOr<GuestMemory::Grant> window =
          GuestMemory::Share(*parts_.sharer, address_.backend, pages);
      if (!window.ok()) return window.status();
      window_ = *std::move(window);
    }
  } else {
    absl::StatusOr<grants::SharedPages> directory =
        memory_->ListAgain(*parts_.sharer, address_.backend, 0);
    if (!directory.ok()) return directory.status();
    directory_ = *std::move(directory);
  }
  if (absl::Status status = CreateRing(); !status.ok()) return status;
  if (absl::Status status = Publish(); !status.ok()) return status;
  phase_ = Phase::kAwaitConnected;
  return true;
}

RingTerms BusConnection::Terms() const {
  return {.suppression = options_.ring_event_idx && offer_.ring_event_idx,
          .max_message_size = std::min(options_.message_size, offer_.max_message_size)};
}

absl::Status BusConnection::CreateRing() {
  if (interface_page_.refs().empty()) {
    absl::StatusOr<grants::SharedPages> page =
        parts_.sharer->Share(address_.backend, 1, grants::Access::kReadWrite);
    if (!page.ok()) return page.status();
    interface_page_ = *std::move(page);
  }
  if (ring_pages_.refs().empty()) {
    absl::StatusOr<grants::SharedPages> data = parts_.sharer->Share(
        address_.backend, size_t{1} << options_.ring_order, grants::Access::kReadWrite);
    if (!data.ok()) return data.status();
    ring_pages_ = *std::move(data);
  }
  std::memset(interface_page_.bytes().data(), 0, interface_page_.bytes().size());
  auto* const shared = reinterpret_cast<wire::RingInterface*>(interface_page_.bytes().data());
  shared->ring_order = options_.ring_order;
  std::copy(ring_pages_.refs().begin(), ring_pages_.refs().end(), shared->ref);

  if (port_.has_value()) parts_.events->Unbind(*port_).IgnoreError();
  port_.reset();
  absl::StatusOr<grants::EventPort> port = parts_.events->AllocateUnbound(address_.backend);
  if (!port.ok()) return port.status();
  port_ = *port;
  if (bus_ != nullptr) return absl::OkStatus();
  bus_ = std::make_unique<FrontendBus>(RingMemory{shared, ring_pages_.bytes()}, Terms(),
                                       parts_.events.get(), *port);
  if (options_.queue_resume && offer_.queue_resume) bus_->SetRecovery(this);
  return absl::OkStatus();
}

absl::Status BusConnection::Publish() {
  const bool again = !directory_.refs().empty();
  xenstore::FrontendRequest request;
  request.version = kBindingVersion;
  request.message_size = static_cast<uint32_t>(Terms().max_message_size);
  request.ring_ref = interface_page_.refs().front();
  request.event_channel = *port_;
  request.directory_ref = again ? directory_.refs().front() : window_.directory_ref();
  request.directory_pages = again ? memory_->segments().front().pages : window_.pages();
  request.ring_event_idx = Terms().suppression;
  request.queue_resume = options_.queue_resume && offer_.queue_resume;
  return xenstore::WriteRequest(*parts_.store, address_, request);
}

absl::StatusOr<bool> BusConnection::StepConnected(XenbusState state) {
  if (state == XenbusState::kClosing || state == XenbusState::kClosed ||
      state == XenbusState::kUnknown) {
    const std::string reason = BackendReason();
    if (!reason.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("the backend refused the bus: ", reason));
    }
    // It ended before it could answer.
    phase_ = Phase::kAwaitUnmapped;
    return true;
  }
  if (state != XenbusState::kConnected) return false;
  if (absl::Status status = WriteState(XenbusState::kConnected); !status.ok()) return status;
  directory_ = {};
  if (memory_ == nullptr) {
    memory_ = std::make_unique<GuestMemory>();
    absl::Status status = memory_->AddSegment(0, std::exchange(window_, {}));
    if (!status.ok()) return status;
  }
  phase_ = Phase::kConnected;
  bus_->Restored(Terms(), *port_);
  return true;
}

absl::Status BusConnection::WaitUntilUnmapped() {
  const Deadline deadline = After(options_.timeout);
  for (;;) {
    absl::StatusOr<std::vector<xenstore::WatchEvent>> events = parts_.store->TakeWatchEvents();
    if (!events.ok()) return events.status();
    absl::StatusOr<XenbusState> state = BackendState();
    if (!state.ok()) return state.status();
    // Before its 4, a backend at 2 may be mapping what we published.
    if (*state == XenbusState::kClosed || *state == XenbusState::kUnknown ||
        (*state == XenbusState::kInitWait && phase_ != Phase::kAwaitConnected)) {
      return absl::OkStatus();
    }
    if (*state == XenbusState::kClosing && !std::exchange(said_closed_, true)) {
      if (absl::Status status = WriteState(XenbusState::kClosed); !status.ok()) return status;
      continue;
    }
    absl::Status slept = SleepOnStore(deadline);
    if (absl::IsDeadlineExceeded(slept)) {
      phase_ = Phase::kAwaitUnmapped;
      return Waited(*state);
    }
    if (!slept.ok()) return slept;
  }
}

}  // namespace vmsg::frontend
