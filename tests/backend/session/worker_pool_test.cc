// SPDX-License-Identifier: Apache-2.0
#include "backend/session/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <vector>

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
  std::latch release{1}, held{1}, other{1};
  pool.Submit(1, [&] {
    held.count_down();
    release.wait();
  });
  held.wait();
  bool behind = false;
  pool.Submit(1, [&] { behind = true; });
  pool.Submit(2, [&] { other.count_down(); });
  other.wait();
  EXPECT_FALSE(behind);
  release.count_down();
}

TEST(WorkerPool, ManyKeysThatHangLeaveRoomForMore) {
  WorkerPool pool;
  std::latch release{1}, other{1};
  std::latch held(WorkerPool::kMaxThreads - 1);
  for (WorkerPool::Key key = 0; key < WorkerPool::kMaxThreads - 1; ++key) {
    pool.Submit(key, [&] {
      held.count_down();
      release.wait();
    });
  }
  held.wait();
  pool.Submit(1000, [&] { other.count_down(); });
  other.wait();
  release.count_down();
}

TEST(WorkerPool, JobsMaySubmitJobs) {
  std::latch done{1};
  WorkerPool pool;
  pool.Submit(1, [&] { pool.Submit(1, [&] { done.count_down(); }); });
  done.wait();
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
