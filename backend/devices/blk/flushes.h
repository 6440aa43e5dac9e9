// SPDX-License-Identifier: Apache-2.0
// The flushes of one image, one at a time: the kernel tells of a lost write once, to one fsync of
// an open file, so of two at the same time one would call stable what the other hears is gone. What
// comes while one is at work shares the next.
#pragma once

#include <utility>

#include "backend/devices/async_file_io.h"
#include "backend/devices/device_health.h"

namespace vmsg::backend {

// A part of what waits for a flush; nothing is allocated.
struct FlushEntry {
  FlushEntry* next_flush = nullptr;
};

class FlushOwner {
 public:
  virtual ~FlushOwner() = default;
  // All that was written before Join is on stable storage; or it is not, or may not be.
  virtual void OnFlushed(FlushEntry* entry, bool stable) = 0;
  // Nothing is at work any more.
  virtual void OnFlushesEnd() = 0;
};

class Flushes {
 public:
  // All of it outlives this. Nothing may be at work when it is destroyed.
  Flushes(AsyncFileIo* io, int fd, DeviceHealth* health, FlushOwner* owner)
      : io_(io), fd_(fd), health_(health), owner_(owner) {
    sync_.flushes = this;
    sync_.done = OnDone;
  }

  // Ends within the call when data are lost.
  void Join(FlushEntry* entry) {
    if (health_->data_lost()) return owner_->OnFlushed(entry, false);
    entry->next_flush = nullptr;
    (first_ == nullptr ? first_ : last_->next_flush) = entry;
    last_ = entry;
    Begin();
  }
  // One that nobody waits for.
  void Demand() {
    demanded_ = true;
    Begin();
  }
  bool at_work() const { return at_work_; }

  // Takes out those for which `drop` holds of what has not begun, and hands each to `dropped`.
  template <class Drop, class Dropped>
  void DropWaiting(Drop drop, Dropped dropped) {
    FlushEntry* entry = std::exchange(first_, nullptr);
    while (entry != nullptr) {
      FlushEntry* const next = std::exchange(entry->next_flush, nullptr);
      if (drop(entry)) {
        dropped(entry);
      } else {
        (first_ == nullptr ? first_ : last_->next_flush) = entry;
        last_ = entry;
      }
      entry = next;
    }
  }

 private:
  struct Sync : FileOperation {
    Flushes* flushes = nullptr;
  };

  void Begin() {
    if (at_work_ || (first_ == nullptr && !demanded_)) return;
    at_work_ = true;
    demanded_ = false;
    flushing_ = std::exchange(first_, nullptr);
    health_->NoteFlushBegins();
    io_->Sync(&sync_, fd_, /*data_only=*/true);
  }

  static void OnDone(FileOperation* operation, int64_t result) {
    Flushes* const self = static_cast<Sync*>(operation)->flushes;
    if (result < 0) {
      // Before it is recorded, whose text tells of it.
      self->health_->LoseData();
      self->health_->Record({.operation = "flush", .error = static_cast<int>(-result)});
    }
    self->at_work_ = false;
    const bool lost = self->health_->data_lost();
    End(self->owner_, std::exchange(self->flushing_, nullptr), !lost);
    if (lost) {
      self->demanded_ = false;
      End(self->owner_, std::exchange(self->first_, nullptr), false);
    }
    self->Begin();
    if (!self->at_work_) self->owner_->OnFlushesEnd();
  }

  static void End(FlushOwner* owner, FlushEntry* entry, bool stable) {
    while (entry != nullptr) {
      FlushEntry* const next = std::exchange(entry->next_flush, nullptr);
      owner->OnFlushed(entry, stable);
      entry = next;
    }
  }

  AsyncFileIo* const io_;
  const int fd_;
  DeviceHealth* const health_;
  FlushOwner* const owner_;
  Sync sync_;
  bool at_work_ = false;
  bool demanded_ = false;
  FlushEntry* flushing_ = nullptr;  // shared by the one at work
  FlushEntry* first_ = nullptr;     // for the next
  FlushEntry* last_ = nullptr;
};

}  // namespace vmsg::backend
