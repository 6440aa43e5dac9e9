// SPDX-License-Identifier: Apache-2.0
// The real loop. Everything that is waited for is handed over explicitly; where time matters, only
// order is asserted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {
namespace {

using ::testing::ElementsAre;

void Raise(int fd) {
  const uint64_t one = 1;
  ASSERT_EQ(write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
}
void Drain(int fd) {
  uint64_t value;
  ASSERT_EQ(read(fd, &value, sizeof value), static_cast<ssize_t>(sizeof value));
}

class EpollLoopTest : public ::testing::Test {
 protected:
  std::unique_ptr<ThreadLoop> loop_ = NewEpollLoop({absl::Microseconds(50)});
  UniqueFd fd_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  UniqueFd other_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

TEST_F(EpollLoopTest, RunsPostedTasksInOrderFromOtherThreads) {
  std::vector<int> order;
  std::thread poster([&] {
    for (int i = 0; i < 100; ++i) loop_->Post([&order, i] { order.push_back(i); });
    loop_->Post([&] { loop_->Stop(); });
  });
  loop_->Run();
  poster.join();
  EXPECT_EQ(order.size(), 100u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(EpollLoopTest, StopFromAnotherThreadEndsASleepingLoop) {
  std::latch running{1};
  loop_->Post([&] { running.count_down(); });
  std::thread stopper([&] {
    running.wait();
    loop_->Stop();
  });
  loop_->Run();
  stopper.join();
}

TEST_F(EpollLoopTest, CallbackMayUnwatchItselfAndOthers) {
  int calls = 0;
  const auto callback = [&](uint32_t) {
    ++calls;
    loop_->Unwatch(fd_.get());
    loop_->Unwatch(other_.get());
    loop_->Post([&] { loop_->Stop(); });
  };
  ASSERT_TRUE(loop_->Watch(fd_.get(), EPOLLIN, callback).ok());
  ASSERT_TRUE(loop_->Watch(other_.get(), EPOLLIN, callback).ok());
  Raise(fd_.get());
  Raise(other_.get());
  loop_->Run();
  EXPECT_EQ(calls, 1) << "both were ready in one batch";
}

TEST_F(EpollLoopTest, SecondWatchOfADescriptorIsRefused) {
  ASSERT_TRUE(loop_->Watch(fd_.get(), EPOLLIN, [](uint32_t) {}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(loop_->Watch(fd_.get(), EPOLLIN, [](uint32_t) {})));
  loop_->Unwatch(fd_.get());
  EXPECT_TRUE(loop_->Watch(fd_.get(), EPOLLIN, [](uint32_t) {}).ok());
  EXPECT_FALSE(loop_->Watch(-1, EPOLLIN, [](uint32_t) {}).ok());
}

TEST_F(EpollLoopTest, TimersRunInOrderOfTheirTimes) {
  std::vector<int> order;
  const auto set = [&](int milliseconds) {
    return loop_->RunAfter(absl::Milliseconds(milliseconds), [&, milliseconds] {
      order.push_back(milliseconds);
      if (milliseconds == 3) loop_->Stop();
    });
  };
  // A delay counts from its call: a machine that stops between two calls would change the order.
  std::vector<EventLoop::TimerId> timers;
  absl::Time first;
  do {
    for (EventLoop::TimerId timer : timers) loop_->Cancel(timer);
    first = loop_->Now();
    timers = {set(3), set(1), set(2), set(0)};
  } while (loop_->Now() - first >= absl::Milliseconds(1));
  loop_->Cancel(timers[2]);
  loop_->Cancel(timers[2]);
  loop_->Run();
  EXPECT_THAT(order, ElementsAre(0, 1, 3));
}

TEST_F(EpollLoopTest, TimerThatSetsItselfAgainDoesNotKeepOthersOut) {
  int rounds = 0;
  absl::AnyInvocable<void()> again;
  std::function<void()> round = [&] {
    if (++rounds < 1000) loop_->RunAfter(absl::ZeroDuration(), [&] { round(); });
  };
  loop_->RunAfter(absl::ZeroDuration(), [&] { round(); });
  bool seen = false;
  ASSERT_TRUE(loop_
                  ->Watch(fd_.get(), EPOLLIN,
                          [&](uint32_t) {
                            seen = true;
                            loop_->Stop();
                          })
                  .ok());
  Raise(fd_.get());
  loop_->Run();
  EXPECT_TRUE(seen);
  EXPECT_LT(rounds, 1000);
}

// Counts what the loop does with it; finds work `hits` times.
class CountingPoller : public Poller {
 public:
  explicit CountingPoller(std::function<void()> on_sleep) : on_sleep_(std::move(on_sleep)) {}
  bool Poll() override {
    ++polls;
    if (hits == 0) return false;
    --hits;
    return true;
  }
  bool AwaitsStorage() const override { return awaits_storage; }
  bool PrepareToSleep() override {
    ++prepared;
    if (arrives > 0) {
      --arrives;
      return true;
    }
    on_sleep_();
    return false;
  }
  int hits = 0;
  bool awaits_storage = false;
  int arrives = 0;  // times that work turns up while going to sleep
  int polls = 0;
  int prepared = 0;

 private:
  std::function<void()> on_sleep_;
};

TEST_F(EpollLoopTest, IdleLoopTouchesNoPoller) {
  CountingPoller poller([] {});
  loop_->AddPoller(&poller);
  loop_->RunAfter(absl::Milliseconds(5), [&] { loop_->Stop(); });
  loop_->Run();
  EXPECT_EQ(poller.polls, 0);
  EXPECT_EQ(poller.prepared, 0);
  loop_->RemovePoller(&poller);
}

TEST_F(EpollLoopTest, ActivePollerIsPolledUntilItFindsNothingThenArmedOnce) {
  CountingPoller poller([&] { loop_->Stop(); });
  poller.hits = 10;
  loop_->AddPoller(&poller);
  loop_->Activate(&poller);
  loop_->Run();
  EXPECT_EQ(poller.hits, 0);
  EXPECT_GT(poller.polls, 10);
  EXPECT_EQ(poller.prepared, 1);
  loop_->RemovePoller(&poller);
}

TEST_F(EpollLoopTest, WorkThatArrivesWhileGoingToSleepKeepsItAwake) {
  CountingPoller poller([&] { loop_->Stop(); });
  poller.arrives = 2;
  loop_->AddPoller(&poller);
  loop_->Activate(&poller);
  loop_->Run();
  EXPECT_EQ(poller.prepared, 3);
  loop_->RemovePoller(&poller);
}

TEST_F(EpollLoopTest, PollerThatSleepsIsNotPolledUntilItIsActivatedAgain) {
  int sleeps = 0;
  std::function<void()> on_sleep;
  CountingPoller poller([&] { on_sleep(); });
  on_sleep = [&] {
    if (++sleeps == 2) return loop_->Stop();
    // The timer needs turns of the loop; the poller takes part in none of them.
    loop_->RunAfter(absl::Milliseconds(1), [&, polls = poller.polls] {
      EXPECT_EQ(poller.polls, polls);
      loop_->Activate(&poller);
    });
  };
  loop_->AddPoller(&poller);
  loop_->Activate(&poller);
  loop_->Run();
  EXPECT_EQ(sleeps, 2);
  loop_->RemovePoller(&poller);
}

TEST_F(EpollLoopTest, BusyPollerDoesNotStarveDescriptors) {
  CountingPoller poller([] {});
  poller.hits = 1'000'000'000;
  loop_->AddPoller(&poller);
  loop_->Activate(&poller);
  ASSERT_TRUE(loop_
                  ->Watch(fd_.get(), EPOLLIN,
                          [&](uint32_t) {
                            Drain(fd_.get());
                            loop_->Stop();
                          })
                  .ok());
  Raise(fd_.get());
  loop_->Run();
  EXPECT_GT(poller.hits, 0);
  loop_->RemovePoller(&poller);
}

TEST_F(EpollLoopTest, IdlePollerLeavesWhileAnotherIsBusy) {
  CountingPoller busy([] {});
  busy.hits = 1'000'000'000;
  CountingPoller idle([&] { loop_->Stop(); });
  loop_->AddPoller(&busy);
  loop_->AddPoller(&idle);
  loop_->Activate(&busy);
  loop_->Activate(&idle);
  loop_->Run();
  EXPECT_EQ(idle.prepared, 1);
  EXPECT_EQ(busy.prepared, 0);
  loop_->RemovePoller(&busy);
  loop_->RemovePoller(&idle);
}

// Removes itself, or another, in its turn.
class RemovingPoller : public Poller {
 public:
  RemovingPoller(EventLoop* loop, Poller* victim) : loop_(loop), victim_(victim) {}
  bool Poll() override {
    loop_->RemovePoller(victim_ != nullptr ? victim_ : this);
    return true;
  }
  bool PrepareToSleep() override { return false; }

 private:
  EventLoop* const loop_;
  Poller* const victim_;
};

TEST_F(EpollLoopTest, PollersMayRemoveThemselvesAndOthersInTheirTurn) {
  CountingPoller victim([] {});
  victim.hits = 1'000'000'000;
  RemovingPoller remover(loop_.get(), &victim);
  RemovingPoller suicidal(loop_.get(), nullptr);
  loop_->AddPoller(&remover);
  loop_->AddPoller(&victim);
  loop_->AddPoller(&suicidal);
  loop_->Activate(&remover);
  loop_->Activate(&suicidal);
  loop_->Activate(&victim);
  loop_->RunAfter(absl::Milliseconds(2), [&] {
    loop_->RemovePoller(&remover);
    loop_->Stop();
  });
  loop_->Run();
  EXPECT_EQ(victim.polls, 0);
}

TEST_F(EpollLoopTest, LoopThatMayNotSpinArmsAtOnce) {
  loop_ = NewEpollLoop({absl::ZeroDuration()});
  CountingPoller poller([&] { loop_->Stop(); });
  loop_->AddPoller(&poller);
  loop_->Activate(&poller);
  loop_->Run();
  EXPECT_EQ(poller.polls, 1);
  loop_->RemovePoller(&poller);
}

// Whatever it may spin for otherwise: an hour, which only the test's own limit ends.
TEST(SpinningEpollLoop, SleepsWhileStorageWorks) {
  std::unique_ptr<ThreadLoop> loop = NewEpollLoop({absl::Hours(1), 100});
  CountingPoller poller([&] { loop->Stop(); });
  poller.awaits_storage = true;
  loop->AddPoller(&poller);
  loop->Activate(&poller);
  loop->Run();
  EXPECT_EQ(poller.prepared, 1);
  loop->RemovePoller(&poller);
}

// Asks, and looks for the answer until it is there.
class AskingPoller : public Poller {
 public:
  AskingPoller(ThreadLoop* loop, int asked, int rounds)
      : loop_(loop), asked_(asked), rounds_(rounds) {}
  bool Poll() override {
    ++polls;
    if (!answered.exchange(false)) return false;
    if (--rounds_ == 0) {
      loop_->Stop();
    } else {
      Raise(asked_);
    }
    return true;
  }
  bool PrepareToSleep() override { return true; }
  std::atomic<bool> answered = false;
  int64_t polls = 0;

 private:
  ThreadLoop* const loop_;
  const int asked_;
  int rounds_;
};

// A disk's or a guest's work may need the processor that looks for its end: without the yield each
// answer waits for the end of the scheduler's slice, and there are thousands of looks.
TEST(SpinningEpollLoop, LeavesTheProcessorToWhoeverItWaitsFor) {
  constexpr int kRounds = 200;
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  std::unique_ptr<ThreadLoop> loop = NewEpollLoop({absl::Hours(1), 100});
  UniqueFd asked(eventfd(0, EFD_CLOEXEC));
  AskingPoller poller(loop.get(), asked.get(), kRounds);
  std::thread answers([&] {
    for (int i = 0; i < kRounds; ++i) {
      Drain(asked.get());
      poller.answered = true;
    }
  });
  loop->AddPoller(&poller);
  loop->Activate(&poller);
  Raise(asked.get());
  loop->Run();
  answers.join();
  sched_setaffinity(0, sizeof before, &before);
  EXPECT_LT(poller.polls, kRounds * 50);
}

TEST_F(EpollLoopTest, ShowsOthersWhetherItSleepsOrHangs) {
  std::latch inside{1}, release{1};
  std::thread runner([&] { loop_->Run(); });
  loop_->Post([&] {
    inside.count_down();
    release.wait();
  });
  inside.wait();
  const LoopProgress hanging = loop_->progress();
  EXPECT_FALSE(hanging.sleeping);
  EXPECT_EQ(loop_->progress().turns, hanging.turns);
  release.count_down();
  while (!loop_->progress().sleeping) std::this_thread::yield();
  std::latch again{1};
  loop_->Post([&] { again.count_down(); });
  again.wait();
  EXPECT_GT(loop_->progress().turns, hanging.turns);
  loop_->Stop();
  runner.join();
}

}  // namespace
}  // namespace vmsg::backend
