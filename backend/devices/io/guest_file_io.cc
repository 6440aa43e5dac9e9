// SPDX-License-Identifier: Apache-2.0
// One guest's share of its thread's disk I/O: so many bytes at work, large transfers in parts, and
// where it has to be, through memory of our own.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "backend/devices/async_file_io.h"
#include "backend/devices/io/bounce_memory.h"
#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {
namespace {

class GuestFileIo final : public AsyncFileIo {
 public:
  GuestFileIo(AsyncFileIo* disk, EventLoop* loop, std::optional<BounceMemory> memory)
      : disk_(disk), loop_(loop), memory_(std::move(memory)) {}
  ~GuestFileIo() override {
    if (trim_timer_ != 0) loop_->Cancel(trim_timer_);
  }

  bool Withdraw(FileOperation* operation) override {
    if (operation->kind == FileOperation::Kind::kSync) return disk_->Withdraw(operation);
    if (operation->part == nullptr) {
      Unlink(operation);
      return true;
    }
    operation->withdrawn = true;
    Part* const part = static_cast<Part*>(operation->part);
    if (!disk_->Withdraw(part)) return false;
    Release(part);
    return true;
  }

  bool copies() const override { return memory_.has_value(); }
  void Submit() override { disk_->Submit(); }
  void NotifyAtBatchEnd(BatchListener* listener) override { disk_->NotifyAtBatchEnd(listener); }
  void ForgetBatchListener(BatchListener* listener) override {
    disk_->ForgetBatchListener(listener);
  }

 private:
  // A part at work. As many as were ever at work at once exist.
  struct Part : FileOperation {
    GuestFileIo* io = nullptr;
    FileOperation* operation = nullptr;
    uint64_t bytes = 0;
    // Bounced: the memory, and the one piece that it is.
    std::byte* memory = nullptr;
    iovec piece = {};
    // Else: so many of the operation's pieces, and what the last one of them is without the cut.
    uint32_t pieces_of_operation = 0;
    iovec last = {};
    uint64_t last_used = 0;
    Part* next_free = nullptr;
  };

  void Start(FileOperation* operation) override {
    if (operation->kind == FileOperation::Kind::kSync) {
      // It names no memory of the guest's.
      disk_->Sync(operation, operation->fd, operation->dsync);
    } else if (first_ != nullptr || !BeginPart(operation)) {
      Append(operation);
    }
  }

  // False: there is no room now. Something is at work then, and its end makes some.
  bool BeginPart(FileOperation* operation) {
    const uint64_t most =
        memory_.has_value() ? GuestIoLimits::kBouncedBytesOfPart : GuestIoLimits::kBytesOfPart;
    uint64_t bytes = 0;
    uint32_t count = 0;
    // Whole pieces where the disk is given them, so that each suits it as it did.
    while (count < operation->piece_count && bytes < most) {
      const uint64_t more = operation->pieces[count].iov_len;
      if (!memory_.has_value() && count > 0 && bytes + more > most) break;
      bytes += more;
      ++count;
    }
    const uint64_t cut = bytes - std::min(bytes, most);
    bytes -= cut;
    std::byte* memory = nullptr;
    if (memory_.has_value()) {
      memory = memory_->Take(bytes);
      if (memory == nullptr) return false;
    } else if (at_work_ + bytes > GuestIoLimits::kBytes) {
      return false;
    }
    at_work_ += bytes;
    Part* const part = TakePart();
    part->operation = operation;
    part->bytes = bytes;
    part->memory = memory;
    operation->part = part;
    iovec* pieces = operation->pieces;
    if (memory != nullptr) {
      part->piece = {.iov_base = memory, .iov_len = bytes};
      pieces = &part->piece;
      if (operation->kind == FileOperation::Kind::kWrite) {
        CopyGuestData({operation->pieces, operation->piece_count}, bytes, memory);
      }
    } else if (count > 0) {
      part->pieces_of_operation = count;
      part->last = pieces[count - 1];
      part->last_used = part->last.iov_len - cut;
      pieces[count - 1].iov_len -= cut;
    }
    const uint32_t piece_count = memory != nullptr ? 1 : count;
    if (operation->kind == FileOperation::Kind::kWrite) {
      disk_->Writev(part, operation->fd, pieces, piece_count, operation->offset, operation->dsync);
    } else {
      disk_->Readv(part, operation->fd, pieces, piece_count, operation->offset);
    }
    return true;
  }

