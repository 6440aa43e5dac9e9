// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/blk_device.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/blk/blk.h"
#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {
namespace {

constexpr uint32_t kConfigBytes = offsetof(wire::BlkConfig, max_discard_sectors);
constexpr uint32_t kWritebackOffset = offsetof(wire::BlkConfig, writeback);
constexpr uint32_t kSlotsPerBlock = 16;
// A turn of a queue ends with the request that reaches one of these, and what it has taken is given
// to the kernel at once: the disk works on it, and the guest on what the disk has done, while the
// next turn takes more. It also bounds how long copying, clearing and pinning pages keep the other
// guests of the thread waiting.
constexpr uint64_t kBytesPerTurn = 128 << 10;
constexpr uint32_t kRequestsPerTurn = 8;
// A failed read clears up to this much of its buffer, so that the used length can cover the status
// byte without vouching for bytes that nobody wrote. A larger one reports length 0.
constexpr uint64_t kMaxClearedBytes = 1 << 20;

}  // namespace

BlkDevice::BlkDevice(BlkImage image, AsyncFileIo* io)
    : image_(std::move(image)),
      io_(io),
      flushes_(io, image_.buffered.get(), image_.health.get(), this) {
  identity_.device_id = wire::kDeviceIdBlock;
  identity_.features = wire::kBlkFeatureSizeMax | wire::kBlkFeatureSegMax |
                       wire::kBlkFeatureBlkSize | wire::kBlkFeatureTopology |
                       wire::kBlkFeatureFlush | wire::kBlkFeatureConfigWce;
  if (image_.read_only) identity_.features |= wire::kBlkFeatureReadOnly;
  if (image_.queues > 1) identity_.features |= wire::kBlkFeatureMultiQueue;
  identity_.config_size = kConfigBytes;
  identity_.max_queue_sizes.assign(image_.queues, kBlkMaxQueueSize);

  config_.capacity = image_.bytes / wire::kBlkSectorSize;
  config_.size_max = kBlkMaxSegmentBytes;
  config_.seg_max = kBlkMaxSegments;
  config_.blk_size = image_.logical_block;
  const uint32_t ratio = std::max(1u, image_.physical_block / image_.logical_block);
  config_.physical_block_exp = static_cast<uint8_t>(std::bit_width(ratio) - 1);
  config_.min_io_size = static_cast<uint16_t>(std::min<uint32_t>(ratio, UINT16_MAX));
  config_.num_queues = static_cast<uint16_t>(image_.queues);
  config_.writeback = image_.writethrough ? 0 : 1;
}

BlkDevice::~BlkDevice() { io_->ForgetBatchListener(this); }

void BlkDevice::ReadConfig(uint32_t offset, std::span<std::byte> out) const {
  if (offset > kConfigBytes || out.size() > kConfigBytes - offset) return;
  std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&config_) + offset, out.size());
}

absl::Status BlkDevice::WriteConfig(uint32_t offset, std::span<const std::byte> data) {
  if (offset != kWritebackOffset || data.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("configuration bytes ", offset, " and ", data.size(),
                     " long: only `writeback` can be written, 1 byte at ", kWritebackOffset));
  }
  const auto value = std::to_integer<uint8_t>(data[0]);
  if (value > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("writeback ", value, " is neither 0 (writethrough) nor 1 (writeback)"));
  }
  config_.writeback = value;
  FlushIfStable();
  return absl::OkStatus();
}

void BlkDevice::OnFeatures(uint64_t features) {
  features_ = features;
  if ((features & wire::kBlkFeatureFlush) == 0) config_.writeback = 0;
  FlushIfStable();
}

void BlkDevice::OnStart(DeviceHost& host, uint64_t features) {
  // The driver may have changed `writeback` since its features were accepted.
  if (features != features_) OnFeatures(features);
  host_ = &host;
}

void BlkDevice::OnReset() {
  host_ = nullptr;
  features_ = 0;
  dirty_queues_ = 0;
  outside_reported_ = false;
  config_.writeback = image_.writethrough ? 0 : 1;
}

bool BlkDevice::Settle(DeviceHost& host) {
  // What the cache is after the reset decides, not what the driver made of it.
  if (image_.writethrough && image_.health->volatile_data()) {
    flushes_.Demand();
    io_->Submit();
  }
  if (!flushes_.at_work()) return true;
  settling_ = &host;
  return false;
}

