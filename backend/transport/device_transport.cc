// SPDX-License-Identifier: Apache-2.0
// Features, configuration and status. Queues are in transport_queues.cc.
#include "backend/transport/device_transport.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/transport/device_status.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {
namespace {

constexpr size_t kFeaturesFixed = 8;      // block_index, num_blocks
constexpr size_t kConfigFixed = 12;       // generation, offset, length
constexpr size_t kEventConfigFixed = 16;  // device_status, generation, offset, length

void PutWord(std::byte* to, uint32_t word) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<std::byte>(word >> (8 * i));
}

// What is left for a variable part behind a fixed one.
size_t Room(std::span<std::byte> scratch, size_t fixed) {
  return scratch.size() < fixed ? 0 : scratch.size() - fixed;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceTransport>> DeviceTransport::Create(
    std::unique_ptr<Device> device, grants::Window& window, TransportEvents& events,
    bool queue_resume) {
  const DeviceIdentity& identity = device->identity();
  if (identity.max_queue_sizes.size() > kMaxQueuesPerDevice) {
    return absl::InvalidArgumentError(
        absl::StrCat("the device has ", identity.max_queue_sizes.size(), " virtqueues; at most ",
                     kMaxQueuesPerDevice, " can be served"));
  }
  for (uint32_t size : identity.max_queue_sizes) {
    if (!std::has_single_bit(size) || size > kMaxQueueSize) {
      return absl::InvalidArgumentError(
          absl::StrCat("a queue size of ", size, " is no power of two of at most ", kMaxQueueSize));
    }
  }
  return std::unique_ptr<DeviceTransport>(
      new DeviceTransport(std::move(device), window, events, queue_resume));
}

DeviceTransport::DeviceTransport(std::unique_ptr<Device> device, grants::Window& window,
                                 TransportEvents& events, bool queue_resume)
    : device_(std::move(device)),
      identity_(device_->identity()),
      window_(window),
      events_(events),
      queue_resume_(queue_resume),
      features_(identity_.features),
      queues_(identity_.max_queue_sizes.size()) {}

DeviceTransport::~DeviceTransport() = default;

wire::GetDeviceInfoResponse DeviceTransport::Handle(const wire::GetDeviceInfoRequest&) const {
  return {.device_id = identity_.device_id,
          .vendor_id = wire::kVirtioVendorId,
          .num_feature_bits = 32 * FeatureNegotiation::kBlocks,
          .config_size = identity_.config_size,
          .max_virtqueues = static_cast<uint32_t>(queues_.size()),
          .admin_vq_start = 0,
          .admin_vq_count = 0};
}

wire::GetDeviceFeaturesResponse DeviceTransport::Handle(
    const wire::GetDeviceFeaturesRequest& request, std::span<std::byte> scratch) const {
  const uint32_t blocks = static_cast<uint32_t>(
      std::min<size_t>(request.num_blocks, Room(scratch, kFeaturesFixed) / sizeof(uint32_t)));
  for (uint32_t i = 0; i < blocks; ++i) {
    PutWord(&scratch[sizeof(uint32_t) * i], features_.Block(uint64_t{request.block_index} + i));
  }
  return {.block_index = request.block_index,
          .num_blocks = blocks,
          .features = wire::WordView(scratch.first(sizeof(uint32_t) * blocks))};
}

wire::SetDriverFeaturesResponse DeviceTransport::Handle(
    const wire::SetDriverFeaturesRequest& request) {
  if (absl::Status status = features_.Acknowledge(request.block_index, request.features);
      !status.ok()) {
    events_.Problem(status);
  }
  return {};
}

wire::GetConfigResponse DeviceTransport::Handle(const wire::GetConfigRequest& request,
                                                std::span<std::byte> scratch) const {
  wire::GetConfigResponse response{
      .generation = generation_, .offset = request.offset, .length = 0, .data = {}};
  const uint64_t end = uint64_t{request.offset} + request.length;
  if (request.length > Room(scratch, kConfigFixed) || end > UINT32_MAX) {
    events_.Problem(absl::InvalidArgumentError(
        absl::StrCat("GET_CONFIG of ", request.length, " bytes at ", request.offset,
                     " refused: an answer carries at most ", Room(scratch, kConfigFixed))));
    return response;
  }
  std::span<std::byte> data = scratch.first(request.length);
  std::fill(data.begin(), data.end(), std::byte{0});
  if (request.offset < identity_.config_size) {
    const uint32_t inside =
        std::min<uint32_t>(request.length, identity_.config_size - request.offset);
    if (inside > 0) device_->ReadConfig(request.offset, data.first(inside));
  }
  response.length = request.length;
  response.data = data;
  return response;
}

wire::SetConfigResponse DeviceTransport::Handle(const wire::SetConfigRequest& request) {
  absl::Status status;
  if (request.generation != generation_) {
    // A race that a correct driver loses now and then: no problem to report.
    return {.generation = generation_, .offset = request.offset, .length = 0, .data = {}};
  }
  if (request.offset > identity_.config_size ||
      request.length > identity_.config_size - request.offset ||
      request.data.size() != request.length || request.length == 0) {
    status = absl::InvalidArgumentError(
        absl::StrCat("SET_CONFIG of ", request.length, " bytes at ", request.offset,
                     " rejected: the configuration has ", identity_.config_size, " bytes"));
  } else {
    status = device_->WriteConfig(request.offset, request.data);
  }
  if (!status.ok()) events_.Problem(status);
  // A change that the driver makes itself is not one that it has to be told of, so the generation
  // stays, unless the device changes something else with it through ChangeConfig.
  return {.generation = generation_,
          .offset = request.offset,
          .length = status.ok() ? request.length : 0,
          .data = {}};
}

wire::GetDeviceStatusResponse DeviceTransport::Handle(const wire::GetDeviceStatusRequest&) const {
  return {.status = status_};
}

wire::GetShmResponse DeviceTransport::Handle(const wire::GetShmRequest& request) const {
  return {.index = request.index, .length = 0, .address = 0};
}

void DeviceTransport::HandleDeferred(const wire::SetDeviceStatusRequest& request, StatusDone done) {
  if (request.status == 0) {
    operation_ = Operation::kReset;
    status_done_ = std::move(done);
    BeginReset();
    Advance();
    return;
  }
  absl::Status acceptable = features_.Check();
  const uint32_t before = status_;
  status_ = NextStatus(status_, request.status, acceptable.ok());
  const uint32_t added = status_ & ~before;
  if ((request.status & ~before & wire::kStatusFeaturesOk) != 0 && !acceptable.ok()) {
    events_.Problem(acceptable);
  }
  if ((added & wire::kStatusFeaturesOk) != 0) {
    features_.Freeze();
    Watching([this] { device_->OnFeatures(features_.acknowledged()); });
  }
  if ((added & wire::kStatusDriverOk) != 0) Start();
  // FAILED: the driver gave up, nobody waits for its queues.
  if (!live()) running_ = 0;
  // Starting may have failed: the answer says so.
  done({.status = status_});
}

void DeviceTransport::Start() {
  started_ = true;
  device_->OnStart(*this, features_.acknowledged());
  for (uint32_t i = 0; i < queues_.size(); ++i) RunSoon(i);
}

bool DeviceTransport::live() const {
  return started_ && !shutting_down_ && (status_ & wire::kStatusDriverOk) != 0 &&
         (status_ & (wire::kStatusDeviceNeedsReset | wire::kStatusFailed)) == 0;
}

void DeviceTransport::BeginReset() {
  for (uint32_t i = 0; i < queues_.size(); ++i) StopQueue(i);
}

void DeviceTransport::Advance() {
  FreeDrained();
  const bool ending = shutting_down_ && shutdown_done_ != nullptr;
  if (ending || operation_ == Operation::kReset) {
    if (!AllUnset() || !device_->Settle(*this)) return;
    Watching([this] { device_->OnReset(); });
    features_.Reset();
    started_ = false;
    status_ = 0;
    changed_begin_ = changed_end_ = 0;
    events_.ForgetEventConfig();
  }
  // Taken out before they run: what they call may hand in the next request.
  const bool queue_operation =
      operation_ == Operation::kResetQueue || operation_ == Operation::kSetQueue;
  if (operation_ == Operation::kReset) {
    operation_ = Operation::kNone;
    std::exchange(status_done_, nullptr)({.status = 0});
  } else if (queue_operation && queues_[operation_queue_].state == QueueState::kUnset) {
    const bool install = std::exchange(operation_, Operation::kNone) == Operation::kSetQueue;
    FinishQueueOperation(install);
  }
  if (ending) std::exchange(shutdown_done_, nullptr)();
}

void DeviceTransport::Shutdown(Done done) {
  shutting_down_ = true;
  shutdown_done_ = std::move(done);
  BeginReset();
  Advance();
}

void DeviceTransport::ChangeConfig(uint32_t offset, uint32_t length,
                                   absl::AnyInvocable<void()> change) {
  ++generation_;
  change();
  NoteConfigChange(offset, length);
}

void DeviceTransport::Watching(absl::FunctionRef<void()> change) {
  std::vector<std::byte> before(identity_.config_size);
  std::vector<std::byte> after(identity_.config_size);
  if (!before.empty()) device_->ReadConfig(0, before);
  change();
  if (!after.empty()) device_->ReadConfig(0, after);
  if (before != after) ++generation_;
}

void DeviceTransport::NeedsReset(const absl::Status& reason) {
  events_.Problem(reason);
  if ((status_ & wire::kStatusDeviceNeedsReset) != 0) return;
  // Without a driver there is nobody to reset it, and nothing that could have gone wrong.
  if (status_ == 0) return;
  status_ |= wire::kStatusDeviceNeedsReset;
  running_ = 0;
  events_.WantEventConfig();
}

void DeviceTransport::NoteConfigChange(uint32_t offset, uint32_t length) {
  // A driver that has not come yet reads the configuration when it does.
  if (status_ == 0) return;
  const uint32_t begin = std::min(offset, identity_.config_size);
  const uint32_t end = begin + std::min(length, identity_.config_size - begin);
  if (changed_begin_ == changed_end_) {
    changed_begin_ = begin;
    changed_end_ = end;
  } else {
    changed_begin_ = std::min(changed_begin_, begin);
    changed_end_ = std::max(changed_end_, end);
  }
  events_.WantEventConfig();
}

wire::EventConfig DeviceTransport::TakeConfigEvent(std::span<std::byte> scratch) {
  const uint32_t offset = std::exchange(changed_begin_, 0);
  const uint32_t length = std::exchange(changed_end_, 0) - offset;
  wire::EventConfig event{.device_status = status_,
                          .generation = generation_,
                          .offset = offset,
                          .length = 0,
                          .data = {}};
  // Too long for one message: the driver fetches it.
  if (length == 0 || length > Room(scratch, kEventConfigFixed)) return event;
  device_->ReadConfig(offset, scratch.first(length));
  event.length = length;
  event.data = scratch.first(length);
  return event;
}

}  // namespace vmsg::backend
