// SPDX-License-Identifier: Apache-2.0
// A bus in memory: the frontend under test on one end, a peer that the test scripts on the other.
// The peer runs inside the frontend's Notify, on the same thread, so that nothing here depends on
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "frontend-model/bus/frontend_bus.h"
#include "grants/event_channels.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::frontend {

// One port; raised by the peer with Raise, raises the peer with its callback.
class TestEvents final : public grants::EventChannels {
 public:
  static constexpr grants::EventPort kPort = 7;

  TestEvents();
  ~TestEvents() override;
  int fd() const override { return fd_; }
  absl::StatusOr<grants::EventPort> AllocateUnbound(grants::DomainId) override { return kPort; }
  absl::StatusOr<grants::EventPort> BindInterdomain(grants::DomainId, grants::EventPort) override {
    return absl::UnimplementedError("a frontend does not bind");
  }
  absl::Status Notify(grants::EventPort port) override;
  absl::StatusOr<std::optional<grants::EventPort>> NextPending() override;
  absl::Status Unmask(grants::EventPort port) override;
  absl::Status Unbind(grants::EventPort) override { return absl::OkStatus(); }

  void Raise();
  std::function<void()> on_notify;
  int notified = 0;
  int unmasked = 0;

 private:
  int fd_;
};

class TestBus {
 public:
  explicit TestBus(RingTerms terms = {}, uint32_t data_pages = 2);

  // Called for each message the frontend sent, in order. Without a handler a message is kept only.
  using Handler = std::function<void(const wire::Message&)>;
  std::map<wire::MessageId, Handler> handlers;

  // The device side's view of what came.
  struct Seen {
    wire::MessageId id;
    uint8_t type;
    wire::Envelope envelope;
    std::vector<std::byte> payload;
  };
  std::vector<Seen> seen;
  std::vector<Seen> Of(wire::MessageId id) const;

  template <class Body>
  void Send(uint16_t dev_num, uint16_t token, const Body& body) {
    std::array<std::byte, wire::kMaxMessageSize> record;
    absl::StatusOr<size_t> size =
        wire::Encode(wire::Profile::V1(), {.dev_num = dev_num, .token = token}, body, record,
                     terms_.max_message_size);
    SendRaw(std::span(record).first(size.value()));
  }
  template <class Body>
  void Respond(const wire::Message& request, const Body& body) {
    Send(request.envelope.dev_num, request.envelope.token, body);
  }
  void SendRaw(std::span<const std::byte> record);
  // The peer's turn: takes what was sent and lets the handlers answer.
  void Run();

  // Another peer: over a ring of zeros.
  void Restart();
  // Asked at each message before it is handled; true: it is lost, and what came with it.
  std::function<bool()> on_message;

  // While held, the peer does not run on Notify.
  bool held = false;
  RingTerms terms_;
  std::unique_ptr<std::byte[]> memory_;
  wire::RingInterface* page;
  std::span<std::byte> data;
  TestEvents events;
  FrontendBus bus;

 private:
  wire::RingProducer in_;
  wire::RingConsumer out_;
};

inline Deadline Now() { return Clock::now(); }
// Only reached when something is broken.
inline Deadline Soon() { return After(std::chrono::seconds(20)); }

}  // namespace vmsg::frontend
