// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/console_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {
namespace {

// Given to a terminal in one call, and moved in one turn, so that neither a fast reader nor a guest
// that floods its console keeps the thread for long.
constexpr uint64_t kBytesPerWrite = uint64_t{64} * 1024;
constexpr uint64_t kOutputPerTurn = 8 * kBytesPerWrite;
constexpr uint32_t kOwnBudget = 32;

}  // namespace

ConsoleDevice::ConsoleDevice(std::unique_ptr<Terminal> terminal, EventLoop* loop)
    : terminal_(std::move(terminal)), loop_(loop) {
  identity_.device_id = wire::kDeviceIdConsole;
  identity_.features = wire::kConsoleFeatureSize;
  identity_.config_size = sizeof config_;
  identity_.max_queue_sizes = {kConsoleMaxQueueSize, kConsoleMaxQueueSize};
  config_.cols = terminal_->window_size().cols;
  config_.rows = terminal_->window_size().rows;
}

ConsoleDevice::~ConsoleDevice() {
  terminal_->Stop();
  for (Direction& direction : directions_) Cancel(direction.again);
  Cancel(drain_again_);
  Cancel(last_words_);
}

void ConsoleDevice::VisitCounters(CounterVisitor visit) const {
  visit("dropped-unattached-bytes", dropped_unattached_);
  visit("dropped-unread-bytes", dropped_unread_);
}

void ConsoleDevice::ReadConfig(uint32_t offset, std::span<std::byte> out) const {
  if (offset > sizeof config_ || out.size() > sizeof config_ - offset) return;
  std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&config_) + offset, out.size());
}

absl::Status ConsoleDevice::WriteConfig(uint32_t, std::span<const std::byte>) {
  return absl::InvalidArgumentError("a console's configuration cannot be written");
}

void ConsoleDevice::OnStart(DeviceHost& host, uint64_t) {
  host_ = &host;
  terminal_->Start(this);
  // What came while nobody ran the console.
  const WindowSize size = terminal_->window_size();
  if (size != WindowSize{config_.cols, config_.rows}) OnWindowSize(size);
}

bool ConsoleDevice::Settle(DeviceHost& host) {
  settling_ = nullptr;
  if (terminal_->attached()) DrainBacklog();
  if (backlog_.empty()) return true;
  settling_ = &host;
  if (!last_words_.has_value()) {
    last_words_end_ = loop_->Now() + kConsoleLastWords;
    AwaitReader();
  }
  return false;
}

void ConsoleDevice::AwaitReader() {
  const absl::Duration left = last_words_end_ - loop_->Now();
  last_words_ = loop_->RunAfter(std::min(left, kConsoleStall), [this, before = backlog_.size()] {
    last_words_.reset();
    // A socket tells of room late, when most of it is free.
    if (terminal_->attached()) DrainBacklog();
    if (settling_ == nullptr) return;
    if (backlog_.size() < before && loop_->Now() < last_words_end_) {
      AwaitReader();
    } else {
      DropBacklog();
    }
  });
}

void ConsoleDevice::DropBacklog() {
  Cancel(drain_again_);
  const uint64_t dropped = backlog_.Clear();
  dropped_unread_ += dropped;
  if (settling_ == nullptr) return;
  if (dropped > 0) {
    settling_->Report(absl::UnavailableError(absl::StrCat(
        "the last ", dropped, " bytes of output are dropped: their reader has not taken them")));
  }
  std::exchange(settling_, nullptr)->Settled();
}

void ConsoleDevice::OnReset() {
  Cancel(last_words_);
  terminal_->Stop();
  host_ = nullptr;
}

bool ConsoleDevice::OnQueue(uint32_t queue, uint32_t budget) {
  return Pump(queue, budget) == Pumped::kMore;
}

ConsoleDevice::Pumped ConsoleDevice::Pump(uint32_t queue, uint32_t budget) {
  SplitQueue* const split_queue = host_ == nullptr ? nullptr : host_->queue(queue);
  if (split_queue == nullptr || split_queue->stopped()) return Pumped::kEmpty;
  Direction& direction = directions_[queue];
  const bool input = queue == wire::kConsoleReceiveQueue;
  const uint64_t broken = split_queue->broken_chains();
  direction.returned = false;
  if (!input) moved_this_turn_ = 0;
  Pumped outcome = Pumped::kMore;
  absl::Status failure;
  for (uint32_t taken = 0; taken < budget; ++taken) {
    if (!direction.held.has_value()) {
      absl::StatusOr<std::optional<DescriptorChain>> chain = split_queue->Pop();
      if (!chain.ok()) {
        failure = chain.status();
        outcome = Pumped::kFailed;
        break;
      }
      if (!chain->has_value()) {
        outcome = split_queue->HasAvailable() ? Pumped::kMore : Pumped::kEmpty;
        break;
      }
      direction.held = *std::move(chain);
      direction.done = 0;
    }
    if (!(input ? Receive(split_queue) : Transmit(split_queue))) {
      outcome = Pumped::kBlocked;
      break;
    }
  }
  // Without buffers the input waits where it is.
  if (input) terminal_->WantInput(outcome == Pumped::kBlocked || outcome == Pumped::kMore);
  if (direction.returned || split_queue->broken_chains() != broken) host_->Completed(queue);
  if (!failure.ok() && host_ != nullptr) host_->NeedsReset(failure);
  return outcome;
}

