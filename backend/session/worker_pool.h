// SPDX-License-Identifier: Apache-2.0
// Threads for what can block for long: mapping and unmapping grants, opening files.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"

namespace vmsg::backend {

// Jobs of one key run one after the other, in order; jobs of different keys side by side. With a
// key for each guest, a guest whose jobs hang (Xen retries a paged-out grant for ever, a dead NFS
// server never answers) holds one thread, and the others go on. Thread-safe.
class WorkerPool {
 public:
  // Threads are started when needed, up to this many; they cost a stack each while they sleep. With
  // all of them hanging, the rest waits.
  static constexpr size_t kMaxThreads = 32;

  using Key = uint64_t;

  WorkerPool() = default;
  // Runs what was submitted, then ends.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Submit(Key key, absl::AnyInvocable<void()> job);

 private:
  struct Lane {
    std::deque<absl::AnyInvocable<void()>> jobs;
    bool queued = false;  // in ready_, or a thread runs its first job
  };
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;       // of ready_ and ending_
  absl::flat_hash_map<Key, Lane> lanes_;  // guarded by mutex_
  std::deque<Key> ready_;                 // guarded by mutex_
  size_t idle_ = 0;                       // guarded by mutex_
  bool ending_ = false;                   // guarded by mutex_
  std::vector<std::thread> threads_;      // guarded by mutex_
};

}  // namespace vmsg::backend