void BlkDevice::OnFlushesEnd() {
  if (settling_ != nullptr) std::exchange(settling_, nullptr)->Settled();
}

void BlkDevice::FlushIfStable() {
  if (!WritesAreStable() || !image_.health->volatile_data()) return;
  flushes_.Demand();
  io_->Submit();
}

bool BlkDevice::WritesAreStable() const {
  if ((features_ & wire::kBlkFeatureConfigWce) != 0) return config_.writeback == 0;
  return image_.writethrough || (features_ & wire::kBlkFeatureFlush) == 0;
}

bool BlkDevice::OnQueue(uint32_t queue, uint32_t budget) {
  if (host_ == nullptr) return false;
  SplitQueue* const split_queue = host_->queue(queue);
  if (split_queue == nullptr) return false;
  const uint64_t broken = split_queue->broken_chains();
  absl::Status failure;
  uint32_t taken = 0;
  uint64_t bytes = 0;
  budget = std::min(budget, kRequestsPerTurn);
  for (; taken < budget && bytes < kBytesPerTurn; ++taken) {
    absl::StatusOr<std::optional<DescriptorChain>> chain = split_queue->Pop();
    if (!chain.ok()) {
      failure = chain.status();
      break;
    }
    if (!chain->has_value()) break;
    bytes += (*chain)->readable_bytes + (*chain)->writable_bytes;
    Execute(queue, split_queue, *std::move(*chain));
  }
  if (taken > 0) io_->Submit();
  const bool more = failure.ok() && split_queue->HasAvailable();
  // What ended at once, broken chains too.
  const uint32_t bit = 1u << queue;
  if ((dirty_queues_ & bit) != 0 || split_queue->broken_chains() != broken) {
    dirty_queues_ &= ~bit;
    host_->Completed(queue);
  }
  if (!failure.ok() && host_ != nullptr) host_->NeedsReset(failure);
  return more;
}

BlkDevice::Slot* BlkDevice::TakeSlot() {
  if (free_slots_ == nullptr) {
    slots_.push_back(std::make_unique<Slot[]>(kSlotsPerBlock));
    for (uint32_t i = 0; i < kSlotsPerBlock; ++i) {
      Slot* const slot = &slots_.back()[i];
      slot->device = this;
      slot->done = OnDone;
      slot->next_free = std::exchange(free_slots_, slot);
    }
  }
  ++slots_in_use_;
  return std::exchange(free_slots_, free_slots_->next_free);
}

void BlkDevice::Execute(uint32_t queue, SplitQueue* split_queue, DescriptorChain chain) {
  Slot* const slot = TakeSlot();
  slot->queue = queue;
  slot->split_queue = split_queue;
  slot->chain = std::move(chain);
  slot->gated = false;
  if (ParseBlkRequest(slot->chain, &slot->request) != BlkParse::kOk) {
    Finish(slot, wire::kBlkStatusIoError);
    return;
  }
  switch (slot->request.type) {
    case wire::kBlkRequestIn:
      Transfer(slot);
      break;
    case wire::kBlkRequestOut:
      if (image_.read_only) {
        Finish(slot, wire::kBlkStatusIoError);
      } else {
        Transfer(slot);
      }
      break;
    case wire::kBlkRequestFlush:
      flushes_.Join(slot);
      break;
    case wire::kBlkRequestGetId:
      GetId(slot);
      break;
    default:
      Finish(slot, wire::kBlkStatusUnsupported);
  }
}

bool BlkDevice::SuitsDirect(const BlkRequest& request) const {
  const uint64_t memory = image_.memory_alignment - 1;
  const uint64_t range = image_.offset_alignment - 1;
  uint64_t bits = (request.sector * wire::kBlkSectorSize) & range;
  if (io_->copies()) return ((bits | request.data_bytes) & range) == 0;
  for (const iovec& piece : request.data) {
    bits |= (reinterpret_cast<uintptr_t>(piece.iov_base) & memory) | (piece.iov_len & range);
  }
  return bits == 0;
}

