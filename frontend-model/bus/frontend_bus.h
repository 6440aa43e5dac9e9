// SPDX-License-Identifier: Apache-2.0
// The driver-side bus: requests and their responses, events to whom they concern, PING both ways,
// and the one loop in which the frontend waits (virtio-msg, sections "Bus Messages" and "Common
// Message Format"; docs/binding.md, section 5).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/deadline.h"
#include "frontend-model/bus/ring_link.h"
#include "virtio-msg/codec.h"

namespace vmsg::frontend {

// What a device's messages mean to its driver. Called from the bus's loop: must not wait on it.
class DeviceEvents {
 public:
  virtual ~DeviceEvents() = default;
  virtual void OnUsed(uint32_t queue) = 0;
  virtual void OnConfig(const wire::EventConfig& event) = 0;  // the view ends with the call
  virtual void OnBusState(uint16_t state) = 0;                // EVENT_DEVICE about this device
  // The backend is gone: of what was sent to it nothing is answered. What the device had is still
  // its own (docs/binding.md, section 1) until OnUnmapped.
  virtual void OnLost() {}
  // Nothing of this domain is mapped by the backend any more.
  virtual void OnUnmapped() {}
  // There is a backend again, or the device wants its driver to begin anew: Resume is next. It may
  // wait on the bus, and fails only if that does.
  virtual bool WantsResume() const { return false; }
  // The backend that there is has not opened the device yet: it goes on when it has.
  virtual bool IsAbsent() const { return false; }
  virtual absl::Status Resume() { return absl::OkStatus(); }
};

// Who brings a bus back whose backend has gone. Called in the bus's loop.
class BusRecovery {
 public:
  virtual ~BusRecovery() = default;
  // Takes what steps can be taken without waiting; true: the bus has a backend again, and Restored
  // was called. An error: there will be none.
  virtual absl::StatusOr<bool> Recover() = 0;
  // Until when a backend is waited for; Recover is asked again then at the latest.
  virtual Deadline deadline() const = 0;
  // The window as it was. May wait on the bus.
  virtual absl::Status RestoreWindow() = 0;
  // All devices that are there were resumed; these are not there yet.
  virtual void OnRestored(std::span<const uint16_t> absent) = 0;
};

// Shared memory that can be looked at without an event: a driver's used rings. While the loop is
// awake it polls; only before it sleeps does it ask for events.
class PollSource {
 public:
  virtual ~PollSource() = default;
  virtual bool Poll() = 0;            // handles what is there; true: there was something
  virtual bool PrepareToSleep() = 0;  // asks for events; true: something came meanwhile
};

// What the other side did that it should not have done, and how often we waited.
struct BusCounters {
  uint64_t requests = 0;
  uint64_t events_received = 0;
  uint64_t malformed = 0;        // did not decode, or not for a driver to receive: dropped
  uint64_t stray_responses = 0;  // no request waits for it, or not this kind of response: dropped
  uint64_t unknown_devices = 0;  // events for devices without a driver: dropped
  uint64_t pings_answered = 0;
  uint64_t backlog_overflows = 0;  // pings not answered because too many waited for space
};

// Not thread-safe: one thread runs it.
class FrontendBus {
 public:
  static constexpr size_t kMaxOutstanding = 64;   // requests awaiting responses
  static constexpr size_t kMaxPingBacklog = 64;   // answers that wait for space in the ring
  static constexpr int kMaxRecordsPerPoll = 128;  // then drivers get their turn
  static constexpr Clock::duration kDefaultMaxSpin = std::chrono::microseconds(200);

  FrontendBus(RingMemory memory, RingTerms terms, grants::EventChannels* events,
              grants::EventPort port);

  // Runs when the response is here, or with an error when the bus failed; Cancel drops it. The
  // message's payload ends with the call. Must not wait on the bus.
  using ResponseHandler = absl::AnyInvocable<void(absl::StatusOr<wire::Message>)>;
  using RequestToken = uint16_t;

  // Sends a request. ResourceExhausted: the ring is full or too many requests are outstanding; let
  // the loop run and try again. Shown to the peer by the next Poll or Flush.
  template <class Request>
  absl::StatusOr<RequestToken> Send(uint16_t dev_num, const Request& request,
                                    ResponseHandler handler);
  // The response, when it comes, is dropped.
  void Cancel(RequestToken token);

  // Sends and waits. Views in the result stay valid until the next Call. DeadlineExceeded names the
  // message. A backend that is lost meanwhile is waited for, and asked again.
  template <class Response, class Request>
  absl::StatusOr<Response> Call(uint16_t dev_num, const Request& request, Deadline deadline);
  // The same, once: Unavailable when the backend is lost meanwhile (losses() has moved then).
  template <class Response, class Request>
  absl::StatusOr<Response> CallOnce(uint16_t dev_num, const Request& request, Deadline deadline);

