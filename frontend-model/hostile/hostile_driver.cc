// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/hostile/hostile_driver.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "virtio-msg/messages.h"

namespace vmsg::frontend {
namespace {

template <class T>
void StoreWord(std::span<std::byte> bytes, uint64_t offset, T value) {
  std::atomic_ref<T>(*reinterpret_cast<T*>(bytes.data() + offset))
      .store(value, std::memory_order_seq_cst);
}

template <class T>
T LoadWord(std::span<std::byte> bytes, uint64_t offset) {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(bytes.data() + offset))
      .load(std::memory_order_acquire);
}

}  // namespace

RawBus::RawBus(FrontendBus& bus, bool consume) : bus_(bus) {
  bus_.SetRecordTap([this, consume](std::span<const std::byte> record) {
    ++seen_;
    if (records_.size() < kMaxKept) records_.emplace_back(record.begin(), record.end());
    return consume;
  });
}

RawBus::~RawBus() { bus_.SetRecordTap(nullptr); }

absl::Status RawBus::Push(std::span<const std::byte> record) {
  absl::StatusOr<bool> pushed = bus_.PushRaw(record);
  if (!pushed.ok()) return pushed.status();
  if (!*pushed) return absl::ResourceExhaustedError("the ring is full");
  return bus_.Flush();
}

absl::Status RawBus::PushMessage(uint8_t type, uint8_t msg_id, uint16_t dev_num, uint16_t token,
                                 std::span<const std::byte> payload, std::optional<uint16_t> size) {
  std::vector<std::byte> record(wire::kHeaderSize + payload.size());
  const uint16_t msg_size = size.value_or(static_cast<uint16_t>(record.size()));
  record[0] = std::byte{type};
  record[1] = std::byte{msg_id};
  std::memcpy(record.data() + 2, &dev_num, 2);
  std::memcpy(record.data() + 4, &token, 2);
  std::memcpy(record.data() + 6, &msg_size, 2);
  if (!payload.empty()) {
    std::memcpy(record.data() + wire::kHeaderSize, payload.data(), payload.size());
  }
  return Push(record);
}

absl::Status RawBus::WaitForRecords(size_t count, Deadline deadline) {
  return bus_.WaitUntil([&] { return records_.size() >= count; }, deadline);
}

std::span<std::byte> RawBus::interface_page() {
  return std::as_writable_bytes(std::span(bus_.link().memory().interface_page, 1));
}

void RawBus::ScribbleOutProd(uint32_t value) {
  StoreWord<uint32_t>(interface_page(),
                      offsetof(wire::RingInterface, out) + offsetof(wire::RingDirection, prod),
                      value);
}

absl::Status RawBus::Kick() { return bus_.link().Kick(); }

absl::StatusOr<RawQueue> RawQueue::Create(DeviceClient& client, uint32_t index, uint32_t size) {
  RawQueue queue(client, index, size);
  const std::pair<GuestBlock*, uint64_t> areas[] = {
      {&queue.desc_, wire::DescriptorAreaSize(size)},
      {&queue.driver_, wire::DriverAreaSize(size, true)},
      {&queue.device_, wire::DeviceAreaSize(size, true)}};
  for (const auto& [block, bytes] : areas) {
    absl::StatusOr<GuestBlock> allocated = client.memory().Allocate(bytes, 16, 1);
    if (!allocated.ok()) return allocated.status();
    *block = *std::move(allocated);
    std::memset(block->bytes().data(), 0, block->size());
  }
  client.set_holds_memory();
  absl::StatusOr<wire::SetVqueueResponse> response = client.bus().Call<wire::SetVqueueResponse>(
      client.dev_num(),
      wire::SetVqueueRequest{.index = index,
                             .size = size,
                             .desc_addr = queue.desc_.address(),
                             .driver_addr = queue.driver_.address(),
                             .device_addr = queue.device_.address()},
      After(DeviceClient::kDefaultCallTimeout));
  if (!response.ok()) return response.status();
  return queue;
}

void RawQueue::SetDescriptor(uint32_t index, const wire::SplitDescriptor& descriptor) {
  std::memcpy(desc_.bytes().data() + sizeof(descriptor) * index, &descriptor, sizeof(descriptor));
}

void RawQueue::SetAvailable(uint32_t slot, uint16_t head) {
  StoreWord<uint16_t>(driver_.bytes(),
                      wire::kAvailableRingOffset + wire::kAvailableEntrySize * slot, head);
}

void RawQueue::SetAvailableIndex(uint16_t index) {
  StoreWord<uint16_t>(driver_.bytes(), wire::kAvailableIdxOffset, index);
}

void RawQueue::SetUsedEvent(uint16_t event) {
  StoreWord<uint16_t>(driver_.bytes(), wire::UsedEventOffset(size_), event);
}

uint16_t RawQueue::used_index() const {
  return LoadWord<uint16_t>(device_.bytes(), wire::kUsedIdxOffset);
}

wire::SplitUsedEntry RawQueue::used(uint32_t slot) const {
  const uint64_t offset = wire::kUsedRingOffset + wire::kUsedEntrySize * slot;
  return {.id = LoadWord<uint32_t>(device_.bytes(), offset),
          .len = LoadWord<uint32_t>(device_.bytes(), offset + 4)};
}

absl::Status RawQueue::Kick(uint32_t next_offset) {
  absl::Status status = client_->bus().SendAvail(client_->dev_num(), index_, next_offset);
  return status.ok() ? client_->bus().Flush() : status;
}

absl::Status RawQueue::WaitForUsed(uint16_t index, Deadline deadline) {
  return client_->bus().WaitUntil([&] { return used_index() == index; }, deadline);
}

}  // namespace vmsg::frontend
