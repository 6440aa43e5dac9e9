// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/drivers/blk_driver.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::frontend {
namespace {

constexpr uint32_t kSlotBytes = 32;
constexpr uint32_t kStatusOffset = sizeof(wire::BlkRequestHeader);
constexpr std::byte kNoStatus{0xff};  // no status of virtio's: shows a device that wrote none
constexpr uint32_t kMostSegments = 1024;
constexpr uint32_t kMostRequestBytes = 16 << 20;

constexpr uint64_t kBlkFeatures =
    wire::kBlkFeatureSizeMax | wire::kBlkFeatureSegMax | wire::kBlkFeatureReadOnly |
    wire::kBlkFeatureBlkSize | wire::kBlkFeatureFlush | wire::kBlkFeatureTopology |
    wire::kBlkFeatureConfigWce | wire::kFeatureIndirectDesc | wire::kFeatureEventIdx |
    wire::kFeatureRingReset | wire::kFeatureNotificationData | wire::kFeatureAccessPlatform;

bool DeviceWrites(uint32_t type) {
  return type == wire::kBlkRequestIn || type == wire::kBlkRequestGetId;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlkDriver>> BlkDriver::Create(std::unique_ptr<DeviceClient> client,
                                                             const BlkOptions& options) {
  if (client->info().device_id != wire::kDeviceIdBlock) {
    return absl::InvalidArgumentError(absl::StrCat("device ", client->dev_num(), " is of type ",
                                                   client->info().device_id,
                                                   ", not a block device (2)"));
  }
  std::unique_ptr<BlkDriver> driver(new BlkDriver(std::move(client)));
  if (absl::Status status = driver->Start(options); !status.ok()) return status;
  return driver;
}

absl::Status BlkDriver::ReadLimits() {
  wire::BlkConfig config = {};
  const size_t size = std::min<size_t>(sizeof(config), client_->info().config_size);
  absl::Status status =
      client_->ReadConfig(0, std::as_writable_bytes(std::span(&config, 1)).first(size));
  if (!status.ok()) return status;
  if (config.capacity > UINT64_MAX / wire::kBlkSectorSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", client_->dev_num(), " claims ", config.capacity, " sectors"));
  }
  limits_.capacity = config.capacity * wire::kBlkSectorSize;
  limits_.read_only = client_->has_feature(wire::kBlkFeatureReadOnly);
  limits_.flush = client_->has_feature(wire::kBlkFeatureFlush);
  if (client_->has_feature(wire::kBlkFeatureBlkSize) && config.blk_size >= wire::kBlkSectorSize) {
    limits_.block_size = config.blk_size;
  }
  limits_.max_segments = 1;
  if (client_->has_feature(wire::kBlkFeatureSegMax)) {
    limits_.max_segments = std::clamp(config.seg_max, 1u, kMostSegments);
  }
  limits_.max_segment_size = kMostRequestBytes;
  if (client_->has_feature(wire::kBlkFeatureSizeMax) && config.size_max >= wire::kBlkSectorSize) {
    limits_.max_segment_size = std::min(config.size_max, kMostRequestBytes);
  }
  // A chain also holds the header and the status byte. A queue of one or two cannot hold data in
  // the table itself, only in an indirect one, which is as large as the queue at most.
  const uint32_t queue_size = queue_ != nullptr ? queue_->size() : 3;
  if (queue_size < 3) {
    return absl::InvalidArgumentError(
        absl::StrCat("a queue of ", queue_size, " descriptors; a block request takes 3"));
  }
  limits_.max_segments = std::min(limits_.max_segments, queue_size - 2);
  const uint64_t most = uint64_t{limits_.max_segments} * limits_.max_segment_size;
  limits_.max_request = static_cast<uint32_t>(std::min<uint64_t>(most, kMostRequestBytes)) &
                        ~(wire::kBlkSectorSize - 1);
  return absl::OkStatus();
}

absl::Status BlkDriver::Start(const BlkOptions& options) {
  absl::StatusOr<uint64_t> features = client_->Negotiate(kBlkFeatures & options.features);
  if (!features.ok()) return features.status();
  absl::StatusOr<DriverQueue*> queue = client_->SetUpQueue(0, options.queue_size);
  if (!queue.ok()) return queue.status();
  queue_ = *queue;
  absl::Status status = ReadLimits();
  if (!status.ok()) return status;

  const uint32_t depth = std::clamp(options.depth, 1u, queue_->size());
  absl::StatusOr<GuestBlock> headers =
      client_->memory().Allocate(uint64_t{depth} * kSlotBytes, kSlotBytes);
  if (!headers.ok()) return headers.status();
  headers_ = *std::move(headers);
  absl::StatusOr<GuestBlock> id = client_->memory().Allocate(wire::kBlkIdSize);
  if (!id.ok()) return id.status();
  id_ = *std::move(id);
  slots_.resize(depth);
  for (uint32_t i = depth; i-- > 0;) free_slots_.push_back(i);
  chain_.reserve(limits_.max_segments + 2);

  client_->set_config_listener([this] { capacity_changed_ = true; });
  status = client_->Start();
  if (!status.ok()) return status;
  client_->bus().AddPollSource(this);
  return absl::OkStatus();
}

BlkDriver::~BlkDriver() {
  client_->bus().RemovePollSource(this);
  client_->set_config_listener(nullptr);
  stopped_ = true;
  client_->LetGo();
  queue_ = nullptr;
  Abandon(absl::CancelledError("the driver ended"));
}

void BlkDriver::AskForCapacity() {
  if (!capacity_changed_ || capacity_asked_) return;
  capacity_changed_ = false;
  capacity_asked_ = true;
  uint64_t sectors;
  const absl::Status sent =
      client_->RequestConfig(offsetof(wire::BlkConfig, capacity), sizeof(sectors),
                             [this](const absl::StatusOr<std::string>& bytes) {
                               capacity_asked_ = false;
                               // A backend that was lost: the next one is asked when it has the
                               // device.
                               if (!bytes.ok()) return;
                               uint64_t now;
                               std::memcpy(&now, bytes->data(), sizeof(now));
                               SetCapacity(now);
                             });
  if (!sent.ok()) {
    // A full ring: asked again when it moves.
    capacity_asked_ = false;
    capacity_changed_ = absl::IsResourceExhausted(sent);
  }
}

void BlkDriver::SetCapacity(uint64_t sectors) {
  if (sectors > UINT64_MAX / wire::kBlkSectorSize) {
    failure_ = absl::InvalidArgumentError(
        absl::StrCat("device ", client_->dev_num(), " claims ", sectors, " sectors"));
    return;
  }
  limits_.capacity = sectors * wire::kBlkSectorSize;
}

absl::Status BlkDriver::CheckUsable() const {
  if (!failure_.ok()) return failure_;
  if (stopped_ || client_->removal_requested() || client_->removed()) {
    return absl::UnavailableError(absl::StrCat("device ", client_->dev_num(), " is being removed"));
  }
  return absl::OkStatus();
}

absl::Status BlkDriver::Submit(uint32_t type, uint64_t offset, uint64_t address, uint32_t size,
                               BlkCompletion* done, uint64_t tag) {
  if (absl::Status status = CheckUsable(); !status.ok()) return status;
  if (free_slots_.empty()) return absl::ResourceExhaustedError("all requests are in flight");
  const uint32_t index = free_slots_.back();
  const uint64_t header_address = headers_.address() + uint64_t{index} * kSlotBytes;
  std::byte* const header = headers_.bytes().data() + uint64_t{index} * kSlotBytes;
  const wire::BlkRequestHeader request = {
      .type = type, .reserved = 0, .sector = offset / wire::kBlkSectorSize};
  std::memcpy(header, &request, sizeof(request));
  header[kStatusOffset] = kNoStatus;

  chain_.clear();
  chain_.push_back({.address = header_address, .size = sizeof(request)});
  for (uint32_t done_bytes = 0; done_bytes < size;) {
    const uint32_t piece = std::min(size - done_bytes, limits_.max_segment_size);
    chain_.push_back(
        {.address = address + done_bytes, .size = piece, .device_writes = DeviceWrites(type)});
    done_bytes += piece;
  }
  chain_.push_back({.address = header_address + kStatusOffset, .size = 1, .device_writes = true});
  absl::StatusOr<bool> added = queue_->Add(chain_, index);
  if (!added.ok()) return added.status();
  if (!*added) return absl::ResourceExhaustedError("the virtqueue is full");
  free_slots_.pop_back();
  slots_[index] = {.done = done, .tag = tag, .expected = 1 + (DeviceWrites(type) ? size : 0)};
  ++in_flight_;
  return absl::OkStatus();
}

absl::Status BlkDriver::SubmitRead(uint64_t offset, uint64_t address, uint32_t size,
                                   BlkCompletion* done, uint64_t tag) {
  return Submit(wire::kBlkRequestIn, offset, address, size, done, tag);
}

absl::Status BlkDriver::SubmitWrite(uint64_t offset, uint64_t address, uint32_t size,
                                    BlkCompletion* done, uint64_t tag) {
  return Submit(wire::kBlkRequestOut, offset, address, size, done, tag);
}

absl::Status BlkDriver::SubmitFlush(BlkCompletion* done, uint64_t tag) {
  return Submit(wire::kBlkRequestFlush, 0, 0, 0, done, tag);
}

void BlkDriver::Finish(const DriverQueue::Completion& completion) {
  const uint32_t index = static_cast<uint32_t>(completion.cookie);
  const Slot slot = std::exchange(slots_[index], Slot{});
  free_slots_.push_back(index);
  --in_flight_;
  auto* const status_byte = reinterpret_cast<uint8_t*>(headers_.bytes().data()) +
                            uint64_t{index} * kSlotBytes + kStatusOffset;
  const uint8_t status = std::atomic_ref<uint8_t>(*status_byte).load(std::memory_order_relaxed);
  if (slot.done == nullptr) return;
  if (status == wire::kBlkStatusOk && completion.written == slot.expected) {
    slot.done->OnBlkDone(slot.tag, absl::OkStatus());
  } else if (status == wire::kBlkStatusUnsupported) {
    slot.done->OnBlkDone(slot.tag, absl::UnimplementedError("the device does not support this"));
  } else if (status == wire::kBlkStatusIoError) {
    slot.done->OnBlkDone(slot.tag, absl::DataLossError("the device reports an I/O error"));
  } else {
    slot.done->OnBlkDone(slot.tag, absl::InternalError(absl::StrCat(
                                       "the device returned status ", status, " and ",
                                       completion.written, " bytes instead of ", slot.expected)));
  }
}

void BlkDriver::Abandon(const absl::Status& reason) {
  stopped_ = true;
  if (client_->holds_memory()) client_->memory().Freeze();
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    const Slot slot = std::exchange(slots_[index], Slot{});
    if (slot.done != nullptr) slot.done->OnBlkDone(slot.tag, reason);
  }
  in_flight_ = 0;
}

// The device has the buffers until it has answered a reset.
bool BlkDriver::EndAfterReset() {
  client_->ResetSoon();
  if (client_->holds_memory()) return false;
  Abandon(failure_);
  return true;
}

bool BlkDriver::Poll() {
  if (queue_ == nullptr || stopped_) return false;
  if (client_->removed()) {
    Abandon(absl::UnavailableError(absl::StrCat("device ", client_->dev_num(), " was removed")));
    return true;
  }
  failure_.Update(client_->failure());
  if (!failure_.ok()) return EndAfterReset();
  AskForCapacity();
  bool worked = false;
  // At most what was in flight when we came: callbacks submit more.
  for (uint32_t budget = in_flight_; budget > 0; --budget) {
    absl::StatusOr<std::optional<DriverQueue::Completion>> completion = queue_->Pop();
    if (!completion.ok()) {
      failure_ = completion.status();
      return EndAfterReset();
    }
    if (!completion->has_value()) break;
    worked = true;
    Finish(**completion);
  }
  if (worked && notifications_) {
    queue_->DisableNotifications();
    notifications_ = false;
  }
  if (absl::Status status = client_->Publish(0); !status.ok()) client_->bus().Fail(status);
  return worked;
}

bool BlkDriver::PrepareToSleep() {
  if (queue_ == nullptr || stopped_ || in_flight_ == 0) return false;
  notifications_ = true;
  return queue_->EnableNotifications();
}

}  // namespace vmsg::frontend
