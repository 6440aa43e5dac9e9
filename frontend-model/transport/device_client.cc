// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/transport/device_client.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::frontend {
namespace {

constexpr uint32_t kBitsPerBlock = 32;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceClient>> DeviceClient::Probe(FrontendBus& bus,
                                                                  GuestMemory& memory,
                                                                  uint16_t dev_num,
                                                                  Clock::duration timeout) {
  std::unique_ptr<DeviceClient> client(new DeviceClient(bus, memory, dev_num, timeout));
  absl::StatusOr<wire::GetDeviceInfoResponse> info =
      client->Call<wire::GetDeviceInfoResponse>(wire::GetDeviceInfoRequest{});
  if (!info.ok()) return info.status();
  if (info->device_id == 0) {
    return absl::NotFoundError(absl::StrCat("the bus has no device ", dev_num));
  }
  if (info->num_feature_bits > kMaxFeatureBits || info->config_size > kMaxConfigSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", dev_num, " reports ", info->num_feature_bits,
                     " feature bits (at most ", kMaxFeatureBits, ") and ", info->config_size,
                     " bytes of configuration (at most ", kMaxConfigSize, ")"));
  }
  client->info_ = {.device_id = info->device_id,
                   .vendor_id = info->vendor_id,
                   .num_feature_bits = info->num_feature_bits,
                   .config_size = info->config_size,
                   .max_virtqueues = info->max_virtqueues};
  bus.SetDeviceEvents(dev_num, client.get());
  return client;
}

DeviceClient::~DeviceClient() {
  bus_.SetDeviceEvents(dev_num_, nullptr);
  // Its queues are given back now.
  if (holds_memory_) memory_.Freeze();
}

absl::StatusOr<std::vector<uint32_t>> DeviceClient::ReadFeatures() {
  const uint32_t blocks = (info_.num_feature_bits + kBitsPerBlock - 1) / kBitsPerBlock;
  const uint32_t per_message =
      static_cast<uint32_t>(bus_.link().max_message_size() - wire::kHeaderSize - 8) / 4;
  std::vector<uint32_t> words(blocks);
  for (uint32_t block = 0; block < blocks;) {
    const uint32_t count = std::min(per_message, blocks - block);
    absl::StatusOr<wire::GetDeviceFeaturesResponse> response =
        Call<wire::GetDeviceFeaturesResponse>(
            wire::GetDeviceFeaturesRequest{.block_index = block, .num_blocks = count});
    if (!response.ok()) return response.status();
    if (response->block_index != block || response->num_blocks > count) {
      return absl::InternalError(absl::StrCat("device ", dev_num_,
                                              " answered GET_DEVICE_FEATURES for block ", block,
                                              " with block ", response->block_index));
    }
    // None at all: the rest is zero. Fewer than were asked for: the others are asked for next.
    if (response->features.size() == 0) break;
    for (uint32_t i = 0; i < response->features.size(); ++i) {
      words[block + i] = response->features[i];
    }
    block += response->num_blocks;
  }
  return words;
}

absl::Status DeviceClient::SetStatus(uint32_t status, uint32_t must_have) {
  absl::StatusOr<wire::SetDeviceStatusResponse> response =
      Call<wire::SetDeviceStatusResponse>(wire::SetDeviceStatusRequest{status});
  if (!response.ok()) return response.status();
  status_ = response->status;
  if (!resuming_) reached_ = status & status_ & ~uint32_t{wire::kStatusDeviceNeedsReset};
  NoteNeedsReset(status_);
  if ((status_ & must_have) != must_have) {
    return absl::FailedPreconditionError(absl::StrCat("device ", dev_num_, " answered status 0x",
                                                      absl::Hex(status_), " to 0x",
                                                      absl::Hex(status)));
  }
  return absl::OkStatus();
}

absl::Status DeviceClient::Refuse(absl::Status reason) {
  SetStatus(status_ | wire::kStatusFailed, 0).IgnoreError();
  return reason;
}

absl::Status DeviceClient::WriteFeatures(uint64_t features) {
  std::array<std::byte, 8> words;
  std::memcpy(words.data(), &features, sizeof(features));
  // Blocks the device does not have are left out; nothing is wanted from them.
  const uint32_t blocks =
      std::min<uint32_t>(2, (info_.num_feature_bits + kBitsPerBlock - 1) / kBitsPerBlock);
  return Call<wire::SetDriverFeaturesResponse>(
             wire::SetDriverFeaturesRequest{
                 .block_index = 0,
                 .num_blocks = blocks,
                 .features =
                     wire::WordView(std::span<const std::byte>(words).first(size_t{blocks} * 4))})
      .status();
}

