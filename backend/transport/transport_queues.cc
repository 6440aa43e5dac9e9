// SPDX-License-Identifier: Apache-2.0
// The queues of a device: set up, run, stopped, drained.
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/transport/device_transport.h"
#include "virtio-msg/split_ring.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {

wire::GetVqueueResponse DeviceTransport::Handle(const wire::GetVqueueRequest& request) const {
  wire::GetVqueueResponse response{};
  response.index = request.index;
  if (request.index >= queues_.size()) return response;
  response.max_size = identity_.max_queue_sizes[request.index];
  const Queue& queue = queues_[request.index];
  if (queue.state != QueueState::kActive) return response;
  const QueueLayout& layout = queue.ring->layout();
  response.cur_size = layout.size;
  response.desc_addr = layout.desc;
  response.driver_addr = layout.driver;
  response.device_addr = layout.device;
  return response;
}

void DeviceTransport::HandleDeferred(const wire::SetVqueueRequest& request, Done done) {
  if (request.index >= queues_.size()) {
    events_.Problem(absl::InvalidArgumentError(absl::StrCat(
        "SET_VQUEUE of queue ", request.index, " refused: the device has ", queues_.size())));
    done();
    return;
  }
  if ((status_ & wire::kStatusFeaturesOk) == 0) {
    events_.Problem(absl::FailedPreconditionError(
        absl::StrCat("SET_VQUEUE of queue ", request.index,
                     " refused: FEATURES_OK comes first, the rings' layout depends on it")));
    done();
    return;
  }
  // A queue that is set up already is drained before its parameters change.
  operation_ = Operation::kSetQueue;
  operation_queue_ = request.index;
  set_request_ = request;
  done_ = std::move(done);
  StopQueue(request.index);
  Advance();
}

void DeviceTransport::HandleDeferred(const wire::ResetVqueueRequest& request, Done done) {
  if (request.index >= queues_.size() ||
      (features_.acknowledged() & wire::kFeatureRingReset) == 0 || !features_.frozen()) {
    events_.Problem(absl::FailedPreconditionError(absl::StrCat(
        "RESET_VQUEUE of queue ", request.index, " has no effect: ",
        request.index >= queues_.size() ? "there is no such queue"
                                        : "VIRTIO_F_RING_RESET (bit 40) was not negotiated")));
    done();
    return;
  }
  operation_ = Operation::kResetQueue;
  operation_queue_ = request.index;
  done_ = std::move(done);
  StopQueue(request.index);
  Advance();
}

void DeviceTransport::FinishQueueOperation(bool install) {
  if (install && !shutting_down_) InstallQueue(set_request_);
  std::exchange(done_, nullptr)();
}

void DeviceTransport::InstallQueue(const wire::SetVqueueRequest& request) {
  const uint32_t index = request.index;
  const uint32_t max_size = identity_.max_queue_sizes[index];
  if (!std::has_single_bit(request.size) || request.size > max_size) {
    events_.Problem(absl::InvalidArgumentError(
        absl::StrCat("SET_VQUEUE of queue ", index, " refused: size ", request.size,
                     " is no power of two of at most ", max_size)));
    return;
  }
  const uint64_t features = features_.acknowledged();
  absl::StatusOr<std::unique_ptr<SplitQueue>> ring =
      SplitQueue::Create(window_,
                         {.size = request.size,
                          .desc = request.desc_addr,
                          .driver = request.driver_addr,
                          .device = request.device_addr},
                         {.event_idx = (features & wire::kFeatureEventIdx) != 0,
                          .indirect = (features & wire::kFeatureIndirectDesc) != 0,
                          .resume = queue_resume_});
  if (!ring.ok()) {
    events_.Problem(absl::Status(
        ring.status().code(),
        absl::StrCat("SET_VQUEUE of queue ", index, " refused: ", ring.status().message())));
    return;
  }
  queues_[index].ring = *std::move(ring);
  queues_[index].state = QueueState::kActive;
  queues_[index].broken_reported = 0;
  // The driver may have filled it already, and its EVENT_AVAIL may have come too early.
  RunSoon(index);
}

void DeviceTransport::HandleEvent(const wire::EventAvail& event) {
  if (event.vq_index >= queues_.size()) {
    events_.Problem(absl::InvalidArgumentError(absl::StrCat(
        "EVENT_AVAIL for queue ", event.vq_index, " dropped: the device has ", queues_.size())));
    return;
  }
  // next_offset (VIRTIO_F_NOTIFICATION_DATA) repeats what the available ring says; the ring is what
  // counts. Before DRIVER_OK the event does nothing: all queues are looked at when it comes.
  RunSoon(event.vq_index);
}

