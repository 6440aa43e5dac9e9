// SPDX-License-Identifier: Apache-2.0
#include "backend/session/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"

namespace vmsg::backend {
namespace {

TEST(WorkerPool, RunsTheJobsOfOneKeyInOrder) {
  std::vector<int> order;  // one lane: no two jobs at once
  {
    WorkerPool pool;
    for (int i = 0; i < 100; ++i) {
      pool.Submit(7, [&order, i] { order.push_back(i); });
    }
  }
  ASSERT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(WorkerPool, JobThatHangsHoldsOnlyItsKey) {
  WorkerPool pool;
  absl::Notification release, held, other;
  pool.Submit(1, [&] {
    held.Notify();
    release.WaitForNotification();
  });
  held.WaitForNotification();
  bool behind = false;
  pool.Submit(1, [&] { behind = true; });
  pool.Submit(2, [&] { other.Notify(); });
  other.WaitForNotification();
  EXPECT_FALSE(behind);
  release.Notify();
}

TEST(WorkerPool, ManyKeysThatHangLeaveRoomForMore) {
  WorkerPool pool;
  absl::Notification release, other;
  absl::BlockingCounter held(WorkerPool::kMaxThreads - 1);
  for (WorkerPool::Key key = 0; key < WorkerPool::kMaxThreads - 1; ++key) {
    pool.Submit(key, [&] {
      held.DecrementCount();
      release.WaitForNotification();
    });
  }
  held.Wait();
  pool.Submit(1000, [&] { other.Notify(); });
  other.WaitForNotification();
  release.Notify();
}

TEST(WorkerPool, JobsMaySubmitJobs) {
  absl::Notification done;
  WorkerPool pool;
  pool.Submit(1, [&] { pool.Submit(1, [&] { done.Notify(); }); });
  done.WaitForNotification();
}

TEST(WorkerPool, EndsOnlyAfterWhatWasSubmitted) {
  int ran = 0;
  {
    WorkerPool pool;
    for (int i = 0; i < 1000; ++i) pool.Submit(3, [&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

}  // namespace
}  // namespace vmsg::backend
