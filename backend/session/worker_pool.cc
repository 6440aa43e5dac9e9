// SPDX-License-Identifier: Apache-2.0
#include "backend/session/worker_pool.h"

#include <mutex>
#include <utility>

namespace vmsg::backend {

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void WorkerPool::Submit(Key key, absl::AnyInvocable<void()> job) {
  std::lock_guard lock(mutex_);
  Lane& lane = lanes_[key];
  lane.jobs.push_back(std::move(job));
  if (lane.queued) return;
  lane.queued = true;
  ready_.push_back(key);
  changed_.notify_one();
  if (ready_.size() > idle_ && threads_.size() < kMaxThreads && !ending_) {
    threads_.emplace_back([this] { Work(); });
  }
}

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    changed_.wait(lock, [this] { return ending_ || !ready_.empty(); });
    --idle_;
    if (ready_.empty()) return;
    const Key key = ready_.front();
    ready_.pop_front();
    absl::AnyInvocable<void()> job = std::move(lanes_[key].jobs.front());
    lanes_[key].jobs.pop_front();
    lock.unlock();
    job();
    job = nullptr;  // what it owns may take long to give back, too
    lock.lock();
    auto lane = lanes_.find(key);
    if (lane->second.jobs.empty()) {
      lanes_.erase(lane);
    } else {
      ready_.push_back(key);
      changed_.notify_one();
    }
  }
}

}  // namespace vmsg::backend