bool BlkDevice::WithinLimits(const BlkRequest& request) const {
  if (request.data_bytes > kBlkMaxRequestBytes) return false;
  if ((features_ & wire::kBlkFeatureSizeMax) == 0) return true;
  return std::all_of(request.data.begin(), request.data.end(),
                     [](const iovec& piece) { return piece.iov_len <= kBlkMaxSegmentBytes; });
}

void BlkDevice::Transfer(Slot* slot) {
  const absl::Status inside = CheckInsideDisk(slot->request, image_.bytes);
  // A driver that keeps to the capacity it read meets this when the image was cut meanwhile. Once:
  // its guest's lines are few, and others may matter more.
  if (!inside.ok() && !std::exchange(outside_reported_, true)) host_->Report(inside);
  if (!inside.ok() || !WithinLimits(slot->request)) {
    Finish(slot, wire::kBlkStatusIoError);
    return;
  }
  if (slot->request.data_bytes == 0) {
    Finish(slot, wire::kBlkStatusOk);
    return;
  }
  const bool direct = image_.direct && SuitsDirect(slot->request);
  const bool write = slot->request.type == wire::kBlkRequestOut;
  slot->stable = write && WritesAreStable();
  if (slot->stable && image_.health->data_lost()) {
    Finish(slot, wire::kBlkStatusIoError);
    return;
  }
  // Direct reads need no gate: they write back cached pages first and leave none behind.
  slot->gated = image_.direct && (write || !direct);
  slot->cached = !direct;
  if (slot->gated && !gate_.Enter(slot, !direct)) return;
  StartTransfer(slot, direct);
}

void BlkDevice::StartTransfer(Slot* slot, bool direct) {
  const int fd = direct ? image_.direct.get() : image_.buffered.get();
  const uint64_t offset = slot->request.sector * wire::kBlkSectorSize;
  iovec* const pieces = slot->request.data.data();
  const auto count = static_cast<uint32_t>(slot->request.data.size());
  slot->at_work = true;
  if (slot->request.type == wire::kBlkRequestOut) {
    // Through the page cache, stable is a write and then a flush: a synchronous write there could
    // be told of the loss that a flush at the same time is not told of.
    io_->Writev(slot, fd, pieces, count, offset, slot->stable && direct);
  } else {
    io_->Readv(slot, fd, pieces, count, offset);
  }
}

void BlkDevice::GetId(Slot* slot) {
  std::byte id[wire::kBlkIdSize] = {};
  std::memcpy(id, image_.serial.data(), std::min(image_.serial.size(), sizeof id));
  if (slot->request.data_bytes < sizeof id) {
    Finish(slot, wire::kBlkStatusIoError);
    return;
  }
  WriteGuest(slot->request.data, 0, id);
  slot->request.data_bytes = sizeof id;
  Finish(slot, wire::kBlkStatusOk);
}

void BlkDevice::OnDone(FileOperation* operation, int64_t result) {
  Slot* const slot = static_cast<Slot*>(operation);
  BlkDevice* const device = slot->device;
  slot->at_work = false;
  device->LeaveGate(slot);
  device->OnTransferred(slot, result);
}

void BlkDevice::OnTransferred(Slot* slot, int64_t result) {
  const bool write = slot->request.type == wire::kBlkRequestOut;
  DeviceHealth& health = *image_.health;
  // However it ended, something may have been written.
  if (write && !(slot->stable && !slot->cached)) health.NoteVolatileData();
  // A read that ends early met the end of a file that was truncated under us.
  if (result < 0 || static_cast<uint64_t>(result) != slot->request.data_bytes) {
    const int error = static_cast<int>(result < 0 ? -result : 0);
    if (slot->stable && !slot->cached && error != ENOSPC && error != EDQUOT && error != ECANCELED) {
      health.LoseData();
    }
    if (error != ECANCELED) {
      health.Record({.operation = write ? "write" : "read",
                     .offset = slot->request.sector * wire::kBlkSectorSize,
                     .bytes = slot->request.data_bytes,
                     .error = error});
    }
    Finish(slot, wire::kBlkStatusIoError);
  } else if (slot->stable && slot->cached) {
    flushes_.Join(slot);
  } else {
    // What was lost meanwhile may have been in the same cache.
    const bool lost = slot->stable && health.data_lost();
    Finish(slot, lost ? wire::kBlkStatusIoError : wire::kBlkStatusOk);
  }
}

