// SPDX-License-Identifier: Apache-2.0
// Keeps direct writes and page-cache accesses of one image apart in time (see image.h): any number
// of either kind may run, but never both kinds. In order of arrival, so neither starves.
#pragma once

#include <cassert>
#include <cstdint>

namespace vmsg::backend {

// An entry is part of what waits; nothing is allocated.
struct WriteGateEntry {
  bool cached = false;
  WriteGateEntry* next_waiting = nullptr;
};

class WriteGate {
 public:
  // True: it may run now. False: it waits, until Next gives it out.
  bool Enter(WriteGateEntry* entry, bool cached) {
    entry->cached = cached;
    entry->next_waiting = nullptr;
    if (first_ == nullptr && Fits(cached)) {
      Admit(cached);
      return true;
    }
    (first_ == nullptr ? first_ : last_->next_waiting) = entry;
    last_ = entry;
    return false;
  }

  // One that ran has ended. Call Next until it gives none.
  void Leave() {
    assert(running_ > 0);
    --running_;
  }

  // The next that may run, as if it had just entered.
  WriteGateEntry* Next() {
    WriteGateEntry* entry = first_;
    if (entry == nullptr || !Fits(entry->cached)) return nullptr;
    first_ = entry->next_waiting;
    Admit(entry->cached);
    return entry;
  }

  // Takes out those waiting for which `drop` holds and hands each to `dropped`.
  template <class Drop, class Dropped>
  void DropWaiting(Drop drop, Dropped dropped) {
    WriteGateEntry* entry = first_;
    first_ = last_ = nullptr;
    while (entry != nullptr) {
      WriteGateEntry* const next = entry->next_waiting;
      entry->next_waiting = nullptr;
      if (drop(entry)) {
        dropped(entry);
      } else {
        (first_ == nullptr ? first_ : last_->next_waiting) = entry;
        last_ = entry;
      }
      entry = next;
    }
  }

 private:
  bool Fits(bool cached) const { return running_ == 0 || cached == running_cached_; }
  void Admit(bool cached) {
    running_cached_ = cached;
    ++running_;
  }

  WriteGateEntry* first_ = nullptr;
  WriteGateEntry* last_ = nullptr;
  uint32_t running_ = 0;
  bool running_cached_ = false;
};

}  // namespace vmsg::backend
