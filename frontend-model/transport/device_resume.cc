// SPDX-License-Identifier: Apache-2.0
// A device that goes on: with the next backend, or after it asked for a reset (docs/binding.md,
// section 7).
#include <utility>

#include "absl/strings/str_cat.h"
#include "frontend-model/transport/device_client.h"

namespace vmsg::frontend {

void DeviceClient::OnLost() {
  // A device that has no driver yet, or no longer, begins anew in any case.
  if (removed_ || (reached_ == 0 && !holds_memory_)) return;
  resume_ = Resumption::kWanted;
}

void DeviceClient::OnUnmapped() { holds_memory_ = false; }

void DeviceClient::NoteNeedsReset(uint32_t status) {
  const bool needs_reset = (status & wire::kStatusDeviceNeedsReset) != 0;
  if (std::exchange(needs_reset_, needs_reset) || !needs_reset) return;
  if (state_listener_) state_listener_();
  if (removed_ || reached_ == 0) return;
  uint64_t taken = 0;
  for (const auto& queue : queues_) taken += queue == nullptr ? 0 : queue->taken();
  if (!bus_.queues_resume() || (recovered_ && taken == taken_then_)) {
    GiveUp(absl::DataLossError(
        absl::StrCat("device ", dev_num_, " needs a reset (DEVICE_NEEDS_RESET)",
                     recovered_ ? " again, and has done nothing since the last one" : "")));
    return;
  }
  recovered_ = true;
  taken_then_ = taken;
  resume_ = Resumption::kWanted;
  bus_.WantResume();
}

void DeviceClient::GiveUp(const absl::Status& reason) {
  failure_ = reason;
  reached_ = 0;
  resume_ = Resumption::kNone;
  if (state_listener_) state_listener_();
}

absl::Status DeviceClient::AwaitResumed() {
  if (resume_ == Resumption::kNone && !bus_.lost()) return absl::OkStatus();
  absl::Status waited =
      bus_.WaitUntil([this] { return (resume_ == Resumption::kNone && !bus_.lost()) || removed_; },
                     After(timeout_));
  if (!absl::IsDeadlineExceeded(waited)) return waited;
  return absl::DeadlineExceededError(
      absl::StrCat("device ", dev_num_,
                   " has not come back with the bus: is its entry refused (vmsgctl list)?"));
}

absl::Status DeviceClient::Resume() {
  uint64_t ready;
  absl::Status status;
  do {
    ready = ready_events_;
    resuming_ = true;
    resume_ = Resumption::kNone;
    status = Replay();
    resuming_ = false;
    // Opened just behind the answer that it is not there?
  } while (absl::IsNotFound(status) && ready_events_ != ready);
  if (status.ok() || removed_) return absl::OkStatus();
  if (absl::IsNotFound(status)) {
    resume_ = Resumption::kAbsent;
    return absl::OkStatus();
  }
  // Of the bus: with the next backend from the beginning.
  if (absl::IsUnavailable(status) || !bus_.failure().ok()) return status;
  GiveUp(status);
  return absl::OkStatus();
}

absl::Status DeviceClient::Identify() {
  absl::StatusOr<wire::GetDeviceInfoResponse> info =
      Call<wire::GetDeviceInfoResponse>(wire::GetDeviceInfoRequest{});
  if (!info.ok()) return info.status();
  if (info->device_id == 0) return absl::NotFoundError("the device is not there yet");
  if (info->device_id != info_.device_id || info->max_virtqueues < info_.max_virtqueues ||
      info->config_size < info_.config_size) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device ", dev_num_, " has come back as another one: type ", info->device_id, " with ",
        info->max_virtqueues, " queues and ", info->config_size, " bytes of configuration"));
  }
  return absl::OkStatus();
}

absl::Status DeviceClient::Replay() {
  if (absl::Status status = Identify(); !status.ok()) return status;
  if (absl::Status status = SetStatus(0, 0); !status.ok()) return status;
  // From here on it touches nothing that it was given before.
  holds_memory_ = false;
  if (reached_ == 0) return absl::OkStatus();
  if (absl::Status status = ReplayFeatures(); !status.ok()) return status;
  for (uint32_t index = 0; index < queues_.size(); ++index) {
    if (queues_[index] == nullptr) continue;
    if (absl::Status status = ReplayQueue(index); !status.ok()) return status;
  }
  for (const auto& [offset, data] : config_written_) {
    // As one that the driver has just decided on.
    absl::StatusOr<wire::GetConfigResponse> now = Call<wire::GetConfigResponse>(
        wire::GetConfigRequest{.offset = offset, .length = static_cast<uint32_t>(data.size())});
    if (!now.ok()) return now.status();
    absl::StatusOr<wire::SetConfigResponse> set = Call<wire::SetConfigResponse>(
        wire::SetConfigRequest{.generation = now->generation,
                               .offset = offset,
                               .length = static_cast<uint32_t>(data.size()),
                               .data = std::as_bytes(std::span(data))});
    if (!set.ok()) return set.status();
  }
  if (status_ != reached_) {
    if (absl::Status status = SetStatus(reached_, reached_); !status.ok()) return status;
  }
  if ((reached_ & wire::kStatusDriverOk) != 0) {
    for (uint32_t index = 0; index < queues_.size(); ++index) {
      if (queues_[index] == nullptr) continue;
      const bool data = has_feature(wire::kFeatureNotificationData);
      absl::Status status =
          bus_.SendAvail(dev_num_, index, data ? queues_[index]->notification_data() : 0);
      if (!status.ok()) return status;
    }
  }
  // What changed while nobody told.
  if (config_listener_) config_listener_();
  return absl::OkStatus();
}

absl::Status DeviceClient::ReplayFeatures() {
  uint32_t bits = 0;
  for (const uint32_t bit : {uint32_t{wire::kStatusAcknowledge}, uint32_t{wire::kStatusDriver}}) {
    if ((reached_ & bit) == 0) return absl::OkStatus();
    bits |= bit;
    if (absl::Status status = SetStatus(bits, bits); !status.ok()) return status;
  }
  if (features_ == 0) return absl::OkStatus();
  absl::StatusOr<std::vector<uint32_t>> offered = ReadFeatures();
  if (!offered.ok()) return offered.status();
  uint64_t device = 0;
  for (size_t i = 0; i < offered->size() && i < 2; ++i) device |= uint64_t{(*offered)[i]} << 32 * i;
  if ((device & features_) != features_) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", dev_num_, " has come back without features 0x",
                     absl::Hex(features_ & ~device), ", which its driver uses"));
  }
  if (absl::Status status = WriteFeatures(features_); !status.ok()) return status;
  if ((reached_ & wire::kStatusFeaturesOk) == 0) return absl::OkStatus();
  bits |= wire::kStatusFeaturesOk;
  return SetStatus(bits, bits);
}

absl::Status DeviceClient::ReplayQueue(uint32_t index) {
  DriverQueue& queue = *queues_[index];
  if (absl::Status status = queue.Resume(); !status.ok()) return status;
  holds_memory_ = true;
  absl::Status status = Call<wire::SetVqueueResponse>(RequestFor(index, queue)).status();
  if (!status.ok()) return status;
  absl::StatusOr<QueueInfo> after = ReadQueueInfo(index);
  if (!after.ok()) return after.status();
  if (after->cur_size == queue.size()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("device ", dev_num_, " does not go on with queue ", index, " of size ",
                   queue.size(), ": it reports size ", after->cur_size));
}

}  // namespace vmsg::frontend
