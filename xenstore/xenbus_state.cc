// SPDX-License-Identifier: Apache-2.0
#include "xenstore/xenbus_state.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr size_t kStates = 9;
using Row = std::array<BusAction, kStates>;

constexpr BusAction o = BusAction::kNone;
constexpr BusAction Offer = BusAction::kOffer;
constexpr BusAction Conn = BusAction::kConnect;
constexpr BusAction Ask = BusAction::kAsk;
constexpr BusAction Quies = BusAction::kQuiesce;
constexpr BusAction Close = BusAction::kUnmapAndClose;
constexpr BusAction Again = BusAction::kReoffer;
constexpr BusAction Break = BusAction::kTearDownAndReoffer;
constexpr BusAction Forget = BusAction::kForget;

// Columns: the frontend's state. 0 also stands for a node that is gone: both mean that there is no
// driver to talk to. A frontend never writes 2, 7 or 8; whatever it means by them, we wait.
// Linux' frontends wait for exact values: in 5 for our 5, then in 6 for our 6, then in 1 for our 2
// (xenbus_probe.c, xenbus_probe_frontend.c). So each of ours stays until the frontend has moved.
// clang-format off
//                               gone   1      2      3      4      5      6      7      8
// We hold nothing and have not offered yet (1; also after a predecessor left 0, 3, 7 or 8, which
// we never write).
constexpr Row kFresh          = {Close, Offer, Offer, Offer, Offer, Offer, Offer, Offer, Offer};
// We offered (2).
constexpr Row kOffered        = {Close, o,     o,     Conn,  Conn,  Quies, Close, o,     o};
// State 4 without a connection: a predecessor was killed. What the frontend published was for that
// connection: its ring is in use, and its directory's pages may hold anything since our 4.
constexpr Row kOrphaned       = {Close, Again, Close, Close, Close, Quies, Close, Close, Close};
// Connected, or about to be. 1 is a kexec'd guest's, 6 one that needs no 5 of ours.
constexpr Row kConnected      = {Close, Break, o,     o,     o,     Quies, Close, o,     o};
// Quiet, and mapped until the frontend has seen it and shows 6.
constexpr Row kClosing        = {Close, Close, Close, Close, Close, o,     Close, Close, Close};
// 3 and 4 are a request that we refused, or a frontend that has not seen yet that we ended; 5 and 6
// are one that is about to look for our 6, so it must still find it.
constexpr Row kClosed         = {o,     Again, o,     o,     o,     o,     o,     o,     o};

// The same when the bus is not wanted any more. A driver that is at work is asked, as when a device
// is removed; one that has gone, or goes, is not.
constexpr Row kUnwantedIdle   = {Close, Close, Close, Close, Close, Close, Close, Close, Close};
constexpr Row kUnwantedAsking = {Close, Quies, Ask,   Ask,   Ask,   Quies, Close, Ask,   Ask};
constexpr Row kUnwantedInUse  = {Close, Quies, Quies, Quies, Quies, Quies, Close, Quies, Quies};
constexpr Row kUnwantedClosed = {Forget, Forget, Forget, Forget, Forget, Forget, Forget, Forget,
                                 Forget};
// clang-format on

const Row& RowFor(const BusSituation& situation) {
  const bool online = situation.online;
  switch (situation.ours) {
    case XenbusState::kClosing:
      return online ? kClosing : kUnwantedIdle;
    case XenbusState::kClosed:
      // 6 promises that nothing is mapped; make it true before anything else.
      if (situation.connected) return kUnwantedIdle;
      return online ? kClosed : kUnwantedClosed;
    default:
      break;
  }
  if (situation.connected) {
    if (online) return kConnected;
    return situation.asking ? kUnwantedAsking : kUnwantedInUse;
  }
  if (!online) return kUnwantedIdle;
  if (situation.ours == XenbusState::kInitWait) return kOffered;
  if (situation.ours == XenbusState::kConnected) return kOrphaned;
  return kFresh;
}

constexpr std::array<absl::string_view, kStates> kStateNames = {
    "Unknown", "Initialising", "InitWait",      "Initialised", "Connected",
    "Closing", "Closed",       "Reconfiguring", "Reconfigured"};

}  // namespace

absl::string_view StateName(XenbusState state) {
  const size_t index = static_cast<size_t>(state);
  return index < kStates ? kStateNames[index] : kStateNames[0];
}

std::string StateText(XenbusState state) { return absl::StrCat(static_cast<unsigned>(state)); }

absl::StatusOr<XenbusState> ParseState(absl::string_view text) {
  absl::StatusOr<uint64_t> value = ParseDecimal(text, "the xenbus state", 0, kStates - 1);
  if (!value.ok()) return value.status();
  return static_cast<XenbusState>(*value);
}

BusAction NextAction(const BusSituation& situation) {
  const size_t column = static_cast<size_t>(situation.frontend.value_or(XenbusState::kUnknown));
  return RowFor(situation)[column < kStates ? column : 0];
}

}  // namespace vmsg::xenstore