void BlkDevice::OnFlushed(FlushEntry* entry, bool stable) {
  Finish(static_cast<Slot*>(entry), stable ? wire::kBlkStatusOk : wire::kBlkStatusIoError);
}

void BlkDevice::LeaveGate(Slot* slot) {
  if (!std::exchange(slot->gated, false)) return;
  gate_.Leave();
  while (WriteGateEntry* entry = gate_.Next()) {
    Slot* const next = static_cast<Slot*>(entry);
    StartTransfer(next, !next->cached);
  }
}

void BlkDevice::Finish(Slot* slot, uint8_t status) {
  DescriptorChain chain = std::move(slot->chain);
  SplitQueue* const split_queue = slot->split_queue;
  uint64_t written = 0;
  if (slot->request.status != nullptr) {
    const uint64_t before_status = chain.writable_bytes - 1;
    const bool filled = status == wire::kBlkStatusOk && slot->request.type == wire::kBlkRequestIn;
    if (filled || before_status == 0) {
      written = chain.writable_bytes;
    } else if (before_status <= kMaxClearedBytes) {
      // What the request did not fill is cleared, see kMaxClearedBytes.
      const bool id = status == wire::kBlkStatusOk && slot->request.type == wire::kBlkRequestGetId;
      const uint64_t kept = id ? slot->request.data_bytes : 0;
      ZeroGuest(chain.writable, kept, before_status - kept);
      written = chain.writable_bytes;
    }
    // The last writable byte; written once, never read.
    *reinterpret_cast<volatile uint8_t*>(slot->request.status) = status;
  }
  dirty_queues_ |= 1u << slot->queue;
  io_->NotifyAtBatchEnd(this);
  slot->request.status = nullptr;
  slot->split_queue = nullptr;
  slot->next_free = std::exchange(free_slots_, slot);
  --slots_in_use_;
  split_queue->Return(std::move(chain),
                      static_cast<uint32_t>(std::min<uint64_t>(written, UINT32_MAX)));
}

void BlkDevice::OnBatchEnd() {
  while (dirty_queues_ != 0 && host_ != nullptr) {
    const auto queue = static_cast<uint32_t>(std::countr_zero(dirty_queues_));
    dirty_queues_ &= dirty_queues_ - 1;
    if (host_->queue(queue) != nullptr) host_->Completed(queue);
  }
}

void BlkDevice::OnQueueStopping(uint32_t queue) {
  // Requests behind the gate or a flush are not at the disk; they end here. The last one returned
  // may end this device, so they are collected first.
  std::vector<Slot*> dropped;
  gate_.DropWaiting(
      [queue](WriteGateEntry* entry) { return static_cast<Slot*>(entry)->queue == queue; },
      [&dropped](WriteGateEntry* entry) {
        dropped.push_back(static_cast<Slot*>(entry));
        dropped.back()->gated = false;
      });
  flushes_.DropWaiting(
      [queue](FlushEntry* entry) { return static_cast<Slot*>(entry)->queue == queue; },
      [&dropped](FlushEntry* entry) { dropped.push_back(static_cast<Slot*>(entry)); });
  // Nor does what is left of those that have begun.
  for (const std::unique_ptr<Slot[]>& block : slots_) {
    for (uint32_t i = 0; i < kSlotsPerBlock; ++i) {
      Slot* const slot = &block[i];
      if (slot->split_queue == nullptr || slot->queue != queue || !slot->at_work) continue;
      if (!io_->Withdraw(slot)) continue;
      slot->at_work = false;
      // A part of it may be there.
      if (slot->request.type == wire::kBlkRequestOut) image_.health->NoteVolatileData();
      dropped.push_back(slot);
    }
  }
  for (Slot* slot : dropped) LeaveGate(slot);
  for (Slot* slot : dropped) Finish(slot, wire::kBlkStatusIoError);
}

absl::StatusOr<std::unique_ptr<Device>> CreateBlk(OpenedDevice opened,
                                                  const DeviceEnvironment& environment) {
  absl::StatusOr<BlkImage> image = UnpackImage(std::move(opened));
  if (!image.ok()) return image.status();
  if (environment.io == nullptr) {
    return absl::InternalError("a block device needs an AsyncFileIo in its environment");
  }
  return std::make_unique<BlkDevice>(*std::move(image), environment.io);
}

}  // namespace vmsg::backend