void ConsoleDevice::Return(Direction& direction, SplitQueue* split_queue, uint64_t written) {
  DescriptorChain chain = *std::exchange(direction.held, std::nullopt);
  direction.returned = true;
  split_queue->Return(std::move(chain), static_cast<uint32_t>(written));
}

bool ConsoleDevice::Receive(SplitQueue* split_queue) {
  Direction& direction = directions_[wire::kConsoleReceiveQueue];
  ssize_t got = 0;
  if (direction.held->writable_bytes > 0) {
    got = terminal_->attached() ? terminal_->Read(direction.held->writable) : 0;
    if (got <= 0) return false;
  }
  Return(direction, split_queue, got);
  return true;
}

bool ConsoleDevice::Transmit(SplitQueue* split_queue) {
  Direction& direction = directions_[wire::kConsoleTransmitQueue];
  const absl::Span<const iovec> readable = direction.held->readable;
  const uint64_t total = direction.held->readable_bytes;
  // Room may have come that the loop has not told of yet.
  if (moved_this_turn_ == 0 && total > backlog_.room()) DrainBacklog();
  grants::IoVector pieces;
  while (direction.done < total) {
    if (moved_this_turn_ >= kOutputPerTurn) {
      PumpSoon(wire::kConsoleTransmitQueue);
      return false;
    }
    const uint64_t part = std::min(total - direction.done, kBytesPerWrite);
    ssize_t written = -1;
    if (terminal_->attached()) {
      written = 0;
      if (backlog_.empty()) {
        SlicePieces(readable, direction.done, part, &pieces);
        written = terminal_->Write(pieces);
      }
    }
    if (written < 0) {
      dropped_unattached_ += total - direction.done;
      break;
    }
    if (written == 0) {
      // The newest is what is kept, so what it would push out is not even looked at.
      if (const uint64_t left = total - direction.done; left > OutputBacklog::kCapacity) {
        const uint64_t skipped = left - OutputBacklog::kCapacity;
        dropped_unread_ += skipped;
        direction.done += skipped;
      }
      dropped_unread_ += backlog_.Add(readable, direction.done, part);
      written = static_cast<ssize_t>(part);
    }
    direction.done += written;
    moved_this_turn_ += written;
  }
  Return(direction, split_queue, 0);
  return true;
}

void ConsoleDevice::DrainBacklog() {
  Cancel(drain_again_);
  for (uint64_t moved = 0; !backlog_.empty();) {
    if (moved >= kOutputPerTurn) {
      drain_again_ = loop_->RunAfter(absl::ZeroDuration(), [this] {
        drain_again_.reset();
        DrainBacklog();
      });
      return;
    }
    iovec oldest = backlog_.Oldest();
    oldest.iov_len = std::min<size_t>(oldest.iov_len, kBytesPerWrite);
    const ssize_t written = terminal_->Write({&oldest, 1});
    if (written <= 0) return;  // OnRoom or OnAttached follows
    backlog_.Consume(written);
    moved += written;
  }
  if (settling_ != nullptr) std::exchange(settling_, nullptr)->Settled();
}

void ConsoleDevice::PumpOnOurOwn(uint32_t queue) {
  Cancel(directions_[queue].again);
  const Pumped outcome = Pump(queue, kOwnBudget);
  if (outcome == Pumped::kBlocked || outcome == Pumped::kFailed || host_ == nullptr) return;
  SplitQueue* const split_queue = host_->queue(queue);
  if (split_queue == nullptr) return;
  if (outcome == Pumped::kEmpty && !split_queue->EnableKicks()) return;
  PumpSoon(queue);
}

void ConsoleDevice::PumpSoon(uint32_t queue) {
  Cancel(directions_[queue].again);
  directions_[queue].again = loop_->RunAfter(absl::ZeroDuration(), [this, queue] {
    directions_[queue].again.reset();
    PumpOnOurOwn(queue);
  });
}

void ConsoleDevice::Cancel(std::optional<EventLoop::TimerId>& timer) {
  if (timer.has_value()) loop_->Cancel(*std::exchange(timer, std::nullopt));
}

void ConsoleDevice::OnQueueStopping(uint32_t queue) {
  Direction& direction = directions_[queue];
  Cancel(direction.again);
  if (queue == wire::kConsoleReceiveQueue) terminal_->WantInput(false);
  SplitQueue* const split_queue = host_ == nullptr ? nullptr : host_->queue(queue);
  if (!direction.held.has_value() || split_queue == nullptr) return;
  if (queue == wire::kConsoleTransmitQueue) {
    dropped_unread_ += direction.held->readable_bytes - direction.done;
  }
  Return(direction, split_queue, 0);
}

void ConsoleDevice::OnAttached(bool attached) {
  if (attached) {
    PumpOnOurOwn(wire::kConsoleReceiveQueue);
  } else {
    // It was for the one who left.
    DropBacklog();
  }
}

void ConsoleDevice::OnInput() { PumpOnOurOwn(wire::kConsoleReceiveQueue); }

void ConsoleDevice::OnRoom() { DrainBacklog(); }

void ConsoleDevice::OnWindowSize(WindowSize size) {
  const auto change = [this, size] {
    config_.cols = size.cols;
    config_.rows = size.rows;
  };
  if (host_ == nullptr) {
    change();
    return;
  }
  host_->ChangeConfig(offsetof(wire::ConsoleConfig, cols), 2 * sizeof(uint16_t), change);
}

}  // namespace vmsg::backend
