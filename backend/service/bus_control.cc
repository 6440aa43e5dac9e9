// SPDX-License-Identifier: Apache-2.0
// States and the connection. Device entries are in bus_devices.cc.
#include "backend/service/bus_control.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/session/worker_window_mapper.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::backend {

using xenstore::BusAction;
using xenstore::XenbusState;

namespace {

// Lines of one bus at once: several connections whole.
constexpr uint32_t kLogBurst = 30;

}  // namespace

// From the session's thread to the control's.
class BusControl::Relay : public SessionListener {
 public:
  Relay(EventLoop* loop, std::shared_ptr<Anchor> anchor)
      : loop_(loop), anchor_(std::move(anchor)) {}
  void OnSessionBroken(const absl::Status& why) override {
    PostBack(loop_, anchor_, [why](BusControl& control) { control.OnBroken(why); });
  }
  void OnDeviceRemoved(uint16_t number) override {
    PostBack(loop_, anchor_, [number](BusControl& control) { control.FinishRemoval(number); });
  }

 private:
  EventLoop* const loop_;
  const std::shared_ptr<Anchor> anchor_;
};

BusControl::BusControl(BusServices& services, const xenstore::BusAddress& address,
                       std::shared_ptr<PageBudget> budget, absl::AnyInvocable<void()> finished)
    : services_(services),
      address_(address),
      budget_(std::move(budget)),
      finished_(std::move(finished)),
      anchor_(std::make_shared<Anchor>(Anchor{this})),
      log_(std::make_shared<RateLimitedLog>(absl::StrCat(Name(), ": "), kLogBurst)) {}

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

std::string BusControl::Name() const {
  return absl::StrCat("guest ", address_.frontend, " bus ", address_.id);
}

void BusControl::Update(const xenstore::BusView& view) {
  view_.frontend = view.frontend;
  view_.online = view.online;
  offer_refused_ = false;
  Evaluate();
}

void BusControl::Reappear(const xenstore::BusView& view) {
  gone_ = false;
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
                                                 .online = view_.online});
  switch (action) {
    case BusAction::kNone:
      return false;
    case BusAction::kOffer:
    case BusAction::kReoffer:
      return Offer();
    case BusAction::kConnect:
      Connect();
      return false;
    case BusAction::kQuiesce:
      if (phase_ == Phase::kConnected) {
        CloseSession();
        return false;
      }
      SetState(XenbusState::kClosing);
      return true;
    case BusAction::kUnmapAndClose:
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
          !status.ok() && !absl::IsNotFound(status)) {
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
      if (!gone_ && view_.ours != XenbusState::kClosing) SetState(XenbusState::kClosing);
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
  SetState(XenbusState::kClosed);
  return true;
}

void BusControl::SetState(XenbusState state) {
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
  absl::Status status = xenstore::WriteOffer(*services_.store, address_, services_.offer);
  if (absl::IsResourceExhausted(status)) {
    offer_refused_ = true;
    Refuse(xenstore::NodeQuotaError(status));
    return false;
  }
  if (!status.ok()) {
    LogLine(LogLevel::kError, absl::StrCat("writing the offer: ", status.message()));
    return false;
  }
  view_.ours = XenbusState::kInitWait;
  return true;
}

void BusControl::Connect() {
  if (opening() > 0 && patient_) {
    if (patience_ == 0) {
      patience_ = services_.loop->RunAfter(kOpenPatience, [this] {
        patience_ = 0;
        patient_ = false;
        Evaluate();
      });
    }
    return;
  }
  absl::StatusOr<xenstore::FrontendRequest> request =
      xenstore::ReadRequest(*services_.store, address_, services_.offer);
  if (!request.ok()) return Refuse(request.status());
  Map(*request);
}

void BusControl::Map(const xenstore::FrontendRequest& request) {
  phase_ = Phase::kConnecting;
  services_.workers->Submit(
      mapping_lane(), [mapper = services_.mapper, frontend = address_.frontend, request,
                       max_order = services_.offer.max_ring_order, budget = budget_,
                       loop = services_.loop, anchor = anchor_]() mutable {
        auto ring = MapRing(*mapper, frontend, request.ring_ref, max_order);
        absl::StatusOr<grants::GrantMapping> window = absl::CancelledError();
        if (ring.ok()) {
          window = MapWindowPages(*mapper, frontend, request.directory_ref, request.directory_pages,
                                  *budget);
        }
        // What is unmapped on failure is unmapped here.
        if (ring.ok() && !window.ok()) ring = window.status();
        PostBack(loop, std::move(anchor),
                 [request, ring = std::move(ring),
                  window = std::move(window)](BusControl& control) mutable {
                   if (!ring.ok()) {
                     control.phase_ = Phase::kIdle;
                     return control.Refuse(ring.status());
                   }
                   control.pages_taken_ = request.directory_pages;
                   control.Serve(request, *std::move(ring), *std::move(window));
                 });
      });
}

