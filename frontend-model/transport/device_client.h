// SPDX-License-Identifier: Apache-2.0
// One virtio device as its driver sees it through the transport: information, features,
// configuration, status and virtqueues (virtio-msg, sections "Device Initialization" and "Device
// Operation"). What a driver must do in which order is kept here, so that drivers cannot forget it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/bus/frontend_bus.h"
#include "frontend-model/memory/guest_memory.h"
#include "frontend-model/queue/driver_queue.h"
#include "virtio-msg/messages.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::frontend {

struct DeviceInfo {
  uint32_t device_id = 0;
  uint32_t vendor_id = 0;
  uint32_t num_feature_bits = 0;
  uint32_t config_size = 0;
  uint32_t max_virtqueues = 0;
};

struct QueueInfo {
  uint32_t max_size = 0;
  uint32_t cur_size = 0;
};

// Not thread-safe; the bus and the memory must outlive it. Calls wait on the bus, for at most the
// call timeout each, and return its error when it failed. After REMOVED every call returns
// Unavailable.
//
// A backend that is lost takes nothing along: the next one is given the status, features and queues
// that the device had, with what was in flight in them (docs/binding.md, section 7), and a call
// that was waiting is made again. So is a device that asks for a reset given its queues again.
class DeviceClient final : public DeviceEvents {
 public:
  static constexpr Clock::duration kDefaultCallTimeout = std::chrono::seconds(10);
  // A configuration that changes on every one of so many reads in a row is not waited for.
  static constexpr int kMaxConfigRetries = 16;
  // Caps on what the device says about itself, before anything is allocated from it.
  static constexpr uint32_t kMaxFeatureBits = 1024;
  static constexpr uint32_t kMaxConfigSize = 64 * 1024;

  // GET_DEVICE_INFO. NotFound: the number has no device (its answer is all zeros).
  static absl::StatusOr<std::unique_ptr<DeviceClient>> Probe(
      FrontendBus& bus, GuestMemory& memory, uint16_t dev_num,
      Clock::duration timeout = kDefaultCallTimeout);
  ~DeviceClient() override;

  uint16_t dev_num() const { return dev_num_; }
  const DeviceInfo& info() const { return info_; }
  FrontendBus& bus() { return bus_; }
  GuestMemory& memory() { return memory_; }

  // GET_DEVICE_FEATURES for every block the device has; word i holds bits 32 * i and up.
  absl::StatusOr<std::vector<uint32_t>> ReadFeatures();

  // Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. Enables what both `wanted` and the device
  // have; VERSION_1 is always asked for. FailedPrecondition: the device has not VERSION_1, lacks a
  // bit of `required`, or refused the set; the device is left with FAILED.
  absl::StatusOr<uint64_t> Negotiate(uint64_t wanted, uint64_t required = 0);
  uint64_t features() const { return features_; }
  bool has_feature(uint64_t mask) const { return (features_ & mask) == mask; }