absl::StatusOr<uint64_t> DeviceClient::Negotiate(uint64_t wanted, uint64_t required) {
  if (absl::Status status = Reset(); !status.ok()) return status;
  failure_ = absl::OkStatus();
  recovered_ = false;
  absl::Status status = SetStatus(wire::kStatusAcknowledge, wire::kStatusAcknowledge);
  if (status.ok()) {
    const uint32_t driver = wire::kStatusAcknowledge | wire::kStatusDriver;
    status = SetStatus(driver, driver);
  }
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<uint32_t>> offered = ReadFeatures();
  if (!offered.ok()) return offered.status();
  uint64_t device = 0;
  for (size_t i = 0; i < offered->size() && i < 2; ++i) device |= uint64_t{(*offered)[i]} << 32 * i;

  required |= wire::kFeatureVersion1;
  if ((device & required) != required) {
    return Refuse(absl::FailedPreconditionError(
        absl::StrCat("device ", dev_num_, " offers features 0x", absl::Hex(device), " and lacks 0x",
                     absl::Hex(required & ~device), ", which the driver needs")));
  }
  const uint64_t chosen = device & (wanted | required);
  if (status = WriteFeatures(chosen); !status.ok()) return status;
  // Repeated with FEATURES_OK: what is set before it, is so by whoever sets it.
  features_ = chosen;
  const uint32_t features_ok = status_ | wire::kStatusFeaturesOk;
  if (status = SetStatus(features_ok, features_ok); !status.ok()) {
    features_ = 0;
    if (!absl::IsFailedPrecondition(status)) return status;
    return Refuse(absl::FailedPreconditionError(absl::StrCat(
        "device ", dev_num_, " refused features 0x", absl::Hex(chosen), ": ", status.message())));
  }
  return chosen;
}

absl::StatusOr<QueueInfo> DeviceClient::ReadQueueInfo(uint32_t index) {
  absl::StatusOr<wire::GetVqueueResponse> response =
      Call<wire::GetVqueueResponse>(wire::GetVqueueRequest{index});
  if (!response.ok()) return response.status();
  if (response->index != index) {
    return absl::InternalError(absl::StrCat("device ", dev_num_, " answered GET_VQUEUE ", index,
                                            " with queue ", response->index));
  }
  return QueueInfo{.max_size = response->max_size, .cur_size = response->cur_size};
}

wire::SetVqueueRequest DeviceClient::RequestFor(uint32_t index, const DriverQueue& queue) {
  return {.index = index,
          .size = queue.size(),
          .desc_addr = queue.desc_address(),
          .driver_addr = queue.driver_address(),
          .device_addr = queue.device_address()};
}

absl::StatusOr<DriverQueue*> DeviceClient::SetUpQueue(uint32_t index, uint32_t wanted_size,
                                                      uint32_t indirect_entries) {
  if (index >= info_.max_virtqueues) {
    return absl::OutOfRangeError(absl::StrCat("device ", dev_num_, " has no queue ", index,
                                              ", only ", info_.max_virtqueues));
  }
  if ((status_ & wire::kStatusFeaturesOk) == 0) {
    return absl::FailedPreconditionError(
        "a queue is set up only after the features have been negotiated");
  }
  absl::StatusOr<QueueInfo> before = ReadQueueInfo(index);
  if (!before.ok()) return before.status();
  if (before->cur_size != 0 || before->max_size == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "queue ", index, " of device ", dev_num_,
        before->max_size == 0 ? " does not exist" : " is active already: reset it first"));
  }
  const uint32_t size = std::bit_floor(std::min({wanted_size, before->max_size, 32768u}));
  absl::StatusOr<std::unique_ptr<DriverQueue>> queue =
      DriverQueue::Create(memory_, {.size = size,
                                    .event_idx = has_feature(wire::kFeatureEventIdx),
                                    .indirect = has_feature(wire::kFeatureIndirectDesc),
                                    .indirect_entries = indirect_entries});
  if (!queue.ok()) return queue.status();
  const wire::SetVqueueRequest request = RequestFor(index, **queue);
  // From here on it is the device's, whatever becomes of the answer.
  holds_memory_ = true;
  if (queues_.size() <= index) queues_.resize(index + 1);
  queues_[index] = *std::move(queue);
  if (absl::Status status = Call<wire::SetVqueueResponse>(request).status(); !status.ok()) {
    return status;
  }
  absl::StatusOr<wire::GetVqueueResponse> after =
      Call<wire::GetVqueueResponse>(wire::GetVqueueRequest{index});
  if (!after.ok()) return after.status();
  if (after->cur_size != size || after->desc_addr != request.desc_addr ||
      after->driver_addr != request.driver_addr || after->device_addr != request.device_addr) {
    refused_queues_.push_back(std::move(queues_[index]));
    return absl::FailedPreconditionError(absl::StrCat("device ", dev_num_, " did not take queue ",
                                                      index, " of size ", size,
                                                      ": it reports size ", after->cur_size));
  }
  return queues_[index].get();
}

