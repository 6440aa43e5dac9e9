// SPDX-License-Identifier: Apache-2.0
#include "backend/virtqueue/split_queue.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::backend {
namespace {

// Up to here a chain's vectors own no memory.
constexpr size_t kInlineBuffers = 8;
// A chain whose vectors grew past this is not kept for reuse, and not more chains than that.
constexpr size_t kMaxSpareCapacity = 1024;
constexpr size_t kMaxSpares = 64;

struct Area {
  const char* name;
  uint64_t address;
  uint64_t size;
  uint64_t alignment;
};

std::array<Area, 3> AreasOf(const QueueLayout& layout, bool event_idx) {
  return {Area{"descriptor area", layout.desc, wire::DescriptorAreaSize(layout.size),
               wire::kDescriptorAreaAlignment},
          Area{"driver area", layout.driver, wire::DriverAreaSize(layout.size, event_idx),
               wire::kDriverAreaAlignment},
          Area{"device area", layout.device, wire::DeviceAreaSize(layout.size, event_idx),
               wire::kDeviceAreaAlignment}};
}

// Neither range wraps around: PinArea has accepted both.
bool Overlap(const Area& a, const Area& b) {
  return a.address < b.address + b.size && b.address < a.address + a.size;
}

std::string Describe(const Area& area) {
  return absl::StrCat(area.name, " at ", area.address, ", ", area.size, " bytes");
}

uint32_t NextGeneration() {
  static std::atomic<uint32_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

// True when moving an index from `before` to `now` passes `event` (the rule of EVENT_IDX).
bool Passes(uint16_t event, uint16_t before, uint16_t now) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SplitQueue>> SplitQueue::Create(grants::Window& window,
                                                               const QueueLayout& layout,
                                                               const QueueFeatures& features) {
  if (layout.size == 0 || layout.size > kMaxQueueSize || (layout.size & (layout.size - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queue size ", layout.size, " is not a power of two from 1 to ", kMaxQueueSize));
  }
  const auto areas = AreasOf(layout, features.event_idx);
  for (const Area& area : areas) {
    if (area.address == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ", area.name, " is at address 0, which means that it is not set"));
    }
  }
  auto queue = std::unique_ptr<SplitQueue>(new SplitQueue(window, layout, features));
  grants::GuestArea* const pinned[] = {&queue->desc_, &queue->avail_, &queue->used_};
  for (size_t i = 0; i < areas.size(); ++i) {
    absl::StatusOr<grants::GuestArea> area =
        window.PinArea(areas[i].address, areas[i].size, areas[i].alignment);
    if (!area.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          Describe(areas[i]), ": ",
          absl::string_view(area.status().message().data(), area.status().message().size())));
    }
    *pinned[i] = *area;
  }
  for (size_t i = 0; i < areas.size(); ++i) {
    for (size_t j = i + 1; j < areas.size(); ++j) {
      if (Overlap(areas[i], areas[j])) {
        return absl::InvalidArgumentError(
            absl::StrCat(Describe(areas[i]), ", overlaps the ", Describe(areas[j])));
      }
    }
  }
  if (absl::Status status = queue->StartCursors(); !status.ok()) return status;
  queue->in_flight_heads_.resize((layout.size + 63) / 64);
  return queue;
}

SplitQueue::SplitQueue(grants::Window& window, const QueueLayout& layout,
                       const QueueFeatures& features)
    : window_(window), layout_(layout), features_(features), generation_(NextGeneration()) {}

SplitQueue::~SplitQueue() {
  assert(in_flight_ == 0);
  const auto areas = AreasOf(layout_, features_.event_idx);
  const grants::GuestArea* const pinned[] = {&desc_, &avail_, &used_};
  for (size_t i = 0; i < std::size(pinned); ++i) {
    if (*pinned[i]) window_.Unpin(areas[i].address, areas[i].size);
  }
}

absl::Status SplitQueue::StartCursors() {
  const auto used = used_.Load<uint16_t>(wire::kUsedIdxOffset, std::memory_order_acquire);
  if (!features_.resume) {
    if (used == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "the used index in the device area at ", layout_.device, " is ", used,
        ", so this ring was in use, and the frontend did not ask for feature-queue-resume: a ring ",
        "starts with zeros"));
  }
  // What the driver did with its available index meanwhile is checked against this by Refresh.
  next_avail_ = seen_avail_ = used_idx_ = published_used_ = used;
  announce_ = true;
  return absl::OkStatus();
}

uint16_t SplitQueue::AvailIdx() const {
  return avail_.Load<uint16_t>(wire::kAvailableIdxOffset, std::memory_order_acquire);
}

absl::StatusOr<bool> SplitQueue::Refresh() {
  const uint16_t idx = AvailIdx();
  const auto ahead = static_cast<uint16_t>(idx - next_avail_);
  if (ahead > layout_.size) {
    dead_ = true;
    return absl::DataLossError(absl::StrCat(
        "the available index is ", idx, " where ", next_avail_, " to ", next_avail_, " + ",
        layout_.size, " (the queue size) is possible: it went back or jumped ahead; the device ",
        "needs a reset"));
  }
  seen_avail_ = idx;
  return ahead != 0;
}

absl::StatusOr<std::optional<DescriptorChain>> SplitQueue::Pop() {
  if (stopped_) return std::nullopt;
  if (dead_) {
    return absl::DataLossError(
        "the available index was found to be wrong before; the device needs a reset");
  }
  for (uint32_t broken = 0; broken < kMaxBrokenPerPop; ++broken) {
    if (next_avail_ == seen_avail_) {
      absl::StatusOr<bool> more = Refresh();
      if (!more.ok()) return more.status();
      if (!*more) return std::nullopt;
    }
    const size_t slot = next_avail_ & (layout_.size - 1);
    const uint16_t head =
        avail_.Load<uint16_t>(wire::kAvailableRingOffset + slot * wire::kAvailableEntrySize);
    ++next_avail_;
    if (head >= layout_.size) {
      NoteBroken(absl::InvalidArgumentError(
          absl::StrCat("head ", head, " is not below the queue size ", layout_.size)));
      continue;
    }
    if (TestAndSetInFlight(head)) {
      NoteBroken(absl::InvalidArgumentError(
          absl::StrCat("head ", head, " was made available again while it is in flight")));
      continue;
    }
    DescriptorChain chain = TakeSpare();
    absl::Status walked = Walk(head, &chain);
    if (walked.ok()) {
      chain.head = head;
      chain.generation = generation_;
      ++in_flight_;
      return chain;
    }
    NoteBroken(std::move(walked));
    UnpinAll(chain);
    Recycle(std::move(chain));
    TestAndClearInFlight(head);
    PutUsed(head, 0);
  }
  return std::nullopt;
}

void SplitQueue::Return(DescriptorChain&& chain, uint32_t written) {
  const uint16_t head = chain.head;
  const bool ours = chain.generation == generation_ && TestAndClearInFlight(head);
  assert(ours);
  if (!ours) return;
  chain.generation = 0;
  UnpinAll(chain);
  Recycle(std::move(chain));
  --in_flight_;
  if (!stopped_) {
    PutUsed(head, written);
    return;
  }
  if (in_flight_ == 0 && drained_) {
    // May destroy this queue.
    std::exchange(drained_, nullptr)();
  }
}

void SplitQueue::PutUsed(uint16_t head, uint32_t written) {
  const size_t entry =
      wire::kUsedRingOffset + (used_idx_ & (layout_.size - 1)) * wire::kUsedEntrySize;
  used_.Store<uint32_t>(entry, head);
  used_.Store<uint32_t>(entry + offsetof(wire::SplitUsedEntry, len), written);
  ++used_idx_;
}

bool SplitQueue::Publish() {
  if (stopped_ || used_idx_ == published_used_) return false;
  const uint16_t before = published_used_;
  published_used_ = used_idx_;
  // Sequentially consistent, both: the driver writes its wish and then looks at the index, so that
  // one of the two sees the other.
  used_.Store<uint16_t>(wire::kUsedIdxOffset, used_idx_, std::memory_order_seq_cst);
  if (std::exchange(announce_, false)) return true;
  if (!features_.event_idx) {
    const auto flags =
        avail_.Load<uint16_t>(wire::kAvailableFlagsOffset, std::memory_order_seq_cst);
    return (flags & wire::kAvailableNoInterrupt) == 0;
  }
  const auto event =
      avail_.Load<uint16_t>(wire::UsedEventOffset(layout_.size), std::memory_order_seq_cst);
  return Passes(event, before, used_idx_);
}

void SplitQueue::DisableKicks() {
  // With EVENT_IDX nothing needs to be written: the event index stays behind and the driver sends
  // nothing until its index comes round to it.
  if (!stopped_ && !features_.event_idx)
    used_.Store<uint16_t>(wire::kUsedFlagsOffset, wire::kUsedNoNotify);
}

bool SplitQueue::EnableKicks() {
  if (stopped_ || dead_) return false;
  // Sequentially consistent, wish and index; see Publish.
  if (features_.event_idx) {
    used_.Store<uint16_t>(wire::AvailableEventOffset(layout_.size), next_avail_,
                          std::memory_order_seq_cst);
  } else {
    used_.Store<uint16_t>(wire::kUsedFlagsOffset, 0, std::memory_order_seq_cst);
  }
  return avail_.Load<uint16_t>(wire::kAvailableIdxOffset, std::memory_order_seq_cst) != next_avail_;
}

bool SplitQueue::HasAvailable() const {
  if (stopped_ || dead_) return false;
  return next_avail_ != seen_avail_ || AvailIdx() != next_avail_;
}

void SplitQueue::Stop(absl::AnyInvocable<void()> drained) {
  stopped_ = true;
  if (in_flight_ == 0) {
    if (drained) drained();
    return;
  }
  drained_ = std::move(drained);
}

bool SplitQueue::TestAndSetInFlight(uint16_t head) {
  uint64_t& word = in_flight_heads_[head / 64];
  const uint64_t bit = uint64_t{1} << (head % 64);
  const bool was = (word & bit) != 0;
  word |= bit;
  return was;
}

bool SplitQueue::TestAndClearInFlight(uint16_t head) {
  uint64_t& word = in_flight_heads_[head / 64];
  const uint64_t bit = uint64_t{1} << (head % 64);
  const bool was = (word & bit) != 0;
  word &= ~bit;
  return was;
}

void SplitQueue::NoteBroken(absl::Status why) {
  ++broken_chains_;
  last_broken_ = std::move(why);
}

DescriptorChain SplitQueue::TakeSpare() {
  if (spares_.empty()) return {};
  DescriptorChain chain = std::move(spares_.back());
  spares_.pop_back();
  return chain;
}

void SplitQueue::Recycle(DescriptorChain&& chain) {
  chain.readable.clear();
  chain.writable.clear();
  chain.pins.clear();
  chain.readable_bytes = 0;
  chain.writable_bytes = 0;
  const size_t capacity =
      std::max({chain.readable.capacity(), chain.writable.capacity(), chain.pins.capacity()});
  if (capacity <= kInlineBuffers || capacity > kMaxSpareCapacity || spares_.size() == kMaxSpares) {
    return;
  }
  spares_.push_back(std::move(chain));
}

}  // namespace vmsg::backend
