// SPDX-License-Identifier: Apache-2.0
// The backend's half of a handshake, played step by step by a test over the emulated Xen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/event_channels.h"
#include "grants/grant_mapper.h"
#include "grants/platform.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"
#include "xenstore/bus_offer.h"
#include "xenstore/store.h"

namespace vmsg::frontend {

// Each step waits for what it needs and fails the test after 20 s. One thread at a time.
class ScriptedBackend {
 public:
  // In Dom0. The bus's directories are there already.
  static std::unique_ptr<ScriptedBackend> Open(grants::Platform& platform,
                                               const xenstore::BusAddress& bus);

  void Offer(const xenstore::BackendOffer& offer);
  void WaitForFrontend(xenstore::XenbusState state);
  void SetState(xenstore::XenbusState state);
  void Refuse(const std::string& reason);

  // After the frontend's 3: reads its request, maps the ring and the window, binds the port.
  void Map(const xenstore::BackendOffer& offer);
  void Unmap();
  const xenstore::FrontendRequest& request() const { return request_; }
  std::span<std::byte> window() const { return window_.bytes(); }
  grants::GrantMapper& mapper() { return *mapper_; }

  // The next message of the frontend, copied; its payload is valid until the next call.
  wire::Message Receive();
  template <class Body>
  void Respond(const wire::Message& request, const Body& body) {
    std::array<std::byte, wire::kMaxMessageSize> record;
    const absl::StatusOr<size_t> size =
        wire::Encode(wire::Profile::V1(), request.envelope, body, record);
    Push(std::span(record).first(size.value()));
  }

 private:
  ScriptedBackend() = default;
  void Push(std::span<const std::byte> record);

  xenstore::BusAddress bus_;
  std::unique_ptr<xenstore::Store> store_;
  std::unique_ptr<grants::GrantMapper> mapper_;
  std::unique_ptr<grants::EventChannels> events_;
  xenstore::FrontendRequest request_;
  grants::GrantMapping page_, data_, window_;
  grants::EventPort port_ = 0;
  std::unique_ptr<wire::RingProducer> in_;
  std::unique_ptr<wire::RingConsumer> out_;
  std::array<std::byte, wire::kMaxMessageSize> record_;
};

}  // namespace vmsg::frontend
