// SPDX-License-Identifier: Apache-2.0
// A device's life on the transport: features, configuration, queues, status, notifications and
// reset (virtio-msg, "Device Initialization", "Device Operation", "Transport Messages"). This is
// the one type that has it: a device type sees what Device shows, the bus sees requests and
// answers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/devices/device.h"
#include "backend/transport/feature_negotiation.h"
#include "backend/virtqueue/split_queue.h"
#include "grants/window.h"
#include "virtio-msg/messages.h"

namespace vmsg::backend {

// Most queues of a device: a set of queues is then one word.
inline constexpr uint32_t kMaxQueuesPerDevice = 64;

// What the transport wants of the bus that carries it. All calls are cheap: they note what is to be
// done, and the bus does it in its own turn.
class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  virtual void WantEventUsed(uint32_t queue) = 0;
  virtual void WantEventConfig() = 0;  // TakeConfigEvent has it
  // The queue, or the device, was reset: what is due of it and not sent yet is not sent any more,
  // because the driver has its memory back with the answer that follows.
  virtual void ForgetEventUsed(uint32_t queue) = 0;
  virtual void ForgetEventConfig() = 0;
  virtual void WantTurn() = 0;  // Advance or RunQueues has something to do
  // Something the driver or the device did wrong; for a log at a bounded rate.
  virtual void Problem(const absl::Status& what) = 0;
};

// Belongs to the session's thread. Requests to one device are handled one after the other: after a
// request whose answer is deferred, none may be handled until it was given.
class DeviceTransport : private DeviceHost {
 public:
  // `window` and `events` must outlive the result. queue_resume: the bus has feature-queue-resume.
  // InvalidArgument: the device's identity is not one that can be offered.
  static absl::StatusOr<std::unique_ptr<DeviceTransport>> Create(std::unique_ptr<Device> device,
                                                                 grants::Window& window,
                                                                 TransportEvents& events,
                                                                 bool queue_resume = false);
  // Nothing may be in flight: Shutdown has finished.
  ~DeviceTransport() override;

  // Requests. Variable parts of answers are written to `scratch`, which is as large as a message's
  // payload may be: what would not fit is refused or shortened, as the comment says.
  wire::GetDeviceInfoResponse Handle(const wire::GetDeviceInfoRequest& request) const;
  // num_blocks of the answer is smaller than asked if it would not fit.
  wire::GetDeviceFeaturesResponse Handle(const wire::GetDeviceFeaturesRequest& request,
                                         std::span<std::byte> scratch) const;
  wire::SetDriverFeaturesResponse Handle(const wire::SetDriverFeaturesRequest& request);
  // Bytes past the configuration's end read as zero; a length that no answer can carry, and an
  // offset that wraps, are answered with length 0.
  wire::GetConfigResponse Handle(const wire::GetConfigRequest& request,
                                 std::span<std::byte> scratch) const;
  // Rejected (length 0): a generation that is not the current one, a range that is not inside the
  // configuration, a field or value that the device does not allow.
  wire::SetConfigResponse Handle(const wire::SetConfigRequest& request);
  wire::GetDeviceStatusResponse Handle(const wire::GetDeviceStatusRequest& request) const;
  wire::GetVqueueResponse Handle(const wire::GetVqueueRequest& request) const;
  wire::GetShmResponse Handle(const wire::GetShmRequest& request) const;

  // Requests whose answer waits for a queue to drain. `done` runs at once or in a later Advance.
  using StatusDone = absl::AnyInvocable<void(wire::SetDeviceStatusResponse)>;
  using Done = absl::AnyInvocable<void()>;
  void HandleDeferred(const wire::SetDeviceStatusRequest& request, StatusDone done);
  void HandleDeferred(const wire::SetVqueueRequest& request, Done done);
  void HandleDeferred(const wire::ResetVqueueRequest& request, Done done);

  void HandleEvent(const wire::EventAvail& event);

  // The EVENT_CONFIG that is due: everything that changed since the last one, as one range, with
  // its data when that fits `scratch`.
  wire::EventConfig TakeConfigEvent(std::span<std::byte> scratch);

  // Finishes what has drained. Never from within a call of Device or SplitQueue.
  void Advance();
  // Lets the device take up to `budget` chains of each queue that runs. True: it did something.
  bool RunQueues(uint32_t budget);
  bool has_running_queues() const { return running_ != 0; }
  // Asks for notifications on the queues that run; true: chains came meanwhile, RunQueues again.
  bool ArmQueues();

  // As a reset, for the end of the device: answers what is deferred, takes no more chains, `done`
  // runs (in Advance, or at once) when nothing is in flight and the window is not pointed at.
  void Shutdown(Done done);

  uint32_t status() const { return status_; }
  const DeviceIdentity& identity() const { return identity_; }
  const Device& device() const { return *device_; }
  // True when an area of a queue that is set up lies in the window's [first, first + bytes).
  bool QueueAreasIn(uint64_t first, uint64_t bytes) const;

 private:
  enum class QueueState : uint8_t { kUnset, kActive, kStopping, kDrained };
  struct Queue {
    std::unique_ptr<SplitQueue> ring;
    QueueState state = QueueState::kUnset;
    uint64_t broken_reported = 0;
  };
  enum class Operation : uint8_t { kNone, kReset, kResetQueue, kSetQueue };

  DeviceTransport(std::unique_ptr<Device> device, grants::Window& window, TransportEvents& events,
                  bool queue_resume);

  // DeviceHost, transport_queues.cc unless noted.
  SplitQueue* queue(uint32_t index) override;
  void Completed(uint32_t index) override;
  void ChangeConfig(uint32_t offset, uint32_t length,
                    absl::AnyInvocable<void()> change) override;  // device_transport.cc
  void NeedsReset(const absl::Status& reason) override;           // device_transport.cc
  void Report(const absl::Status& what) override { events_.Problem(what); }
  void Settled() override { events_.WantTurn(); }

  void Start();
  bool live() const;  // queues are being served
  void BeginReset();
  void NoteConfigChange(uint32_t offset, uint32_t length);
  // Runs what may change configuration without ChangeConfig: a new generation if it did.
  void Watching(absl::FunctionRef<void()> change);
  void StopQueue(uint32_t index);
  void FreeDrained();
  void FinishQueueOperation(bool install);
  void InstallQueue(const wire::SetVqueueRequest& request);
  void RunSoon(uint32_t index);
  bool RunQueue(uint32_t index, uint32_t budget);
  bool AllUnset() const;

  const std::unique_ptr<Device> device_;
  const DeviceIdentity identity_;
  grants::Window& window_;
  TransportEvents& events_;
  const bool queue_resume_;

  FeatureNegotiation features_;
  uint32_t status_ = 0;
  uint32_t generation_ = 0;
  bool started_ = false;

  std::vector<Queue> queues_;
  uint64_t running_ = 0;      // queues we look at ourselves, a bit for each
  uint64_t completions_ = 0;  // calls of Completed

  // What changed since the last EVENT_CONFIG; empty: the status only.
  uint32_t changed_begin_ = 0;
  uint32_t changed_end_ = 0;

  Operation operation_ = Operation::kNone;
  uint32_t operation_queue_ = 0;
  wire::SetVqueueRequest set_request_{};
  StatusDone status_done_;
  Done done_;
  Done shutdown_done_;
  bool shutting_down_ = false;
};

}  // namespace vmsg::backend
