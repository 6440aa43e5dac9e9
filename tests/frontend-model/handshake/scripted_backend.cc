// SPDX-License-Identifier: Apache-2.0
#include "tests/frontend-model/handshake/scripted_backend.h"

#include <gtest/gtest.h>
#include <poll.h>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/deadline.h"
#include "grants/directory.h"

namespace vmsg::frontend {
namespace {

using xenstore::XenbusState;

// Only reached when something is broken.
bool Readable(int fd) {
  pollfd ready = {.fd = fd, .events = POLLIN};
  return ::poll(&ready, 1, 20'000) > 0;
}

// What a frontend goes on to without waiting for the backend.
XenbusState Successor(XenbusState state) {
  if (state == XenbusState::kConnected) return XenbusState::kClosing;
  if (state == XenbusState::kClosed) return XenbusState::kInitialising;  // it connects again
  return state;
}

}  // namespace

std::unique_ptr<ScriptedBackend> ScriptedBackend::Open(grants::Platform& platform,
                                                       const xenstore::BusAddress& bus) {
  std::unique_ptr<ScriptedBackend> backend(new ScriptedBackend());
  backend->bus_ = bus;
  backend->store_ = xenstore::OpenStore(platform.store_socket()).value();
  backend->mapper_ = platform.OpenGrantMapper().value();
  backend->events_ = platform.OpenEventChannels().value();
  EXPECT_TRUE(backend->store_->Watch(absl::StrCat(bus.FrontendPath(), "/state"), "state").ok());
  return backend;
}

void ScriptedBackend::Offer(const xenstore::BackendOffer& offer) {
  EXPECT_TRUE(xenstore::WriteOffer(*store_, bus_, offer).ok());
}

void ScriptedBackend::WaitForFrontend(XenbusState state) {
  for (;;) {
    EXPECT_TRUE(store_->TakeWatchEvents().ok());
    const auto now = xenstore::ReadState(*store_, bus_.FrontendPath());
    // A state may be passed before it is looked at: states are levels, not events.
    if (now.ok() && (*now == state || *now == Successor(state))) return;
    ASSERT_TRUE(Readable(store_->fd()))
        << "the frontend did not reach " << xenstore::StateName(state);
  }
}

void ScriptedBackend::SetState(XenbusState state) {
  EXPECT_TRUE(xenstore::WriteState(*store_, bus_.BackendPath(), state).ok());
}

void ScriptedBackend::Refuse(const std::string& reason) {
  EXPECT_TRUE(xenstore::ReportBackendError(*store_, bus_, absl::InvalidArgumentError(reason)).ok());
  SetState(XenbusState::kClosing);
  SetState(XenbusState::kClosed);
}

void ScriptedBackend::Map(const xenstore::BackendOffer& offer) {
  const auto request = xenstore::ReadRequest(*store_, bus_, offer);
  ASSERT_TRUE(request.ok()) << request.status();
  request_ = *request;
  page_ = mapper_->Map(bus_.frontend, {&request_.ring_ref, 1}, grants::Access::kReadWrite).value();
  auto* const shared = reinterpret_cast<wire::RingInterface*>(page_.bytes().data());
  const uint32_t pages = 1u << shared->ring_order;
  data_ = mapper_->Map(bus_.frontend, {shared->ref, pages}, grants::Access::kReadWrite).value();
  const auto refs = grants::WalkDirectory(*mapper_, bus_.frontend, request_.directory_ref,
                                          request_.directory_pages, {offer.max_window_pages});
  ASSERT_TRUE(refs.ok()) << refs.status();
  window_ = mapper_->Map(bus_.frontend, *refs, grants::Access::kReadWrite).value();
  port_ = events_->BindInterdomain(bus_.frontend, request_.event_channel).value();
  const size_t half = data_.bytes().size() / 2;
  in_ = std::make_unique<wire::RingProducer>(&shared->in, data_.bytes().first(half),
                                             request_.ring_event_idx);
  out_ = std::make_unique<wire::RingConsumer>(&shared->out, data_.bytes().subspan(half),
                                              request_.ring_event_idx, request_.message_size);
}

void ScriptedBackend::Unmap() {
  if (in_ != nullptr) {
    EXPECT_TRUE(events_->Unbind(port_).ok());
  }
  in_.reset();
  out_.reset();
  window_.Reset();
  data_.Reset();
  page_.Reset();
}

wire::Message ScriptedBackend::Receive() {
  for (;;) {
    const auto size = out_->Pop(record_);
    EXPECT_TRUE(size.ok()) << size.status();
    if (size.ok() && size->has_value()) {
      if (out_->Release()) {
        EXPECT_TRUE(events_->Notify(port_).ok());
      }
      return wire::Decode(wire::Profile::V1(), std::span(record_).first(**size)).value();
    }
    if (out_->Arm().value()) continue;
    EXPECT_TRUE(Readable(events_->fd())) << "the frontend sent nothing";
    const auto port = events_->NextPending();
    if (port.ok() && port->has_value()) {
      EXPECT_TRUE(events_->Unmask(**port).ok());
    }
  }
}

void ScriptedBackend::Push(std::span<const std::byte> record) {
  EXPECT_TRUE(in_->Push(record).value());
  if (in_->Publish()) {
    EXPECT_TRUE(events_->Notify(port_).ok());
  }
}

}  // namespace vmsg::frontend
