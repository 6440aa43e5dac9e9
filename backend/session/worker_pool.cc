// SPDX-License-Identifier: Apache-2.0
#include "backend/session/worker_pool.h"

#include <utility>

namespace vmsg::backend {

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void WorkerPool::Submit(Key key, absl::AnyInvocable<void()> job) {
  absl::MutexLock lock(&mutex_);
  Lane& lane = lanes_[key];
  lane.jobs.push_back(std::move(job));
  if (lane.queued) return;
  lane.queued = true;
  ready_.push_back(key);
  if (ready_.size() > idle_ && threads_.size() < kMaxThreads && !ending_) {
    threads_.emplace_back([this] { Work(); });
  }
}

void WorkerPool::Work() {
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || !ready_.empty();
  };
  absl::MutexLock lock(&mutex_);
  while (true) {
    ++idle_;
    mutex_.Await(absl::Condition(&wanted));
    --idle_;
    if (ready_.empty()) return;
    const Key key = ready_.front();
    ready_.pop_front();
    absl::AnyInvocable<void()> job = std::move(lanes_[key].jobs.front());
    lanes_[key].jobs.pop_front();
    mutex_.Unlock();
    job();
    job = nullptr;  // what it owns may take long to give back, too
    mutex_.Lock();
    auto lane = lanes_.find(key);
    if (lane->second.jobs.empty()) {
      lanes_.erase(lane);
    } else {
      ready_.push_back(key);
    }
  }
}

}  // namespace vmsg::backend