absl::Status DeviceClient::ResetQueue(uint32_t index) {
  if (!has_feature(wire::kFeatureRingReset)) {
    return absl::FailedPreconditionError("VIRTIO_F_RING_RESET was not negotiated");
  }
  absl::Status status = Call<wire::ResetVqueueResponse>(wire::ResetVqueueRequest{index}).status();
  if (!status.ok()) return status;
  absl::StatusOr<QueueInfo> after = ReadQueueInfo(index);
  if (!after.ok()) return after.status();
  if (after->cur_size != 0) {
    return absl::InternalError(
        absl::StrCat("queue ", index, " of device ", dev_num_, " is still active after its reset"));
  }
  if (index < queues_.size()) queues_[index].reset();
  return absl::OkStatus();
}

DriverQueue* DeviceClient::queue(uint32_t index) const {
  return index < queues_.size() ? queues_[index].get() : nullptr;
}

absl::Status DeviceClient::Start() {
  if ((status_ & wire::kStatusFeaturesOk) == 0) {
    return absl::FailedPreconditionError("DRIVER_OK comes after FEATURES_OK");
  }
  const uint32_t driver_ok = status_ | wire::kStatusDriverOk;
  return SetStatus(driver_ok, driver_ok);
}

absl::StatusOr<uint32_t> DeviceClient::ReadStatus() {
  absl::StatusOr<wire::GetDeviceStatusResponse> response =
      Call<wire::GetDeviceStatusResponse>(wire::GetDeviceStatusRequest{});
  if (!response.ok()) return response.status();
  status_ = response->status;
  NoteNeedsReset(status_);
  return status_;
}

absl::Status DeviceClient::Reset() {
  // Not to be repeated by a resumption, which is a reset itself.
  reached_ = 0;
  config_written_.clear();
  if (absl::Status status = SetStatus(0, 0); !status.ok()) return status;
  absl::StatusOr<uint32_t> confirmed = ReadStatus();
  if (!confirmed.ok()) return confirmed.status();
  if (*confirmed != 0) {
    return absl::InternalError(absl::StrCat("device ", dev_num_, " still has status 0x",
                                            absl::Hex(*confirmed), " after its reset"));
  }
  features_ = 0;
  holds_memory_ = false;
  queues_.clear();
  refused_queues_.clear();
  return absl::OkStatus();
}

void DeviceClient::ResetSoon() {
  reached_ = 0;
  config_written_.clear();
  if (!holds_memory_ || resetting_) return;
  // A full ring, or no backend: asked again by who waits for it.
  resetting_ = bus_.Send(dev_num_, wire::SetDeviceStatusRequest{0},
                         [this](absl::StatusOr<wire::Message> answer) {
                           resetting_ = false;
                           if (answer.ok()) holds_memory_ = false;
                         })
                   .ok();
}

void DeviceClient::LetGo() {
  if (!holds_memory_) return;
  if (bus_.failure().ok() && !removed_ && Reset().ok()) return;
  if (holds_memory_) memory_.Freeze();
}

absl::Status DeviceClient::Publish(uint32_t index) {
  DriverQueue* const queue = this->queue(index);
  // Until the device is resumed nobody looks; then all that was added is shown.
  const bool away = resuming_ || resume_ != Resumption::kNone;
  if (queue == nullptr || ((away ? reached_ : status_) & wire::kStatusDriverOk) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "queue ", index, " of device ", dev_num_, ": ",
        queue == nullptr ? "it is not set up" : "nothing is made available before DRIVER_OK"));
  }
  if (away || !queue->Publish()) return absl::OkStatus();
  return bus_.SendAvail(
      dev_num_, index,
      has_feature(wire::kFeatureNotificationData) ? queue->notification_data() : 0);
}

// The used rings are looked at in the same turn of the loop, by the drivers' poll sources.
void DeviceClient::OnUsed(uint32_t) {}

void DeviceClient::OnBusState(uint16_t state) {
  if (state == wire::kDeviceRemovalRequested) {
    removal_requested_ = true;
  } else if (state == wire::kDeviceRemoved) {
    removed_ = true;
    holds_memory_ = false;  // it has drained
  } else {
    ++ready_events_;
    // READY of a device that is driven already is a duplicate.
    if (resume_ != Resumption::kAbsent) return;
    resume_ = Resumption::kWanted;
    bus_.WantResume();
    return;
  }
  if (state_listener_) state_listener_();
}

}  // namespace vmsg::frontend
