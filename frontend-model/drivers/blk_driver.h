// SPDX-License-Identifier: Apache-2.0
// A driver for block devices (virtio 1.4, section "Block Device"). Data moves between the device
// and buffers in the window, without a copy.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/deadline.h"
#include "frontend-model/bus/frontend_bus.h"
#include "frontend-model/queue/driver_queue.h"
#include "frontend-model/transport/device_client.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::frontend {

struct BlkLimits {
  uint64_t capacity = 0;  // bytes
  uint32_t block_size = 512;
  bool read_only = false;
  bool flush = false;  // writes may be cached until Flush
  uint32_t max_segments = 1;
  uint32_t max_segment_size = 0;
  uint32_t max_request = 0;  // bytes of one request
};

// Told when a request ends. Runs in the bus's loop: may submit, must not wait.
class BlkCompletion {
 public:
  virtual ~BlkCompletion() = default;
  virtual void OnBlkDone(uint64_t tag, const absl::Status& status) = 0;
};

struct BlkOptions {
  uint32_t depth = 128;  // requests in flight
  uint32_t queue_size = 256;
  uint64_t features = ~uint64_t{0};  // what may be negotiated
};

// Not thread-safe. While it lives its queue is polled by the bus's loop; nothing is allocated for a
// request.
class BlkDriver final : public PollSource {
 public:
  // Negotiates, sets the queue up and starts the device. InvalidArgument: it is no block device, or
  // says things about itself that cannot be.
  static absl::StatusOr<std::unique_ptr<BlkDriver>> Create(std::unique_ptr<DeviceClient> client,
                                                           const BlkOptions& options = {});
  // Resets the device; requests in flight end with Cancelled.
  ~BlkDriver() override;

  // The capacity follows the device's (EVENT_CONFIG); the rest stays.
  const BlkLimits& limits() const { return limits_; }
  DeviceClient& client() { return *client_; }
  uint32_t depth() const { return static_cast<uint32_t>(slots_.size()); }
  uint32_t in_flight() const { return in_flight_; }

  // One request over [address, address + size) of the window. offset and size in bytes, multiples
  // of 512, size at most max_request. ResourceExhausted: depth requests are in flight. Unavailable:
  // the device is being removed. Shown to the device when the bus's loop runs next.
  absl::Status SubmitRead(uint64_t offset, uint64_t address, uint32_t size, BlkCompletion* done,
                          uint64_t tag);
  absl::Status SubmitWrite(uint64_t offset, uint64_t address, uint32_t size, BlkCompletion* done,
                           uint64_t tag);
  // Everything completed before is on stable storage when this is done.
  absl::Status SubmitFlush(BlkCompletion* done, uint64_t tag);

  // The same and wait, in as many requests as it takes, as many at once as fit.
  absl::Status Read(uint64_t offset, uint64_t address, uint64_t size, Deadline deadline);
  absl::Status Write(uint64_t offset, uint64_t address, uint64_t size, Deadline deadline);
  absl::Status Flush(Deadline deadline);
  // The serial, at most 20 bytes. Unimplemented: the device has none.
  absl::StatusOr<std::string> GetId(Deadline deadline);

  // Submits no more, waits for what is in flight and resets the device: what a driver does when its
  // device's removal is requested. No request is in flight afterwards, whatever it returns.
  absl::Status Quiesce(Deadline deadline);
  // Ends what is in flight with `reason` and submits no more: for a bus that has failed. A device
  // that was not reset may still write to the buffers of these requests, so that what is given back
  // of the window is used by nobody until the bus is closed.
  void Abandon(const absl::Status& reason);

  bool Poll() override;
  bool PrepareToSleep() override;
  // The device broke a rule of the used ring, or cannot go on; the driver no longer uses it. What
  // is in flight ends when the device has been reset, not before.
  const absl::Status& failure() const { return failure_; }

 private:
  struct Slot {
    BlkCompletion* done = nullptr;
    uint64_t tag = 0;
    uint32_t expected = 0;  // bytes the device writes when it succeeds, the status byte included
  };
  BlkDriver(std::unique_ptr<DeviceClient> client) : client_(std::move(client)) {}
  absl::Status Start(const BlkOptions& options);
  absl::Status Submit(uint32_t type, uint64_t offset, uint64_t address, uint32_t size,
                      BlkCompletion* done, uint64_t tag);
  absl::Status Transfer(uint32_t type, uint64_t offset, uint64_t address, uint64_t size,
                        Deadline deadline);
  class Gathered;
  // Until all of it is back; what is not in time is so after the end of the device.
  absl::Status Await(Gathered& gathered, absl::FunctionRef<bool()> step, Deadline deadline);
  absl::Status ReadLimits();
  void AskForCapacity();
  void SetCapacity(uint64_t sectors);
  bool EndAfterReset();
  void Finish(const DriverQueue::Completion& completion);
  absl::Status CheckUsable() const;

  std::unique_ptr<DeviceClient> client_;
  DriverQueue* queue_ = nullptr;
  BlkLimits limits_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  GuestBlock headers_;  // per slot: the request header, then the status byte
  GuestBlock id_;
  std::vector<Buffer> chain_;
  uint32_t in_flight_ = 0;
  bool notifications_ = true;
  bool stopped_ = false;
  bool capacity_changed_ = false;
  bool capacity_asked_ = false;
  absl::Status failure_;
};

}  // namespace vmsg::frontend
