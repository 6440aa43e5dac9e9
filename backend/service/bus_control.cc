// SPDX-License-Identifier: Apache-2.0
// States. Connecting is in bus_connecting.cc, device entries are in bus_devices.cc.
#include "backend/service/bus_control.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "xenstore/toolstack/bus_creation.h"
#include "xenstore/toolstack/domain_names.h"

namespace vmsg::backend {

using xenstore::BusAction;
using xenstore::XenbusState;
namespace {

// Lines of one bus at once: several connections whole.
constexpr uint32_t kLogBurst = 30;

}  // namespace

BusControl::BusControl(BusServices& services, const xenstore::BusAddress& address,
                       std::shared_ptr<PageBudget> budget, absl::AnyInvocable<void()> finished)
    : services_(services),
      address_(address),
      budget_(std::move(budget)),
      finished_(std::move(finished)),
      name_(absl::StrCat(xenstore::GuestLabel(*services.store, address.frontend), " bus ",
                         address.id)),
      anchor_(std::make_shared<Anchor>(Anchor{this})),
      log_(std::make_shared<RateLimitedLog>(absl::StrCat(name_, ": "), kLogBurst)) {}

BusControl::~BusControl() {
  anchor_->control = nullptr;
  if (patience_ != 0) services_.loop->Cancel(patience_);
}

void BusControl::PostBack(EventLoop* loop, std::shared_ptr<Anchor> anchor, Task task) {
  loop->Post([anchor = std::move(anchor), task = std::move(task)]() mutable {
    if (anchor->control != nullptr) task(*anchor->control);
  });
}

void BusControl::LogLine(LogLevel level, absl::string_view text) {
  log_->Line(services_.loop->Now(), level, text);
}

void BusControl::Update(const xenstore::BusView& view) {
  const XenbusState now = view.frontend.value_or(XenbusState::kUnknown);
  LogLine(LogLevel::kDebug, absl::StrCat("frontend is ", StateName(now)));
  const XenbusState ours = view_.ours;
  view_ = view;
  view_.ours = ours;  // we know better than what was read
  offer_refused_ = false;
  Evaluate();
}

void BusControl::Reappear(const xenstore::BusView& view) {
  gone_ = false;
  asked_ = false;
  error_told_ = true;
  restarts_ = 0;
  view_ = view;
  Evaluate();
}

void BusControl::Vanish() {
  gone_ = true;
  for (auto& [number, device] : devices_) CloseElsewhere(device);
  devices_.clear();
  Evaluate();
}

void BusControl::Stop() {
  stopping_ = true;
  Evaluate();
}

void BusControl::Evaluate() {
  // The table of states comes to rest within four steps; the bound is for what we got wrong.
  for (int steps = 0; steps < 16; ++steps) {
    if (busy() || !Step()) return;
  }
  LogLine(LogLevel::kError, "the states do not settle");
}

bool BusControl::Step() {
  if (gone_ || stopping_ || goal_ != Goal::kNone) return Pursue();
  const BusAction action = xenstore::NextAction({.ours = view_.ours,
                                                 .connected = phase_ != Phase::kIdle,
                                                 .frontend = view_.frontend,
                                                 .online = view_.online,
                                                 .asking = !view_.forced && in_use()});
  switch (action) {
    case BusAction::kNone:
      return false;
    case BusAction::kOffer:
    case BusAction::kReoffer:
      return Offer();
    case BusAction::kConnect:
      Connect();
      return false;
    case BusAction::kAsk:
      AskDrivers();
      return false;
    case BusAction::kQuiesce:
      if (phase_ == Phase::kConnected) {
        CloseSession();
        return false;
      }
      SetState(XenbusState::kClosing);
      return true;
    case BusAction::kUnmapAndClose:
      if (RefuseNoState()) return false;
      if (phase_ == Phase::kIdle && view_.ours == XenbusState::kConnected) {
        LogLine(LogLevel::kInfo, "was connected to a vmsgd that was killed; it may connect again");
      }
      goal_ = Goal::kClosed;
      return true;
    case BusAction::kTearDownAndReoffer:
      goal_ = Goal::kOffered;
      return true;
    case BusAction::kForget:
      // Until then its images may not be attached elsewhere; OnClosed asks again.
      if (closing_ > 0) return false;
      if (absl::Status status = xenstore::RemoveBackendDirectory(*services_.store, address_);
          !status.ok() && !absl::IsNotFound(status) && !absl::IsAlreadyExists(status)) {
        LogLine(LogLevel::kError, absl::StrCat("removing the directory: ", status.message()));
      }
      // Discovery sees it go and says so.
      return false;
  }
  return false;
}

bool BusControl::Pursue() {
  switch (phase_) {
    case Phase::kConnected:
      CloseSession();
      return false;
    case Phase::kQuiesced:
      // Begun anew, it stays at 2.
      if (!gone_ && goal_ != Goal::kRestart && view_.ours != XenbusState::kClosing) {
        SetState(XenbusState::kClosing);
      }
      Unmap();
      return false;
    default:
      break;
  }
  const Goal goal = std::exchange(goal_, Goal::kNone);
  if (gone_ || stopping_) {
    if (!gone_ && view_.ours != XenbusState::kClosed) SetState(XenbusState::kClosed);
    for (auto& [number, device] : devices_) CloseElsewhere(device);
    if (closing_ > 0) return false;  // OnClosed comes back
    // Not from within.
    if (finished_ != nullptr) {
      PostBack(services_.loop, anchor_, [](BusControl& control) {
        // It may have come back meanwhile.
        if ((control.gone_ || control.stopping_) && control.phase_ == Phase::kIdle &&
            control.finished_ != nullptr) {
          control.finished_();
        }
      });
    }
    return false;
  }
  if (goal == Goal::kOffered) return Offer();
  if (goal == Goal::kRestart) return true;
  SetState(XenbusState::kClosed);
  return true;
}

void BusControl::SetState(XenbusState state) {
  LogLine(LogLevel::kDebug, absl::StrCat("state ", StateName(state)));
  view_.ours = state;
  absl::Status status = xenstore::WriteState(*services_.store, address_.BackendPath(), state);
  // Gone: discovery will say so.
  if (status.ok() || absl::IsNotFound(status)) return;
  LogLine(LogLevel::kError,
          absl::StrCat("writing state ", StateText(state), ": ", status.message()));
}

bool BusControl::Offer() {
  if (offer_refused_) return false;
  patient_ = true;
  restarts_ = 0;
  absl::Status status = xenstore::WriteOffer(*services_.store, address_, services_.offer);
  if (absl::IsResourceExhausted(status)) {
    offer_refused_ = quota_refusal_ = true;
    Refuse(xenstore::NodeQuotaError(status));
    return false;
  }
  if (!status.ok()) {
    LogLine(LogLevel::kError, absl::StrCat("writing the offer: ", status.message()));
    return false;
  }
  view_.ours = XenbusState::kInitWait;
  // It was about the offer; what a request was refused for stands until another one is not.
  if (std::exchange(quota_refusal_, false)) {
    xenstore::ClearBackendError(*services_.store, address_).IgnoreError();
  }
  return true;
}

void BusControl::ReportError(const absl::Status& why) {
  error_told_ = true;
  if (absl::Status status = xenstore::ReportBackendError(*services_.store, address_, why);
      !status.ok() && !absl::IsNotFound(status)) {
    LogLine(LogLevel::kError, absl::StrCat("reporting it: ", status.message()));
  }
}

void BusControl::Refuse(const absl::Status& why) {
  LogLine(LogLevel::kError, absl::StrCat("bus refused: ", why.message()));
  refused_ = true;
  if (!gone_) {
    ReportError(why);
    SetState(XenbusState::kClosing);
    goal_ = Goal::kClosed;
  }
  Evaluate();
}

// What stands in the frontend's state node may be anything.
bool BusControl::RefuseNoState() {
  if (view_.frontend != XenbusState::kUnknown || !view_.online) return false;
  if (view_.ours == XenbusState::kClosing || view_.ours == XenbusState::kClosed) return false;
  Refuse(absl::InvalidArgumentError(
      absl::StrCat(address_.FrontendPath(), "/", xenstore::kState, " is ", view_.no_state,
                   ", which is none of the states 1 to 6, a digit each")));
  return true;
}

void BusControl::AskDrivers() {
  if (std::exchange(asked_, true)) return;
  LogLine(LogLevel::kInfo, "its removal is asked for; waiting for the drivers");
  std::vector<uint16_t> numbers;
  for (const auto& [number, device] : devices_) numbers.push_back(number);
  for (const uint16_t number : numbers) RemoveDevice(number, /*force=*/false);
}

void BusControl::OnBroken(const absl::Status& why) {
  if (phase_ != Phase::kConnected) return;
  if (view_.ours == XenbusState::kConnected) return Refuse(why);
  RefuseRequest(why);
}

void BusControl::LogCounters() {
  if (phase_ != Phase::kConnected) {
    return Log(LogLevel::kInfo,
               absl::StrCat(name_, ": not connected, state ", StateName(view_.ours)));
  }
  thread_->loop().Post([session = session_] { Log(LogLevel::kInfo, session->Describe()); });
}

}  // namespace vmsg::backend
