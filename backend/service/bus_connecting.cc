// SPDX-License-Identifier: Apache-2.0
// A bus from its frontend's request to a session that serves it, and the session's end.
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/bus_control.h"
#include "backend/service/trace/bus_tap.h"
#include "backend/session/worker_window_mapper.h"

namespace vmsg::backend {

using xenstore::XenbusState;

// From the session's thread to the control's.
class BusControl::Relay : public SessionListener {
 public:
  Relay(EventLoop* loop, std::shared_ptr<Anchor> anchor)
      : loop_(loop), anchor_(std::move(anchor)) {}
  void OnSessionBroken(const absl::Status& why) override {
    PostBack(loop_, anchor_, [why](BusControl& control) { control.OnBroken(why); });
  }
  void OnRemoval(uint16_t number, RemovalStage stage) override {
    PostBack(loop_, anchor_,
             [number, stage](BusControl& control) { control.OnRemoval(number, stage); });
  }

 private:
  EventLoop* const loop_;
  const std::shared_ptr<Anchor> anchor_;
};

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
  request_ = absl::CancelledError();
  absl::Status read = services_.store->Transaction([this](xenstore::NodeAccess& nodes) {
    request_ = xenstore::ReadRequest(nodes, address_, services_.offer);
    return absl::OkStatus();
  });
  // Changed while it was read, more often than the store tries: as one that cannot be read.
  if (!read.ok()) request_ = read;
  if (!request_.ok()) return RefuseRequest(request_.status());
  Map();
}

bool BusControl::AnswerRequest(const absl::Status& answer) {
  absl::StatusOr<xenstore::Standing> standing =
      xenstore::AnswerRequest(*services_.store, address_, services_.offer, request_, answer);
  if (!standing.ok()) {
    // Gone: discovery will say so.
    if (!absl::IsNotFound(standing.status())) Refuse(standing.status());
    return false;
  }
  if (*standing == xenstore::Standing::kStands) {
    view_.ours = answer.ok() ? XenbusState::kConnected : XenbusState::kClosing;
    restarts_ = 0;
    return true;
  }
  if (*standing == xenstore::Standing::kChanged && ++restarts_ > kMaxRestarts) {
    Refuse(absl::FailedPreconditionError(
        absl::StrCat("the frontend's nodes were others each time that they were to be answered, ",
                     restarts_, " times in a row; a frontend in 3 or 4 changes none of them")));
    return false;
  }
  LogLine(LogLevel::kInfo, "the frontend that asked is not there any more; looking again");
  // What it has moved to is reported yet, or was already.
  if (*standing == xenstore::Standing::kWithdrawn &&
      (view_.frontend == XenbusState::kInitialised || view_.frontend == XenbusState::kConnected)) {
    view_.frontend = XenbusState::kInitialising;
  }
  goal_ = Goal::kRestart;
  Evaluate();
  return false;
}

void BusControl::RefuseRequest(const absl::Status& why) {
  if (gone_) return Evaluate();
  if (!AnswerRequest(why)) return;
  LogLine(LogLevel::kError, absl::StrCat("bus refused: ", why.message()));
  refused_ = error_told_ = true;
  goal_ = Goal::kClosed;
  Evaluate();
}

void BusControl::Map() {
  phase_ = Phase::kConnecting;
  services_.workers->Submit(
      mapping_lane(), [mapper = services_.mapper, frontend = address_.frontend, request = *request_,
                       max_order = services_.offer.max_ring_order, budget = budget_,
                       loop = services_.loop, anchor = anchor_]() mutable {
        auto ring = MapRing(*mapper, frontend, request.ring_ref, max_order, budget);
        absl::StatusOr<grants::GrantMapping> window = absl::CancelledError();
        if (ring.ok()) {
          window = MapWindowPages(*mapper, frontend, request.directory_ref, request.directory_pages,
                                  budget);
        }
        // What is unmapped on failure is unmapped here.
        if (ring.ok() && !window.ok()) ring = window.status();
        PostBack(loop, std::move(anchor),
                 [pages = request.directory_pages, ring = std::move(ring),
                  window = std::move(window)](BusControl& control) mutable {
                   if (!ring.ok()) {
                     control.phase_ = Phase::kIdle;
                     return control.RefuseRequest(ring.status());
                   }
                   control.window_pages_ = pages;
                   control.Serve(*std::move(ring), *std::move(window));
                 });
      });
}

void BusControl::Serve(MappedRing ring, grants::GrantMapping window) {
  const xenstore::FrontendRequest& request = *request_;
  IoThread* thread = services_.choose_thread();
  ++thread->sessions;
  const SessionOptions options{.name = name_,
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
  parts.tap = NewBusTap(services_.trace, log_, thread->loop(), address_);
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
    return RefuseRequest(session.status());
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
  if (!AnswerRequest(absl::OkStatus())) return;
  if (!QuotaIsMet() && std::exchange(error_told_, false)) {
    xenstore::ClearBackendError(*services_.store, address_).IgnoreError();
  }
  LogLine(LogLevel::kInfo, absl::StrCat("connected, ", window_pages_, " window pages, ",
                                        devices_.size(), " devices"));
  Evaluate();
}

void BusControl::CloseSession() {
  phase_ = Phase::kClosing;
  for (auto& [number, device] : devices_) {
    if (device.state == DeviceState::kAttached && (device.leaving || !view_.online)) {
      ReportRemoval(device, xenstore::kStatusDraining);
    }
  }
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
                       control.DevicesDetached();
                       control.Evaluate();
                     });
          });
        });
      });
}

void BusControl::Unmap() {
  phase_ = Phase::kUnmapping;
  services_.workers->Submit(mapping_lane(), [remains = std::move(remains_), loop = services_.loop,
                                             anchor = anchor_]() mutable {
    remains = SessionRemains();
    PostBack(loop, std::move(anchor), [](BusControl& control) {
      control.phase_ = Phase::kIdle;
      control.LogLine(LogLevel::kInfo, "disconnected, unmapped");
      control.Evaluate();
    });
  });
  remains_ = SessionRemains();
}

}  // namespace vmsg::backend