void DeviceTransport::RunSoon(uint32_t index) {
  if (!live() || queues_[index].state != QueueState::kActive) return;
  const uint64_t bit = uint64_t{1} << index;
  if ((running_ & bit) == 0) {
    running_ |= bit;
    queues_[index].ring->DisableKicks();
  }
  events_.WantTurn();
}

bool DeviceTransport::RunQueues(uint32_t budget) {
  bool worked = false;
  for (uint64_t left = running_; left != 0; left &= left - 1) {
    worked |= RunQueue(static_cast<uint32_t>(std::countr_zero(left)), budget);
  }
  return worked;
}

bool DeviceTransport::RunQueue(uint32_t index, uint32_t budget) {
  Queue& queue = queues_[index];
  // An earlier queue of this turn may have ended it all.
  if (!live() || queue.state != QueueState::kActive || !queue.ring->HasAvailable()) return false;
  SplitQueue& ring = *queue.ring;
  const uint64_t completions = completions_;
  const uint32_t in_flight = ring.in_flight();
  const uint64_t broken = ring.broken_chains();
  const bool more = device_->OnQueue(index, budget);
  if (ring.broken_chains() != queue.broken_reported) {
    queue.broken_reported = ring.broken_chains();
    events_.Problem(absl::Status(ring.last_broken().code(),
                                 absl::StrCat("queue ", index, ": ", ring.last_broken().message(),
                                              " (", ring.broken_chains(), " broken chains)")));
  }
  if (more || !live() || !ring.HasAvailable()) return true;
  const bool took = completions_ != completions || ring.in_flight() != in_flight ||
                    ring.broken_chains() != broken;
  if (took) return true;
  // The device leaves the chains where they are (an input queue without input) and takes them when
  // it wants them: looking again would find the same. New ones are announced by the driver.
  running_ &= ~(uint64_t{1} << index);
  (void)ring.EnableKicks();
  return false;
}

bool DeviceTransport::ArmQueues() {
  bool more = false;
  for (uint64_t left = running_; left != 0; left &= left - 1) {
    const uint32_t index = static_cast<uint32_t>(std::countr_zero(left));
    SplitQueue& ring = *queues_[index].ring;
    if (ring.EnableKicks()) {
      ring.DisableKicks();
      more = true;
    } else {
      running_ &= ~(uint64_t{1} << index);
    }
  }
  return more;
}

SplitQueue* DeviceTransport::queue(uint32_t index) {
  if (!started_ || index >= queues_.size()) return nullptr;
  // Also while it stops: chains in flight go back through it.
  return queues_[index].ring.get();
}

void DeviceTransport::Completed(uint32_t index) {
  ++completions_;
  // A part of the window that was withdrawn may have waited for this chain.
  if (window_.has_drained()) events_.WantTurn();
  if (index >= queues_.size() || queues_[index].state != QueueState::kActive) return;
  // A driver that waited for this has its next request ready: it is looked for, without a kick.
  RunSoon(index);
  if (queues_[index].ring->Publish()) events_.WantEventUsed(index);
}

void DeviceTransport::StopQueue(uint32_t index) {
  Queue& queue = queues_[index];
  if (queue.state != QueueState::kActive) return;
  running_ &= ~(uint64_t{1} << index);
  queue.state = QueueState::kStopping;
  // The ring is freed in Advance: this may run inside a call of the ring or of the device.
  queue.ring->Stop([this, index] {
    queues_[index].state = QueueState::kDrained;
    events_.WantTurn();
  });
  if (started_) device_->OnQueueStopping(index);
}

void DeviceTransport::FreeDrained() {
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    Queue& queue = queues_[i];
    if (queue.state != QueueState::kDrained) continue;
    queue.ring.reset();
    queue.state = QueueState::kUnset;
    events_.ForgetEventUsed(i);
  }
}

bool DeviceTransport::AllUnset() const {
  for (const Queue& queue : queues_) {
    if (queue.state != QueueState::kUnset) return false;
  }
  return true;
}

bool DeviceTransport::QueueAreasIn(uint64_t first, uint64_t bytes) const {
  const bool event_idx = (features_.acknowledged() & wire::kFeatureEventIdx) != 0;
  for (const Queue& queue : queues_) {
    if (queue.ring == nullptr) continue;
    const QueueLayout& layout = queue.ring->layout();
    const auto meets = [&](uint64_t address, uint64_t size) {
      return address < first + bytes && first < address + size;
    };
    if (meets(layout.desc, wire::DescriptorAreaSize(layout.size)) ||
        meets(layout.driver, wire::DriverAreaSize(layout.size, event_idx)) ||
        meets(layout.device, wire::DeviceAreaSize(layout.size, event_idx))) {
      return true;
    }
  }
  return false;
}

}  // namespace vmsg::backend