  // All of [offset, offset + out.size()) from one generation, in as many messages as it takes.
  // OutOfRange: beyond config_size. Aborted: it kept changing.
  absl::Status ReadConfig(uint32_t offset, std::span<std::byte> out);
  // One field, at most a message long. Refreshes the generation and tries again when the device
  // says it is stale; InvalidArgument: the device rejected the value itself.
  absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data);
  uint32_t generation() const { return generation_; }
  // The same for a range that one message holds, without waiting: for use in the bus's loop.
  // `handler` gets the bytes, or why there are none; a backend that is lost meanwhile is one
  // reason.
  absl::Status RequestConfig(uint32_t offset, uint32_t length,
                             absl::AnyInvocable<void(absl::StatusOr<std::string>)> handler);

  absl::StatusOr<QueueInfo> ReadQueueInfo(uint32_t index);
  // Programs an inactive queue with at most `wanted_size` entries and confirms that it took.
  absl::StatusOr<DriverQueue*> SetUpQueue(uint32_t index, uint32_t wanted_size,
                                          uint32_t indirect_entries = 16);
  // RESET_VQUEUE, confirmed; the queue object is gone then. FailedPrecondition: RING_RESET was not
  // negotiated.
  absl::Status ResetQueue(uint32_t index);
  DriverQueue* queue(uint32_t index) const;

  // DRIVER_OK, checked.
  absl::Status Start();
  absl::StatusOr<uint32_t> ReadStatus();
  // Writes 0, confirmed. Queues are gone then: take what was in flight first (AbandonInFlight).
  absl::Status Reset();
  // The same without waiting: for use in the bus's loop, again and again until !holds_memory().
  // The queues are not gone then.
  void ResetSoon();
  // The device may still read and write the queues' memory and the buffers in them: from the first
  // SET_VQUEUE on until a reset is answered, it is removed, or the bus is unmapped. Only then may
  // their blocks be used for something else.
  bool holds_memory() const { return holds_memory_; }
  // As Reset, for the end of a driver: what it gives back afterwards is used by nobody if the
  // device does not answer (GuestMemory::Freeze).
  void LetGo();
  // For who programs queues without SetUpQueue.
  void set_holds_memory() { holds_memory_ = true; }

  // Shows the device what was added to the queue and tells it if it wants to be told.
  // FailedPrecondition, and nothing shown: before DRIVER_OK, or the queue is not set up.
  absl::Status Publish(uint32_t index);

  // DEVICE_NEEDS_RESET was seen and not yet answered with a reset.
  bool needs_reset() const { return needs_reset_; }
  // Not OK: the device cannot go on. It wanted a reset on a bus whose queues do not go on, or twice
  // and did nothing between, or came back as another; its driver resets it and ends.
  const absl::Status& failure() const { return failure_; }
  // EVENT_DEVICE 0x8000 was seen: end requests in flight, then Reset().
  bool removal_requested() const { return removal_requested_; }
  bool removed() const { return removed_; }

  // Called from the bus's loop, must not wait: after EVENT_CONFIG; after a change of one of the
  // three above.
  void set_config_listener(absl::AnyInvocable<void()> listener) {
    config_listener_ = std::move(listener);
  }
  void set_state_listener(absl::AnyInvocable<void()> listener) {
    state_listener_ = std::move(listener);
  }

  void OnUsed(uint32_t queue) override;
  void OnConfig(const wire::EventConfig& event) override;
  void OnBusState(uint16_t state) override;
  void OnLost() override;
  void OnUnmapped() override;
  bool WantsResume() const override { return resume_ == Resumption::kWanted; }
  bool IsAbsent() const override { return resume_ == Resumption::kAbsent; }
  absl::Status Resume() override;

 private:
  // What stands between the driver and a device that had a driver before.
  enum class Resumption : uint8_t {
    kNone,
    kWanted,  // Resume is next
    kAbsent,  // the backend has not opened the device yet; EVENT_DEVICE ready is next
  };
  DeviceClient(FrontendBus& bus, GuestMemory& memory, uint16_t dev_num, Clock::duration timeout)
      : bus_(bus), memory_(memory), dev_num_(dev_num), timeout_(timeout) {}
  template <class Response, class Request>
  absl::StatusOr<Response> Call(const Request& request);
  static wire::SetVqueueRequest RequestFor(uint32_t index, const DriverQueue& queue);
  absl::Status SetStatus(uint32_t status, uint32_t must_have);
  absl::Status WriteFeatures(uint64_t features);
  absl::Status CheckConfigRange(uint32_t offset, size_t length) const;
  absl::Status Refuse(absl::Status reason);
  // device_resume.cc
  absl::Status AwaitResumed();
  absl::Status Identify();
  absl::Status Replay();
  absl::Status ReplayFeatures();
  absl::Status ReplayQueue(uint32_t index);
  void NoteNeedsReset(uint32_t status);
  void GiveUp(const absl::Status& reason);

  FrontendBus& bus_;
  GuestMemory& memory_;
  const uint16_t dev_num_;
  const Clock::duration timeout_;
  DeviceInfo info_;
  uint64_t features_ = 0;
  uint32_t status_ = 0;   // as last returned
  uint32_t reached_ = 0;  // the driver's bits that the device has taken: what a resumption repeats
  uint32_t generation_ = 0;
  bool needs_reset_ = false;
  Resumption resume_ = Resumption::kNone;
  bool resuming_ = false;
  bool holds_memory_ = false;
  bool resetting_ = false;  // ResetSoon's message is out
  bool recovered_ = false;  // from a wish for a reset, when so much had been taken:
  uint64_t taken_then_ = 0;
  absl::Status failure_;
  // What the driver wrote to the configuration, in order: a resumption repeats it.
  std::vector<std::pair<uint32_t, std::string>> config_written_;
  bool removal_requested_ = false;
  bool removed_ = false;
  uint64_t ready_events_ = 0;
  std::vector<std::unique_ptr<DriverQueue>> queues_;
  // That the device did not take, as it says: not used, and kept from others until a reset.
  std::vector<std::unique_ptr<DriverQueue>> refused_queues_;
  absl::AnyInvocable<void()> config_listener_;
  absl::AnyInvocable<void()> state_listener_;
};

template <class Response, class Request>
absl::StatusOr<Response> DeviceClient::Call(const Request& request) {
  for (;;) {
    if (removed_) {
      return absl::UnavailableError(absl::StrCat("device ", dev_num_, " was removed from the bus"));
    }
    if (resuming_) {
      return bus_.CallOnce<Response>(dev_num_, request, bus_.ResumeDeadline(timeout_));
    }
    if (absl::Status status = AwaitResumed(); !status.ok()) return status;
    const uint64_t losses = bus_.losses();
    absl::StatusOr<Response> response = bus_.CallOnce<Response>(dev_num_, request, After(timeout_));
    if (!absl::IsUnavailable(response.status()) || bus_.losses() == losses) return response;
    if (!bus_.failure().ok()) return bus_.failure();
  }
}

}  // namespace vmsg::frontend
