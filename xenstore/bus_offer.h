// SPDX-License-Identifier: Apache-2.0
// What each side of a bus publishes in xenstore before it connects (docs/binding.md, section 1):
// typed writing by its owner, checked reading by the other side.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"
#include "xenstore/xenbus_state.h"

namespace vmsg::xenstore {

// SET_VQUEUE and GET_VQUEUE's response need 48; 52 leaves room for a configuration word.
inline constexpr uint32_t kMinMessageSize = 52;
// Largest message size the wire's 16-bit size field can carry, in whole records of 8 bytes.
inline constexpr uint32_t kMaxMessageSizeLimit = 65528;
// Grant references 0..7 belong to Xen; 0 would map without an error.
inline constexpr uint32_t kFirstUsableGrant = 8;
// FIFO event channels: 2^17 ports in a domain.
inline constexpr uint32_t kMaxEventChannel = (1u << 17) - 1;

struct BackendOffer {
  std::vector<uint32_t> versions = {1};  // ascending, not empty
  uint32_t max_message_size = 264;       // bytes
  uint32_t max_window_pages = 0;         // 4 KiB pages
  uint32_t max_ring_order = 0;           // 2^order data pages
  bool ring_event_idx = true;
  bool queue_resume = true;
  bool operator==(const BackendOffer&) const = default;
};

struct FrontendRequest {
  uint32_t version = 0;
  uint32_t message_size = 0;     // bytes, both directions
  uint32_t ring_ref = 0;         // grant of the ring's interface page
  uint32_t event_channel = 0;    // port allocated by the frontend for the backend
  uint32_t directory_ref = 0;    // grant of the first directory page
  uint32_t directory_pages = 0;  // pages of window
  bool ring_event_idx = false;
  bool queue_resume = false;
  bool operator==(const FrontendRequest&) const = default;
};

// Backend. The offer's nodes and state 2, in one transaction.
absl::Status WriteOffer(Store& store, const BusAddress& bus, const BackendOffer& offer);
// Frontend. InvalidArgument names the node, its value and the limit.
absl::StatusOr<BackendOffer> ReadOffer(NodeAccess& nodes, const BusAddress& bus);

// Frontend. The request's nodes and state 3, in one transaction.
absl::Status WriteRequest(Store& store, const BusAddress& bus, const FrontendRequest& request);
// Backend. Every node may hold anything: InvalidArgument names the node, its value and the limit.
// `nodes`: a transaction, so that what it returns was there at one moment.
absl::StatusOr<FrontendRequest> ReadRequest(NodeAccess& nodes, const BusAddress& bus,
                                            const BackendOffer& offer);

// What has become of a request since it was read.
enum class Standing : uint8_t {
  kStands,   // the frontend is in 3 or 4 and its nodes say the same
  kChanged,  // it is in 3 or 4, with other nodes: another frontend has taken the first one's place
  kWithdrawn,  // it is in none of them
};
// Backend. Answers a request if it still stands, in one transaction, so that no answer meets
// another request than its own. `answer` OK: state 4; an error: hotplug-error and state 5.
// `request`: an error is one that could not be read.
absl::StatusOr<Standing> AnswerRequest(Store& store, const BusAddress& bus,
                                       const BackendOffer& offer,
                                       const absl::StatusOr<FrontendRequest>& request,
                                       const absl::Status& answer);

// State nodes. NotFound: the node is gone; InvalidArgument: it holds no state.
absl::StatusOr<XenbusState> ReadState(NodeAccess& nodes, absl::string_view directory);
// Fails with NotFound when the directory is gone: a state written into it would bring back a
// directory that the toolstack removed.
absl::Status WriteState(Store& store, absl::string_view directory, XenbusState state);

// As much of an error's text as a node takes.
absl::string_view ErrorText(const absl::Status& error);
// `refused`: xenstored's answer to a domain that owns as many nodes as it may. Names the quota.
absl::Status NodeQuotaError(const absl::Status& refused);

// A refusal, as text for the administrator: the xenbus error node and hotplug-error. Cut to fit.
absl::Status ReportBackendError(Store& store, const BusAddress& bus, const absl::Status& error);
absl::Status ReportFrontendError(Store& store, const BusAddress& bus, const absl::Status& error);
// Frontend. What was reported is over.
absl::Status ClearFrontendError(Store& store, const BusAddress& bus);
// Backend. What was reported is over.
absl::Status ClearBackendError(Store& store, const BusAddress& bus);

// The domain this store connection belongs to, from its own `domid` node, which a guest cannot
// write. A domain without one is a Dom0 that was started without xen-init-dom0: 0.
absl::StatusOr<uint16_t> OwnDomain(NodeAccess& nodes);

// Frontend: the bus with this id of the own domain, as its `backend` node names it. NotFound: none.
absl::StatusOr<BusAddress> ReadOwnBus(NodeAccess& nodes, uint32_t id);

// Parses /local/domain/<B>/backend/virtio-msg/<F>/<id>.
absl::StatusOr<BusAddress> ParseBackendPath(absl::string_view path);

}  // namespace vmsg::xenstore
