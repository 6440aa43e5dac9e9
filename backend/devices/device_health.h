// SPDX-License-Identifier: Apache-2.0
// What became of a device's I/O since it was attached. Shared by the sessions that serve it one
// after the other and by the control thread: a guest that connects again meets what an earlier
// connection left. Only attaching anew makes a new one. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "absl/functional/any_invocable.h"

namespace vmsg::backend {

struct IoFailure {
  const char* operation = "";  // "read", "write" or "flush"
  uint64_t offset = 0;
  uint64_t bytes = 0;  // 0: the operation has no range
  int error = 0;       // errno; 0: the file has ended
};

class DeviceHealth {
 public:
  // Data that were said to be written may be gone: a flush or a write that had to be stable failed,
  // and the kernel reports that once. Nothing is said to be stable from then on.
  void LoseData() { data_lost_.store(true, std::memory_order_release); }
  bool data_lost() const { return data_lost_.load(std::memory_order_acquire); }

  // Whether something was written since the last flush began.
  void NoteVolatileData() {
    if (!volatile_data()) volatile_data_.store(true, std::memory_order_relaxed);
  }
  bool volatile_data() const { return volatile_data_.load(std::memory_order_relaxed); }
  void NoteFlushBegins() { volatile_data_.store(false, std::memory_order_relaxed); }

  void Record(const IoFailure& failure);

  struct Report {
    uint64_t failures = 0;
    std::string last;  // empty: none
  };
  Report Read() const;

  // `failed` runs, on whichever thread, at the first failure; and at the first after Rearm.
  void OnFailure(absl::AnyInvocable<void()> failed);
  // True: there were failures since the last Read, and `failed` does not run for them.
  bool Rearm();

 private:
  std::atomic<bool> data_lost_ = false;
  std::atomic<bool> volatile_data_ = false;
  mutable std::mutex mutex_;
  uint64_t failures_ = 0;              // guarded by mutex_
  mutable uint64_t read_ = 0;          // guarded by mutex_: failures at the last Read
  IoFailure last_;                     // guarded by mutex_
  bool announced_ = false;             // guarded by mutex_
  absl::AnyInvocable<void()> failed_;  // guarded by mutex_
};

}  // namespace vmsg::backend
