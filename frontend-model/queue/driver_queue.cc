// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/queue/driver_queue.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::frontend {
namespace {

using wire::SplitDescriptor;

std::atomic_ref<uint16_t> Word16(const GuestBlock& block, uint64_t offset) {
  return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(block.bytes().data() + offset));
}

// One field of memory that the device may write at any moment: read once.
uint32_t Load32(const GuestBlock& block, uint64_t offset) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(block.bytes().data() + offset))
      .load(std::memory_order_relaxed);
}

void FillDescriptor(std::byte* table, uint32_t index, const Buffer& buffer, bool has_next,
                    uint16_t next) {
  const SplitDescriptor descriptor = {
      .addr = buffer.address,
      .len = buffer.size,
      .flags = static_cast<uint16_t>((buffer.device_writes ? wire::kDescriptorWrite : 0) |
                                     (has_next ? wire::kDescriptorNext : 0)),
      .next = next};
  std::memcpy(table + sizeof(descriptor) * index, &descriptor, sizeof(descriptor));
}

// Did the index pass `event` on its way from `before` to `after`?
bool Passed(uint16_t event, uint16_t before, uint16_t after) {
  return static_cast<uint16_t>(after - event - 1) < static_cast<uint16_t>(after - before);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DriverQueue>> DriverQueue::Create(
    GuestMemory& memory, const DriverQueueOptions& options) {
  if (!std::has_single_bit(options.size) || options.size > wire::kSplitRingMaxSize) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queue size ", options.size, " is not a power of two from 1 to ", wire::kSplitRingMaxSize));
  }
  std::unique_ptr<DriverQueue> queue(new DriverQueue());
  queue->size_ = options.size;
  queue->event_idx_ = options.event_idx;
  // Address 0 means "not set" to the transport, so no area starts there.
  const auto allocate = [&memory](uint64_t size, uint64_t alignment, GuestBlock* block) {
    absl::StatusOr<GuestBlock> allocated = memory.Allocate(size, alignment, 1);
    if (!allocated.ok()) return allocated.status();
    *block = *std::move(allocated);
    std::memset(block->bytes().data(), 0, block->size());
    return absl::OkStatus();
  };
  absl::Status status = allocate(wire::DescriptorAreaSize(options.size),
                                 wire::kDescriptorAreaAlignment, &queue->desc_block_);
  if (status.ok()) {
    status = allocate(wire::DriverAreaSize(options.size, options.event_idx),
                      wire::kDriverAreaAlignment, &queue->avail_block_);
  }
  if (status.ok()) {
    status = allocate(wire::DeviceAreaSize(options.size, options.event_idx),
                      wire::kDeviceAreaAlignment, &queue->used_block_);
  }
  if (status.ok() && options.indirect) {
    queue->indirect_entries_ = std::min(options.indirect_entries, options.size);
    status = allocate(uint64_t{options.size} * queue->indirect_entries_ * sizeof(SplitDescriptor),
                      sizeof(SplitDescriptor), &queue->indirect_block_);
  }
  if (!status.ok()) return status;
  queue->chains_.resize(options.size);
  queue->next_.resize(options.size);
  queue->free_.reserve(options.size);
  for (uint32_t i = options.size; i-- > 0;) queue->free_.push_back(static_cast<uint16_t>(i));
  return queue;
}

