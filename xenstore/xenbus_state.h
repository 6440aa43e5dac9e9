// SPDX-License-Identifier: Apache-2.0
// The states of xen/io/xenbus.h and what a backend does about them: one pure table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmsg::xenstore {

enum class XenbusState : uint8_t {
  kUnknown = 0,
  kInitialising = 1,
  kInitWait = 2,
  kInitialised = 3,
  kConnected = 4,
  kClosing = 5,
  kClosed = 6,
  kReconfiguring = 7,
  kReconfigured = 8,
};

// "Connected", "Closing", ...
absl::string_view StateName(XenbusState state);
// The decimal text of a state node.
std::string StateText(XenbusState state);
// InvalidArgument: not the decimal text of a state.
absl::StatusOr<XenbusState> ParseState(absl::string_view text);

// What the backend knows about one bus.
struct BusSituation {
  // What stands in our state node: what we wrote last, or what a predecessor left there.
  XenbusState ours = XenbusState::kInitialising;
  // Anything of the frontend's is mapped or bound, or is being mapped.
  bool connected = false;
  // The frontend's state node. nullopt: it is gone. A value that is no state counts as kUnknown.
  std::optional<XenbusState> frontend;
  // The bus is wanted: `online` is not 0 and the frontend's domain exists.
  bool online = true;
  // Not online, and devices are still to be given up by drivers that may take their time.
  bool asking = false;
};

enum class BusAction : uint8_t {
  kNone,
  kOffer,               // write the offer's nodes, then state 2
  kConnect,             // read and check the frontend's request, map, bind; then state 4
  kAsk,                 // ask the drivers to let go of all devices, if that has not been done
  kQuiesce,             // stop the queues, let I/O in flight end; then state 5
  kUnmapAndClose,       // end everything, unmap and unbind (there may be nothing); then state 6
  kReoffer,             // nothing is mapped: offer again, state 2
  kTearDownAndReoffer,  // end everything, unmap and unbind; then offer again, state 2
  kForget,              // remove our directory
};

// The one decision. Each action ends with a state written (or our directory removed), after which
// the caller asks again with the new situation: a removal, for instance, is kQuiesce,
// kUnmapAndClose, kForget. Repeated with an unchanged frontend it ends in kNone or kForget within
// four steps. A connection request that was refused is not tried again until the frontend has moved
// to 1: the caller answers a refusal by going to states 5 and 6 itself, and everything else then
// stays without effect.
BusAction NextAction(const BusSituation& situation);

}  // namespace vmsg::xenstore