  // EVENT_AVAIL. Never fails for lack of space: what does not fit is kept, the newest per queue.
  absl::Status SendAvail(uint16_t dev_num, uint32_t queue, uint32_t next_offset);

  // GET_DEVICES for the whole number space, ascending.
  absl::StatusOr<std::vector<uint16_t>> ListDevices(Deadline deadline);
  // One PING; the time it took.
  absl::StatusOr<Clock::duration> Ping(uint32_t data, Deadline deadline);

  // At most one per device number; null ends it.
  void SetDeviceEvents(uint16_t dev_num, DeviceEvents* events);
  // Every EVENT_DEVICE, before the device's own DeviceEvents see it.
  void SetBusStateListener(absl::AnyInvocable<void(const wire::EventDevice&)> listener);
  void AddPollSource(PollSource* source);
  void RemovePollSource(PollSource* source);
  // `on_readable` runs in the loop when fd is readable; its error fails the bus.
  void AddFd(int fd, absl::AnyInvocable<absl::Status()> on_readable);
  void RemoveFd(int fd);

  // Handles what is there now and sends what waits, without sleeping; true: there was something.
  absl::StatusOr<bool> Poll();
  // Runs the loop until done() (asked after each turn) or the deadline (DeadlineExceeded), to which
  // the time without a backend is added. Spins for a bounded time, adapted to how long waits have
  // been, before it sleeps.
  absl::Status WaitUntil(absl::FunctionRef<bool()> done, Deadline deadline);
  absl::Status Flush();

  // Ends the bus: all outstanding requests get `reason`, and so does every later call.
  void Fail(absl::Status reason);
  const absl::Status& failure() const { return failure_; }

  // Whom a lost backend is left to; null: it is a failure of the bus. Must outlive the bus.
  void SetRecovery(BusRecovery* recovery) { recovery_ = recovery; }
  // The backend is gone: outstanding requests get `reason`, drivers go on adding to their queues,
  // and the loop asks the recovery until there is another one.
  void Lose(absl::Status reason);
  // Of the recovery: nothing is mapped any more.
  void Unmapped();
  // Of the recovery: a backend is there, behind the same memory and another port.
  void Restored(RingTerms terms, grants::EventPort port);
  bool lost() const { return !lost_.ok(); }
  // There is no backend, or one that is being given the devices again: who ends meanwhile ends the
  // bus (Fail), or waits.
  bool recovering() const { return lost() || restoring_; }
  // Whether a device may be given a queue that was in use.
  bool queues_resume() const { return recovery_ != nullptr; }
  uint64_t losses() const { return losses_; }
  // Until when each answer to what is resumed may take.
  Deadline ResumeDeadline(Clock::duration otherwise) const {
    return restoring_ ? recovery_->deadline() : After(otherwise);
  }
  // A device has something to resume: the loop has it done.
  void WantResume() { resume_wanted_ = true; }
  // How much later than at `since` (a value of paused()) a deadline is.
  Clock::duration paused() const;

  void set_max_spin(Clock::duration spin) { max_spin_ = spin_budget_ = spin; }
  const BusCounters& counters() const { return counters_; }
  RingLink& link() { return link_; }
  const wire::Profile& profile() const { return profile_; }

  // For tests of the other side. Pushes bytes as they are; sees each record before it is decoded
  // and, by returning true, keeps it from the bus.
  absl::StatusOr<bool> PushRaw(std::span<const std::byte> record) { return link_.Push(record); }
  void SetRecordTap(absl::AnyInvocable<bool(std::span<const std::byte>)> tap);

 private:
  struct Pending {
    bool used = false;
    uint16_t dev_num = 0;
    RequestToken token = 0;
    wire::MessageId id{};
    ResponseHandler handler;
  };
  struct PendingAvail {
    uint16_t dev_num;
    uint32_t queue, next_offset;
  };
  struct FdSource {
    int fd;
    absl::AnyInvocable<absl::Status()> on_readable;
  };

  // A slot for a request, or null when too many are outstanding.
  Pending* Reserve(uint16_t dev_num, wire::MessageId id, ResponseHandler handler);
  absl::StatusOr<wire::Message> AwaitResponse(
      absl::FunctionRef<absl::StatusOr<RequestToken>(ResponseHandler)> send, wire::MessageId id,
      Deadline deadline);
  void DropRequests(const absl::Status& reason);
  absl::StatusOr<bool> PollRing();
  // Poll, after what a loss has left to be done.
  absl::StatusOr<bool> Turn();
  absl::Status ResumeAll();
  absl::Status SleepWithoutBackend(int timeout_ms);
  absl::Status RunFds(std::span<const pollfd> fds);
  void Dispatch(std::span<const std::byte> record);
  void DispatchEvent(const wire::Message& message);
  void DispatchResponse(const wire::Message& message);
  void AnswerPing(const wire::Message& message);
  absl::Status SendBacklog();
  absl::StatusOr<bool> PushAvail(const PendingAvail& avail);
  absl::StatusOr<bool> PrepareToSleep();
  absl::Status Sleep(int timeout_ms);
  std::vector<FdSource>::iterator FindFd(int fd);

