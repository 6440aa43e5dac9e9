// SPDX-License-Identifier: Apache-2.0
// One bus instance from the frontend's side: the handshake in xenstore, the granted ring and
// window, and their end (docs/binding.md, sections 1 and 4).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  Clock::duration timeout = std::chrono::seconds(10);  // for each wait on the backend's state
};

// What a connection stands on; from a Platform, or from a test.
struct ConnectionParts {
  std::unique_ptr<xenstore::Store> store;
  std::unique_ptr<grants::GrantSharer> sharer;
  std::unique_ptr<grants::EventChannels> events;
};

// Not thread-safe.
class BusConnection {
 public:
  // The states 2, 3, 4 of the handshake. NotFound: the domain has no such bus. FailedPrecondition:
  // the backend refused, with its reason, or offers less than is asked for. DeadlineExceeded: it
  // did not react.
  static absl::StatusOr<std::unique_ptr<BusConnection>> Open(grants::Platform& platform,
                                                             const ConnectOptions& options);
  static absl::StatusOr<std::unique_ptr<BusConnection>> Open(ConnectionParts parts,
                                                             const ConnectOptions& options);
  // Closes, without a report if that fails.
  ~BusConnection();

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
  BusConnection(ConnectionParts parts, const ConnectOptions& options)
      : parts_(std::move(parts)), options_(options) {}
  absl::Status Handshake();
  absl::Status PublishRequest(const GuestMemory::Grant& window);
  absl::Status CreateRing();
  absl::StatusOr<xenstore::XenbusState> WaitForBackend(
      absl::FunctionRef<bool(xenstore::XenbusState)> wanted, absl::string_view what);
  absl::StatusOr<xenstore::XenbusState> BackendState();
  absl::Status OnStoreEvent();
  absl::Status BackendClosed(xenstore::XenbusState state);
  std::string BackendReason();
  // `end_grants`: the backend has unmapped.
  void Abandon();

  ConnectionParts parts_;
  const ConnectOptions options_;
  xenstore::BusAddress address_;
  xenstore::BackendOffer offer_;
  bool watching_ = false;
  bool open_ = false;  // we wrote 3 and not yet 6
  std::unique_ptr<GuestMemory> memory_;
  std::vector<GuestMemory::Grant> undecided_;  // the backend may or may not have mapped them
  grants::SharedPages interface_page_;
  grants::SharedPages ring_pages_;
  std::optional<grants::EventPort> port_;
  std::unique_ptr<FrontendBus> bus_;
};

}  // namespace vmsg::frontend
