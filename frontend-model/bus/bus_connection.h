// SPDX-License-Identifier: Apache-2.0
// One bus instance from the frontend's side: the handshake in xenstore, the granted ring and
// window, and their end (docs/binding.md, sections 1 and 4).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/claim/bus_claim.h"
#include "frontend-model/bus/deadline.h"
#include "frontend-model/bus/frontend_bus.h"
#include "frontend-model/memory/guest_memory.h"
#include "grants/event_channels.h"
#include "grants/grant_sharer.h"
#include "grants/platform.h"
#include "xenstore/bus_offer.h"
#include "xenstore/store.h"

namespace vmsg::frontend {

struct ConnectOptions {
  uint32_t bus_id = 0;
  // Window. The default leaves room for the ring under gntalloc's default limit of 1024 pages.
  uint32_t pages = 1000;
  uint32_t ring_order = 2;  // 2^order data pages, both directions together
  bool ring_event_idx = true;
  uint32_t message_size = wire::kMaxMessageSize;
  bool queue_resume = true;
  Clock::duration timeout = std::chrono::seconds(10);  // for each wait on the backend's state
  // How long a backend that is gone is waited for, with queue_resume. max(): until there is one.
  Clock::duration patience = std::chrono::minutes(5);
  // What a person at the program should know: that a backend is waited for, that it is back.
  std::function<void(absl::string_view)> notice;
};

// What a connection stands on; from a Platform, or from a test.
struct ConnectionParts {
  std::unique_ptr<xenstore::Store> store;
  std::unique_ptr<grants::GrantSharer> sharer;
  std::unique_ptr<grants::EventChannels> events;
  BusClaim claim;  // of a test: none
};

// Not thread-safe. A backend that goes without giving a reason is waited for, and its successor
// given what this one had (docs/binding.md, section 7): in the bus's loop, so that drivers see a
// pause.
class BusConnection final : private BusRecovery {
 public:
  // Claims the bus and takes it through the states 2, 3, 4. NotFound: the domain has no such bus.
  // FailedPrecondition: the backend refused, with its reason, or offers less than is asked for.
  // DeadlineExceeded: it did not react. Unavailable: another program, or the kernel, has the bus.
  static absl::StatusOr<std::unique_ptr<BusConnection>> Open(grants::Platform& platform,
                                                             const ConnectOptions& options);
  static absl::StatusOr<std::unique_ptr<BusConnection>> Open(ConnectionParts parts,
                                                             const ConnectOptions& options);
  // Closes, without a report if that fails.
  ~BusConnection() override;

  // State 5, waits for the backend's 5, then state 6, waits for its 6 (its directory gone counts,
  // too), then the end of the grants. On an error the grants end nevertheless when this is
  // destroyed. Clients and drivers of the bus must be gone.
  absl::Status Close();
  // Connects again after Close, or after the backend closed the bus.
  absl::Status Reconnect();

  FrontendBus& bus() { return *bus_; }
  GuestMemory& memory() { return *memory_; }
  const xenstore::BusAddress& address() const { return address_; }
  const xenstore::BackendOffer& offer() const { return offer_; }

  // WINDOW_EXTEND: the new segment's first page; its memory is in memory() then.
  absl::StatusOr<uint32_t> ExtendWindow(uint32_t pages, Deadline deadline);
  // WINDOW_WITHDRAW of a whole segment, all of whose blocks are free. Its grants end.
  absl::Status WithdrawWindow(uint32_t first_page, uint32_t pages, Deadline deadline);

 private:
  // Where the connection is. All but kIdle: there are nodes of ours that a backend may have taken.
  enum class Phase : uint8_t {
    kIdle,
    kAwaitOffer,      // ours is 1
    kAwaitConnected,  // ours is 3
    kConnected,       // ours is 4
    kAwaitUnmapped,   // the backend is going, or gone without a word
  };

  BusConnection(ConnectionParts parts, const ConnectOptions& options)
      : parts_(std::move(parts)), options_(options) {}

  // bus_handshake.cc
  // From kAwaitOffer on; each wait on the backend as long as options_.timeout.
  absl::Status Connect();
  // One step that the store's state allows; true: there was one.
  absl::StatusOr<bool> Step();
  absl::StatusOr<bool> StepOffer(xenstore::XenbusState state);
  absl::StatusOr<bool> StepConnected(xenstore::XenbusState state);
  absl::StatusOr<bool> StepUnmapped(xenstore::XenbusState state);
  absl::Status CheckOffer();
  absl::Status CreateRing();
  RingTerms Terms() const;
  absl::Status Publish();
  absl::Status WatchBackend();
  absl::Status SleepOnStore(Deadline deadline);
  absl::Status Waited(xenstore::XenbusState state) const;
  absl::StatusOr<xenstore::XenbusState> BackendState();
  absl::Status WriteState(xenstore::XenbusState state);
  // Why the backend has ended, if it said so.
  std::string BackendReason();
  // NotFound, Unavailable: the administrator wants the bus no more.
  absl::Status CheckWanted();
  absl::Status WaitUntilUnmapped();

  absl::Status OnStoreEvent();
  // BusRecovery.
  absl::StatusOr<bool> Recover() override;
  Deadline deadline() const override { return give_up_; }
  absl::Status RestoreWindow() override;
  void OnRestored(std::span<const uint16_t> absent) override;
  // window_change.cc: of RestoreWindow.
  absl::Status ExtendAgain(uint32_t directory_ref, uint32_t first_page, uint32_t pages);
  absl::Status WithdrawFilling(uint32_t first_page, uint32_t pages);

  void Notice(absl::string_view text) const;
  void Abandon();

  ConnectionParts parts_;
  const ConnectOptions options_;
  xenstore::BusAddress address_;
  xenstore::BackendOffer offer_;
  Phase phase_ = Phase::kIdle;
  bool said_closed_ = false;  // ours is 6: the backend unmaps at once
  std::string watched_;       // the backend directory whose nodes are watched
  Deadline give_up_ = Deadline::max();
  std::unique_ptr<GuestMemory> memory_;
  GuestMemory::Grant window_;                  // published, and not yet part of the window
  grants::SharedPages directory_;              // of a window that a backend has had before
  std::vector<GuestMemory::Grant> undecided_;  // the backend may or may not have mapped them
  grants::SharedPages interface_page_;
  grants::SharedPages ring_pages_;
  std::optional<grants::EventPort> port_;
  std::unique_ptr<FrontendBus> bus_;
};

}  // namespace vmsg::frontend