  const wire::Profile& profile_ = wire::Profile::V1();
  RingLink link_;
  BusCounters counters_;
  absl::Status failure_;
  BusRecovery* recovery_ = nullptr;
  absl::Status lost_;  // not OK: there is no backend, and why
  uint64_t losses_ = 0;
  bool restore_window_ = false;
  bool resume_wanted_ = false;
  bool resuming_ = false;   // in ResumeAll: a loss ends it
  bool restoring_ = false;  // ... after a loss
  Deadline lost_since_;
  Clock::duration paused_{};
  std::array<Pending, kMaxOutstanding> pending_;
  uint32_t next_slot_ = 0;
  uint16_t generation_ = 0;  // makes a token differ from the one its slot had before
  std::vector<PendingAvail> avail_backlog_;
  std::vector<std::pair<uint16_t, uint32_t>> ping_backlog_;  // token, data
  absl::flat_hash_map<uint16_t, DeviceEvents*> devices_;
  absl::AnyInvocable<void(const wire::EventDevice&)> bus_state_listener_;
  absl::AnyInvocable<bool(std::span<const std::byte>)> tap_;
  std::vector<PollSource*> sources_;
  std::vector<FdSource> fds_;
  Clock::duration max_spin_ = kDefaultMaxSpin;
  Clock::duration spin_budget_ = kDefaultMaxSpin;
  // The response of the last Call, and of the last one of what is resumed.
  std::array<std::array<std::byte, wire::kMaxMessageSize>, 2> call_payloads_;
  std::array<std::byte, wire::kMaxMessageSize> scratch_;
};

template <class Request>
absl::StatusOr<FrontendBus::RequestToken> FrontendBus::Send(uint16_t dev_num,
                                                            const Request& request,
                                                            ResponseHandler handler) {
  if (!failure_.ok()) return failure_;
  if (lost()) return lost_;
  Pending* slot = Reserve(dev_num, wire::MessageIdOf<Request>(), std::move(handler));
  if (slot == nullptr) return absl::ResourceExhaustedError("too many requests outstanding");
  absl::StatusOr<size_t> size = wire::Encode(profile_, {.dev_num = dev_num, .token = slot->token},
                                             request, scratch_, link_.max_message_size());
  absl::StatusOr<bool> pushed = false;
  if (size.ok()) {
    pushed = link_.Push(std::span(scratch_).first(*size));
  } else {
    pushed = size.status();
  }
  if (pushed.ok() && *pushed) {
    ++counters_.requests;
    return slot->token;
  }
  slot->used = false;
  slot->handler = nullptr;
  if (!pushed.ok()) return pushed.status();
  return absl::ResourceExhaustedError("the ring is full");
}

template <class Response, class Request>
absl::StatusOr<Response> FrontendBus::Call(uint16_t dev_num, const Request& request,
                                           Deadline deadline) {
  const Clock::duration paused_before = paused();
  for (;;) {
    if (lost() && !resuming_) {
      // To which the time without a backend is added.
      absl::Status back = WaitUntil([this] { return !lost(); }, Deadline::max());
      if (!back.ok()) return back;
    }
    const uint64_t losses_before = losses_;
    const Clock::duration later =
        deadline == Deadline::max() ? Clock::duration::zero() : paused() - paused_before;
    absl::StatusOr<Response> response = CallOnce<Response>(dev_num, request, deadline + later);
    if (!absl::IsUnavailable(response.status()) || losses_ == losses_before || resuming_) {
      return response;
    }
    // Not only that the backend went, but why there is no other one.
    if (!failure_.ok()) return failure_;
  }
}

template <class Response, class Request>
absl::StatusOr<Response> FrontendBus::CallOnce(uint16_t dev_num, const Request& request,
                                               Deadline deadline) {
  absl::StatusOr<wire::Message> message = AwaitResponse(
      [&](ResponseHandler handler) { return Send(dev_num, request, std::move(handler)); },
      wire::MessageIdOf<Request>(), deadline);
  if (!message.ok()) return message.status();
  return wire::Parse<Response>(profile_, *message);
}

}  // namespace vmsg::frontend