  static void OnPartDone(FileOperation* at_work, int64_t result) {
    auto* const part = static_cast<Part*>(at_work);
    GuestFileIo* const self = part->io;
    FileOperation* const operation = part->operation;
    // Exactly what was read: what else the memory holds is of another request.
    if (part->memory != nullptr && result > 0 && operation->kind == FileOperation::Kind::kRead) {
      WriteGuest({operation->pieces, operation->piece_count}, 0,
                 {part->memory, static_cast<size_t>(result)});
    }
    const bool whole = result >= 0 && static_cast<uint64_t>(result) == part->bytes;
    const bool left = whole && self->Advance(operation, *part);
    if (result > 0) operation->transferred += result;
    self->Release(part);
    const bool again = left && !operation->withdrawn;
    // Behind what others have begun meanwhile.
    if (again) self->Append(operation);
    self->BeginWaiting();
    if (again) return;
    if (left) result = -ECANCELED;
    operation->done(operation, result < 0 ? result : operation->transferred);
  }

  // True: something is left.
  bool Advance(FileOperation* operation, const Part& part) {
    operation->offset += part.bytes;
    if (part.memory != nullptr) return SkipPieces(operation, part.bytes);
    if (part.pieces_of_operation == 0) return false;
    uint32_t whole = part.pieces_of_operation;
    if (part.last_used < part.last.iov_len) {
      --whole;
      operation->pieces[whole] = {
          .iov_base = static_cast<std::byte*>(part.last.iov_base) + part.last_used,
          .iov_len = part.last.iov_len - part.last_used};
    }
    operation->pieces += whole;
    operation->piece_count -= whole;
    return operation->piece_count > 0;
  }

  static bool SkipPieces(FileOperation* operation, uint64_t bytes) {
    while (operation->piece_count > 0 && bytes >= operation->pieces->iov_len) {
      bytes -= operation->pieces->iov_len;
      ++operation->pieces;
      --operation->piece_count;
    }
    if (operation->piece_count == 0) return false;
    operation->pieces->iov_base = static_cast<std::byte*>(operation->pieces->iov_base) + bytes;
    operation->pieces->iov_len -= bytes;
    return true;
  }

  // Gives back what the part had.
  void Release(Part* part) {
    at_work_ -= part->bytes;
    if (part->memory != nullptr) {
      memory_->Give(std::exchange(part->memory, nullptr), part->bytes);
      if (memory_->idle()) TrimLater();
    }
    part->operation->part = nullptr;
    part->pieces_of_operation = 0;
    part->next_free = std::exchange(free_parts_, part);
  }

  void BeginWaiting() {
    while (first_ != nullptr) {
      FileOperation* const operation = first_;
      if (!BeginPart(operation)) return;
      Unlink(operation);
    }
  }

  void Append(FileOperation* operation) {
    operation->next = nullptr;
    operation->previous = last_;
    (last_ == nullptr ? first_ : last_->next) = operation;
    last_ = operation;
  }
  void Unlink(FileOperation* operation) {
    (operation->previous == nullptr ? first_ : operation->previous->next) = operation->next;
    (operation->next == nullptr ? last_ : operation->next->previous) = operation->previous;
    operation->next = operation->previous = nullptr;
  }

  Part* TakePart() {
    if (free_parts_ == nullptr) {
      parts_.push_back(std::make_unique<Part>());
      parts_.back()->io = this;
      parts_.back()->done = OnPartDone;
      return parts_.back().get();
    }
    return std::exchange(free_parts_, free_parts_->next_free);
  }

  // Not at each request of a guest that has one at work at a time.
  void TrimLater() {
    used_since_ = true;
    if (trim_timer_ != 0) return;
    used_since_ = false;
    trim_timer_ = loop_->RunAfter(GuestIoLimits::kIdle, [this] {
      trim_timer_ = 0;
      if (!memory_->idle()) return;
      if (used_since_) {
        TrimLater();
      } else {
        memory_->Trim();
      }
    });
  }

  AsyncFileIo* const disk_;
  EventLoop* const loop_;
  std::optional<BounceMemory> memory_;
  std::vector<std::unique_ptr<Part>> parts_;
  Part* free_parts_ = nullptr;
  FileOperation* first_ = nullptr;  // waiting, in order
  FileOperation* last_ = nullptr;
  uint64_t at_work_ = 0;
  bool used_since_ = false;  // the timer was started
  EventLoop::TimerId trim_timer_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AsyncFileIo>> NewGuestFileIo(AsyncFileIo* disk, EventLoop* loop,
                                                            bool bounce) {
  std::optional<BounceMemory> memory;
  if (bounce) {
    absl::StatusOr<BounceMemory> reserved = BounceMemory::Reserve(GuestIoLimits::kBouncedBytes);
    if (!reserved.ok()) return reserved.status();
    memory.emplace(*std::move(reserved));
  }
  return std::make_unique<GuestFileIo>(disk, loop, std::move(memory));
}

}  // namespace vmsg::backend
