// SPDX-License-Identifier: Apache-2.0
// One device on a bus: its requests in order, its events while they wait for room.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "backend/bus/outbox.h"
#include "backend/transport/device_transport.h"
#include "virtio-msg/codec.h"

namespace vmsg::backend {

// Requests that may wait behind one whose answer is deferred (a queue that drains). A driver needs
// one or two; past this the ring is not read on, so that waiting requests cost the guest its own
// ring and not our memory: kMaxPendingRequests * 264 bytes a device.
inline constexpr size_t kMaxPendingRequests = 16;

class DeviceChannel;

// The bus, as its channels see it.
class ChannelOwner {
 public:
  virtual ~ChannelOwner() = default;
  virtual Outbox& outbox() = 0;
  virtual void ChannelNeedsTurn(DeviceChannel& channel) = 0;
  virtual void ChannelProblem(uint16_t number, const absl::Status& what) = 0;
  virtual void ChannelMalformed(uint16_t number, const absl::Status& what) = 0;
  virtual void ChannelReset(uint16_t number) = 0;
  virtual void EventCoalesced() = 0;
};

class DeviceChannel : private TransportEvents {
 public:
  DeviceChannel(uint16_t number, ChannelOwner& owner) : number_(number), owner_(owner) {}
  ~DeviceChannel() override = default;

  absl::Status Attach(std::unique_ptr<Device> device, grants::Window& window, bool queue_resume);

  // False: as many requests wait as may; give it again later.
  bool CanTake() const { return pending_.size() < kMaxPendingRequests; }
  // A request that the outbox has credit for. `record` is the message that was decoded; it is
  // copied if it has to wait.
  void TakeRequest(const wire::Message& message, std::span<const std::byte> record);
  void TakeEvent(const wire::Message& message);

  // Finishes what drained, serves what waited, runs the queues. True: it did something.
  bool Turn(uint32_t chains_per_queue);
  // Sends the events that are due. False: no room for all of them.
  bool Flush();
  // Before sleeping: true when chains came meanwhile.
  bool ArmQueues() { return transport_->ArmQueues(); }
  // Nothing to run, flush or finish: the bus need not give it turns.
  bool idle() const { return !wants_turn_ && !has_events() && !transport_->has_running_queues(); }

  bool wants_turn() const { return wants_turn_; }

  // The end of the device. Its requests wait until it has drained, because an answer before that
  // would give the driver memory back that is still written; then they are answered with zeros, and
  // the channel is gone(). `done` is kept for whoever destroys it; it may be called again.
  void Remove(absl::AnyInvocable<void()> done);
  bool leaving() const { return leaving_; }
  // Everything has drained and been answered.
  bool gone() const { return drained_ && pending_.empty() && !in_progress_; }
  // What Remove was given, when gone().
  std::vector<absl::AnyInvocable<void()>> TakeDone() { return std::move(done_); }

  uint16_t number() const { return number_; }
  const DeviceTransport& transport() const { return *transport_; }

  bool in_turn_list = false;  // the bus's own

 private:
  // TransportEvents.
  void WantEventUsed(uint32_t queue) override;
  void WantEventConfig() override;
  void ForgetEventUsed(uint32_t queue) override { used_due_ &= ~(uint64_t{1} << queue); }
  void ForgetEventConfig() override { config_due_ = false; }
  void WantTurn() override;
  void Problem(const absl::Status& what) override { owner_.ChannelProblem(number_, what); }

  bool has_events() const { return used_due_ != 0 || config_due_; }
  // A request has to wait for one that is in progress, or for the end of what is in flight.
  bool must_wait() const { return in_progress_ || (leaving_ && !drained_); }
  void Serve(const wire::Message& message);
  template <class Request, class Handler>
  void Answer(const wire::Message& message, Handler handler);
  template <class Request, class Begin>
  void AnswerLater(const wire::Message& message, Begin begin);
  void ServePending();

  const uint16_t number_;
  ChannelOwner& owner_;
  std::unique_ptr<DeviceTransport> transport_;

  bool in_progress_ = false;  // a deferred answer is owed
  std::deque<std::vector<std::byte>> pending_;

  uint64_t used_due_ = 0;  // EVENT_USED, a bit for each queue
  bool config_due_ = false;
  bool wants_turn_ = false;

  bool leaving_ = false;
  bool drained_ = false;  // while leaving: nothing of the driver's memory is touched any more
  std::vector<absl::AnyInvocable<void()>> done_;
};

// The one answer of a device that does not exist: the fixed part in zeros.
void AnswerWithZeros(Outbox& outbox, const wire::Message& request);

}  // namespace vmsg::backend
