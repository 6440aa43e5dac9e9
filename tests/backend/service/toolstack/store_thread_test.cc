// SPDX-License-Identifier: Apache-2.0
// The end of a thread that follows the store: waited for, unless its disk does not answer.
#include "backend/service/toolstack/store_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "backend/runtime/rate_limited_log.h"
#include "tests/xenstore/memory_store.h"

namespace vmsg::testing {
namespace {

using backend::StoreThread;
using ::testing::HasSubstr;

// Set when what it is part of is destroyed: the thread's last act.
struct EndMark {
  explicit EndMark(absl::Notification* ended) : ended(ended) {}
  ~EndMark() { ended->Notify(); }
  absl::Notification* const ended;
};

class StoreThreadTest : public ::testing::Test {
 protected:
  // A thread that is in its turn until `answer`.
  std::unique_ptr<StoreThread> Start(absl::Duration patience) {
    backend::SetLogging(backend::LogLevel::kWarning, backend::LogStyle::kPlain);
    auto thread = StoreThread::Start(
        "the config thread", Tree().Connect(0),
        [this](xenstore::Store&) -> absl::StatusOr<StoreThread::Process> {
          return [this, mark = std::make_unique<EndMark>(&ended_)]() -> absl::StatusOr<bool> {
            begun_.Notify();
            answer_.WaitForNotification();
            return absl::CancelledError("enough");
          };
        },
        patience);
    EXPECT_TRUE(thread.ok()) << thread.status();
    begun_.WaitForNotification();
    return *std::move(thread);
  }

  // The thread lets go of its store last, when nobody waits for it any more.
  static xenstore::MemoryTree& Tree() {
    static auto* const tree = new xenstore::MemoryTree;
    return *tree;
  }

  absl::Notification begun_, answer_, ended_;
};

TEST_F(StoreThreadTest, OneThatHangsIsLeftBehindWithALineInTheLog) {
  auto thread = Start(absl::Milliseconds(1));
  ::testing::internal::CaptureStderr();
  thread.reset();
  EXPECT_FALSE(ended_.HasBeenNotified()) << "it was not waited for";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("the config thread hangs; it is left behind"));
  answer_.Notify();
  ended_.WaitForNotification();
}

TEST_F(StoreThreadTest, OneThatEndsIsWaitedFor) {
  auto thread = Start(absl::Minutes(1));
  std::thread later([this] { answer_.Notify(); });
  thread.reset();
  EXPECT_TRUE(ended_.HasBeenNotified());
  later.join();
}

}  // namespace
}  // namespace vmsg::testing