absl::Status DriverQueue::CheckBuffers(absl::Span<const Buffer> buffers, uint64_t* writable) const {
  bool seen_writable = false;
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].size == 0) {
      return absl::InvalidArgumentError(absl::StrCat("buffer ", i, " of the chain is empty"));
    }
    if (seen_writable && !buffers[i].device_writes) {
      return absl::InvalidArgumentError(
          absl::StrCat("buffer ", i, " is device-readable but follows a device-writable one"));
    }
    seen_writable = buffers[i].device_writes;
    if (seen_writable) *writable += buffers[i].size;
  }
  if (buffers.empty() || buffers.size() > size_) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chain of ", buffers.size(), " buffers on a queue of size ", size_));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> DriverQueue::Add(absl::Span<const Buffer> buffers, uint64_t cookie) {
  if (!broken_.ok()) return broken_;
  uint64_t writable = 0;
  if (absl::Status status = CheckBuffers(buffers, &writable); !status.ok()) return status;
  const bool indirect = buffers.size() > 1 && buffers.size() <= indirect_entries_;
  const size_t needed = indirect ? 1 : buffers.size();
  if (needed > free_.size()) return false;

  std::byte* const table = desc_block_.bytes().data();
  const uint16_t head = free_.back();
  if (indirect) {
    free_.pop_back();
    const uint64_t offset = uint64_t{head} * indirect_entries_ * sizeof(SplitDescriptor);
    std::byte* const entries = indirect_block_.bytes().data() + offset;
    for (uint32_t i = 0; i < buffers.size(); ++i) {
      FillDescriptor(entries, i, buffers[i], i + 1 < buffers.size(), static_cast<uint16_t>(i + 1));
    }
    const SplitDescriptor descriptor = {
        .addr = indirect_block_.address() + offset,
        .len = static_cast<uint32_t>(buffers.size() * sizeof(SplitDescriptor)),
        .flags = wire::kDescriptorIndirect,
        .next = 0};
    std::memcpy(table + sizeof(descriptor) * head, &descriptor, sizeof(descriptor));
  } else {
    uint16_t index = head;
    for (size_t i = 0; i < buffers.size(); ++i) {
      free_.pop_back();
      const bool more = i + 1 < buffers.size();
      const uint16_t next = more ? free_.back() : 0;
      FillDescriptor(table, index, buffers[i], more, next);
      next_[index] = next;
      index = next;
    }
  }
  chains_[head] = {.in_flight = true,
                   .cookie = cookie,
                   .writable = writable,
                   .order = added_++,
                   .descriptors = static_cast<uint16_t>(needed)};
  ++in_flight_;
  const uint64_t entry =
      wire::kAvailableRingOffset + wire::kAvailableEntrySize * (avail_idx_ & (size_ - 1));
  Word16(avail_block_, entry).store(head, std::memory_order_relaxed);
  ++avail_idx_;
  return true;
}

bool DriverQueue::Publish() {
  if (published_idx_ == avail_idx_) return false;
  const uint16_t before = std::exchange(published_idx_, avail_idx_);
  // The index must be visible before the device's wish is read, or both sides go to sleep: both
  // accesses are sequentially consistent, here and on the device's side.
  Word16(avail_block_, wire::kAvailableIdxOffset).store(avail_idx_, std::memory_order_seq_cst);
  if (event_idx_) {
    const uint16_t event =
        Word16(used_block_, wire::AvailableEventOffset(size_)).load(std::memory_order_seq_cst);
    return Passed(event, before, avail_idx_);
  }
  const uint16_t flags =
      Word16(used_block_, wire::kUsedFlagsOffset).load(std::memory_order_seq_cst);
  return (flags & wire::kUsedNoNotify) == 0;
}

bool DriverQueue::HasUsed() const {
  return Word16(used_block_, wire::kUsedIdxOffset).load(std::memory_order_acquire) != used_idx_;
}

absl::StatusOr<std::optional<DriverQueue::Completion>> DriverQueue::Pop() {
  if (!broken_.ok()) return broken_;
  const uint16_t used = Word16(used_block_, wire::kUsedIdxOffset).load(std::memory_order_acquire);
  const uint16_t waiting = static_cast<uint16_t>(used - used_idx_);
  if (waiting == 0) return std::nullopt;
  if (waiting > in_flight_) {
    return Break(
        absl::DataLossError(absl::StrCat("the device's used index went from ", used_idx_, " to ",
                                         used, " with ", in_flight_, " chains in flight")));
  }
  const uint64_t entry = wire::kUsedRingOffset + wire::kUsedEntrySize * (used_idx_ & (size_ - 1));
  const uint32_t id = Load32(used_block_, entry + offsetof(wire::SplitUsedEntry, id));
  const uint32_t written = Load32(used_block_, entry + offsetof(wire::SplitUsedEntry, len));
  if (id >= size_ || !chains_[id].in_flight) {
    return Break(absl::DataLossError(absl::StrCat(
        "the device returned id ", id, ", which is no chain in flight of a queue of ", size_)));
  }
  if (written > chains_[id].writable) {
    return Break(absl::DataLossError(absl::StrCat("the device claims to have written ", written,
                                                  " bytes to chain ", id, ", which holds ",
                                                  chains_[id].writable, " writable ones")));
  }
  ++used_idx_;
  ++taken_;
  const Completion completion = {.cookie = chains_[id].cookie, .written = written};
  Free(static_cast<uint16_t>(id));
  return completion;
}