void BusControl::Serve(const xenstore::FrontendRequest& request, MappedRing ring,
                       grants::GrantMapping window) {
  IoThread* thread = services_.choose_thread();
  ++thread->sessions;
  const SessionOptions options{.name = Name(),
                               .message_size = request.message_size,
                               .suppression = request.ring_event_idx,
                               .queue_resume = request.queue_resume,
                               .max_window_pages = services_.offer.max_window_pages,
                               .bounce = services_.bounce};
  Session::Parts parts;
  parts.mapper = NewWorkerWindowMapper({.workers = *services_.workers,
                                        .lane = mapping_lane(),
                                        .mapper = *services_.mapper,
                                        .frontend = address_.frontend,
                                        .budget = budget_,
                                        .loop = thread->loop()});
  if (services_.trace != nullptr) {
    parts.tap = NewTraceTap(services_.trace, address_.frontend, address_.id);
  }
  parts.listener = std::make_unique<Relay>(services_.loop, anchor_);
  parts.log = log_;
  parts.ring = std::move(ring);
  parts.window = std::move(window);
  thread->loop().Post([thread, options, parts = std::move(parts), frontend = address_.frontend,
                       port = request.event_channel, loop = services_.loop,
                       anchor = anchor_]() mutable {
    absl::StatusOr<Session*> result = absl::CancelledError();
    parts.loop = &thread->loop();
    parts.environment = thread->environment();
    absl::StatusOr<std::unique_ptr<BoundPort>> bound = thread->Bind(frontend, port);
    if (bound.ok()) {
      parts.port = *std::move(bound);
      absl::StatusOr<std::unique_ptr<Session>> session = Session::Start(std::move(parts), options);
      if (session.ok()) {
        result = session->release();
      } else {
        result = session.status();
      }
    } else {
      result = bound.status();
    }
    // Unmapped before the refusal is told.
    parts = Session::Parts();
    PostBack(loop, std::move(anchor), [thread, result = std::move(result)](BusControl& control) {
      control.OnServing(thread, result);
    });
  });
}

void BusControl::OnServing(IoThread* thread, absl::StatusOr<Session*> session) {
  if (!session.ok()) {
    --thread->sessions;
    phase_ = Phase::kIdle;
    budget_->Give(std::exchange(pages_taken_, 0));
    return Refuse(session.status());
  }
  thread_ = thread;
  session_ = *session;
  phase_ = Phase::kConnected;
  refused_ = false;
  AttachAll();
  // State 4 only when the session has the devices, because the frontend may ask for them at once.
  // The loop runs what is posted in order, so this comes after them.
  thread_->loop().Post([session = session_, loop = services_.loop, anchor = anchor_]() mutable {
    PostBack(loop, std::move(anchor),
             [session](BusControl& control) { control.AnnounceConnected(session); });
  });
  Evaluate();
}

void BusControl::AnnounceConnected(const Session* session) {
  // Closed, refused or vanished meanwhile: it is on its way to 6.
  if (phase_ != Phase::kConnected || session_ != session || gone_ || stopping_) return;
  if (goal_ != Goal::kNone || view_.ours == XenbusState::kClosing) return;
  SetState(XenbusState::kConnected);
  LogLine(LogLevel::kInfo, absl::StrCat("connected, ", pages_taken_, " window pages, ",
                                        devices_.size(), " devices"));
  Evaluate();
}

void BusControl::Refuse(const absl::Status& why) {
  LogLine(LogLevel::kError, absl::StrCat("bus refused: ", why.message()));
  refused_ = true;
  if (!gone_) {
    if (absl::Status status = xenstore::ReportBackendError(*services_.store, address_, why);
        !status.ok() && !absl::IsNotFound(status)) {
      LogLine(LogLevel::kError, absl::StrCat("reporting it: ", status.message()));
    }
    SetState(XenbusState::kClosing);
    goal_ = Goal::kClosed;
  }
  Evaluate();
}

void BusControl::OnBroken(const absl::Status& why) {
  if (phase_ != Phase::kConnected) return;
  Refuse(why);
}

void BusControl::CloseSession() {
  phase_ = Phase::kClosing;
  thread_->loop().Post(
      [session = session_, thread = thread_, loop = services_.loop, anchor = anchor_]() mutable {
        session->Close([session, thread, loop, anchor](SessionRemains remains) mutable {
          // The session ends after the turn that this is part of.
          thread->loop().Post([session, loop, anchor, remains = std::move(remains)]() mutable {
            delete session;
            PostBack(loop, std::move(anchor),
                     [remains = std::move(remains)](BusControl& control) mutable {
                       control.remains_ = std::move(remains);
                       control.session_ = nullptr;
                       --std::exchange(control.thread_, nullptr)->sessions;
                       control.phase_ = Phase::kQuiesced;
                       control.Evaluate();
                     });
          });
        });
      });
}

void BusControl::Unmap() {
  phase_ = Phase::kUnmapping;
  pages_taken_ = 0;
  services_.workers->Submit(mapping_lane(), [remains = std::move(remains_), budget = budget_,
                                             loop = services_.loop, anchor = anchor_]() mutable {
    for (grants::GrantMapping& mapping : remains.window) {
      const uint32_t pages = static_cast<uint32_t>(mapping.pages());
      mapping.Reset();
      budget->Give(pages);
    }
    remains = SessionRemains();
    PostBack(loop, std::move(anchor), [](BusControl& control) {
      control.phase_ = Phase::kIdle;
      control.LogLine(LogLevel::kInfo, "disconnected, unmapped");
      control.DevicesDetached();
      control.Evaluate();
    });
  });
  remains_ = SessionRemains();
}

void BusControl::LogCounters() {
  if (phase_ != Phase::kConnected) {
    Log(LogLevel::kInfo,
        absl::StrCat(Name(), ": not connected, state ", std::string(StateName(view_.ours))));
    return;
  }
  thread_->loop().Post([session = session_] { Log(LogLevel::kInfo, session->Describe()); });
}

}  // namespace vmsg::backend