absl::Status DriverQueue::Resume() {
  if (!broken_.ok()) return broken_;
  // Nobody writes it any more: read once, and what is below it stays.
  const uint16_t used = Word16(used_block_, wire::kUsedIdxOffset).load(std::memory_order_acquire);
  const uint16_t returned = static_cast<uint16_t>(used - used_idx_);
  std::vector<bool> back(size_);
  for (uint16_t i = 0; i < returned && returned <= in_flight_; ++i) {
    const uint16_t index = static_cast<uint16_t>(used_idx_ + i);
    const uint64_t entry = wire::kUsedRingOffset + wire::kUsedEntrySize * (index & (size_ - 1));
    const uint32_t id = Load32(used_block_, entry + offsetof(wire::SplitUsedEntry, id));
    if (id >= size_ || !chains_[id].in_flight || back[id]) {
      return Break(absl::DataLossError(absl::StrCat(
          "the device that is gone returned id ", id, " at ", index,
          " of the used ring: no chain in flight of a queue of ", size_, ", or one twice")));
    }
    back[id] = true;
  }
  std::vector<uint16_t> heads;
  for (uint32_t head = 0; head < size_; ++head) {
    if (chains_[head].in_flight && !back[head]) heads.push_back(static_cast<uint16_t>(head));
  }
  if (static_cast<uint16_t>(avail_idx_ - used) != heads.size()) {
    return Break(absl::DataLossError(
        absl::StrCat("the used index of the device that is gone is ", used, " where ", used_idx_,
                     " to ", used_idx_, " + ", in_flight_, " (the chains in flight) is possible")));
  }
  std::sort(heads.begin(), heads.end(),
            [this](uint16_t a, uint16_t b) { return chains_[a].order < chains_[b].order; });
  uint16_t index = used;
  for (const uint16_t head : heads) {
    const uint64_t entry =
        wire::kAvailableRingOffset + wire::kAvailableEntrySize * (index++ & (size_ - 1));
    Word16(avail_block_, entry).store(head, std::memory_order_relaxed);
  }
  published_idx_ = avail_idx_;
  Word16(avail_block_, wire::kAvailableIdxOffset).store(avail_idx_, std::memory_order_seq_cst);
  return absl::OkStatus();
}

void DriverQueue::Free(uint16_t head) {
  Chain& chain = chains_[head];
  uint16_t index = head;
  for (uint16_t i = 0; i < chain.descriptors; ++i) {
    free_.push_back(index);
    index = next_[index];
  }
  chain.in_flight = false;
  --in_flight_;
}

bool DriverQueue::EnableNotifications() {
  // As in Publish: the wish before the look, for both sides.
  if (event_idx_) {
    Word16(avail_block_, wire::UsedEventOffset(size_)).store(used_idx_, std::memory_order_seq_cst);
  } else {
    Word16(avail_block_, wire::kAvailableFlagsOffset).store(0, std::memory_order_seq_cst);
  }
  return Word16(used_block_, wire::kUsedIdxOffset).load(std::memory_order_seq_cst) != used_idx_;
}

void DriverQueue::DisableNotifications() {
  if (event_idx_) {
    // Just behind: the index passes it only after a whole turn of 65536.
    Word16(avail_block_, wire::UsedEventOffset(size_))
        .store(static_cast<uint16_t>(used_idx_ - 1), std::memory_order_relaxed);
  } else {
    Word16(avail_block_, wire::kAvailableFlagsOffset)
        .store(wire::kAvailableNoInterrupt, std::memory_order_relaxed);
  }
}

std::vector<uint64_t> DriverQueue::AbandonInFlight() {
  std::vector<uint64_t> cookies;
  for (uint32_t head = 0; head < size_; ++head) {
    if (!chains_[head].in_flight) continue;
    cookies.push_back(chains_[head].cookie);
    Free(static_cast<uint16_t>(head));
  }
  return cookies;
}

absl::Status DriverQueue::Break(absl::Status reason) { return broken_ = std::move(reason); }

}  // namespace vmsg::frontend
