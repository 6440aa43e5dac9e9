// SPDX-License-Identifier: Apache-2.0
// Notifications in both directions: those that must be sent are, and a side that sleeps is never
// left asleep while there is work.
#include <atomic>
#include <random>
#include <thread>

#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

class SuppressionTest : public QueueTest {
 protected:
  void BuildWithOneBufferEach(uint32_t size, bool event_idx) {
    Build(size, {.event_idx = event_idx, .indirect = false});
    for (uint32_t i = 0; i < size; ++i) driver->WriteDesc(i, {.address = kBuffers, .length = 1});
  }
  // One chain through the queue; whether the driver was to be told.
  bool ServeOne() {
    driver->MakeAvailable(driver->avail_idx() & (driver->layout().size - 1));
    std::optional<backend::DescriptorChain> chain = Pop();
    EXPECT_TRUE(chain.has_value());
    queue->Return(*std::move(chain), 0);
    return queue->Publish();
  }
};

// [device:Virtqueues / Used Buffer Notification Suppression] without EVENT_IDX: flags decide,
// used_event is ignored.
TEST_F(SuppressionTest, UsedNotificationsFollowTheFlag) {
  BuildWithOneBufferEach(8, false);
  driver->SetUsedEvent(1000);
  EXPECT_TRUE(ServeOne());
  driver->SetNoInterrupt(true);
  EXPECT_FALSE(ServeOne());
  driver->SetNoInterrupt(false);
  EXPECT_TRUE(ServeOne());
}

// [device:Virtqueues / Used Buffer Notification Suppression] with EVENT_IDX: a notification exactly
// when the entry used_event is passed; the flag is ignored.
TEST_F(SuppressionTest, UsedNotificationsFollowTheEventIndex) {
  BuildWithOneBufferEach(8, true);
  driver->SetNoInterrupt(true);
  driver->SetUsedEvent(2);
  EXPECT_FALSE(ServeOne());  // entry 0
  EXPECT_FALSE(ServeOne());  // entry 1
  EXPECT_TRUE(ServeOne());   // entry 2
  EXPECT_FALSE(ServeOne());
}

TEST_F(SuppressionTest, ABatchThatPassesTheEventIndexNotifiesOnce) {
  BuildWithOneBufferEach(8, true);
  driver->SetUsedEvent(2);
  for (uint16_t i = 0; i < 5; ++i) driver->Offer(i);
  driver->Expose();
  for (int i = 0; i < 5; ++i) queue->Return(*Pop(), 0);
  EXPECT_TRUE(queue->Publish());
  EXPECT_FALSE(queue->Publish());
}

TEST_F(SuppressionTest, UsedEventWrapsAround) {
  BuildWithOneBufferEach(4, true);
  driver->SetUsedEvent(65535);
  for (uint32_t i = 0; i < 65535; ++i) ASSERT_FALSE(ServeOne()) << i;
  EXPECT_TRUE(ServeOne());
  driver->SetUsedEvent(0);
  EXPECT_TRUE(ServeOne());
}

// [device:Virtqueues / Available Buffer Notification Suppression] without EVENT_IDX: flags are 0 or
// 1.
TEST_F(SuppressionTest, KicksWithoutEventIdx) {
  BuildWithOneBufferEach(8, false);
  EXPECT_TRUE(driver->MustKick(0, 1));
  queue->DisableKicks();
  EXPECT_EQ(driver->used_flags(), 1);
  EXPECT_FALSE(driver->MustKick(0, 1));
  EXPECT_FALSE(queue->EnableKicks());
  EXPECT_EQ(driver->used_flags(), 0);
  driver->MakeAvailable(0);
  EXPECT_TRUE(queue->EnableKicks()) << "a chain came meanwhile";
}

// [device:Virtqueues / Available Buffer Notification Suppression] with EVENT_IDX: flags stay 0.
TEST_F(SuppressionTest, KicksWithEventIdx) {
  BuildWithOneBufferEach(8, true);
  EXPECT_TRUE(ServeOne() || true);
  queue->DisableKicks();
  EXPECT_EQ(driver->used_flags(), 0);
  EXPECT_FALSE(driver->MustKick(1, 2)) << "the device looks itself";
  EXPECT_FALSE(queue->EnableKicks());
  EXPECT_EQ(driver->avail_event(), 1);
  EXPECT_TRUE(driver->MustKick(1, 2));
  driver->MakeAvailable(1);
  EXPECT_TRUE(queue->EnableKicks()) << "a chain came meanwhile";
}

// A model of both sides with one step at a time, in a random order: whoever sleeps with work
// waiting must have a notification on its way.
class WakeUpModel : public QueueTest,
                    public ::testing::WithParamInterface<std::tuple<bool, uint32_t, int>> {};

TEST_P(WakeUpModel, NobodySleepsWithWorkWaiting) {
  const auto [event_idx, size, seed] = GetParam();
  Build(size, {.event_idx = event_idx, .indirect = false});
  for (uint32_t i = 0; i < size; ++i) driver->WriteDesc(i, {.address = kBuffers, .length = 1});
  std::mt19937 random(seed);
  const auto chance = [&random](int percent) { return int(random() % 100) < percent; };

  std::vector<uint16_t> free_heads;
  for (uint32_t i = 0; i < size; ++i) free_heads.push_back(i);
  uint32_t outstanding = 0;
  bool device_awake = false;
  bool kick = false;  // on its way to the device
  bool driver_awake = true;
  bool interrupt = false;  // on its way to the driver
  uint32_t finished = 0;

  for (int step = 0; step < 200000; ++step) {
    if (chance(50)) {
      // The driver.
      if (!driver_awake && interrupt) driver_awake = true, interrupt = false;
      if (driver_awake) {
        if (chance(60) && !free_heads.empty()) {
          const uint16_t before = driver->avail_idx();
          const uint32_t count = 1 + random() % free_heads.size();
          for (uint32_t i = 0; i < count; ++i) {
            driver->Offer(free_heads.back());
            free_heads.pop_back();
            ++outstanding;
          }
          driver->Expose();
          if (driver->MustKick(before, driver->avail_idx())) kick = true;
        }
        if (chance(60)) {
          while (std::optional<UsedEntry> used = driver->TakeUsed()) {
            free_heads.push_back(used->id);
            --outstanding;
            ++finished;
          }
        }
        if (chance(30)) {
          // Goes to sleep: says when to wake it, looks again.
          const uint16_t seen = driver->used_seen();
          if (event_idx) {
            driver->SetUsedEvent(seen);
          } else {
            driver->SetNoInterrupt(false);
          }
          const bool work = memory->Load<uint16_t>(driver->layout().device + 2,
                                                   std::memory_order_seq_cst) != seen;
          if (!work && outstanding > 0) driver_awake = false;
          if (driver_awake && !event_idx) driver->SetNoInterrupt(true);
        }
      }
    } else {
      // The device.
      if (!device_awake && kick) {
        device_awake = true;
        kick = false;
        queue->DisableKicks();
      }
      if (device_awake) {
        if (chance(70)) {
          std::optional<backend::DescriptorChain> chain = Pop();
          if (chain.has_value()) held.push_back(*std::move(chain));
        }
        if (chance(30) && !queue->HasAvailable() && !queue->EnableKicks()) device_awake = false;
      }
      // Completions come whether it sleeps or not.
      if (chance(50) && !held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        queue->Return(std::move(held.back()), 0);
        held.pop_back();
        if (chance(70) && queue->Publish()) interrupt = true;
      } else if (chance(30) && queue->Publish()) {
        interrupt = true;
      }
    }
    if (!device_awake && !kick) {
      ASSERT_FALSE(queue->HasAvailable()) << "the device sleeps, step " << step;
    }
    if (!driver_awake && !interrupt) {
      ASSERT_EQ(memory->Load<uint16_t>(driver->layout().device + 2, std::memory_order_seq_cst),
                driver->used_seen())
          << "the driver sleeps, step " << step;
    }
  }
  EXPECT_GT(finished, 1000u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, WakeUpModel,
                         ::testing::Combine(::testing::Bool(), ::testing::Values(1, 4, 64),
                                            ::testing::Values(1, 2, 3)));

// The same with two threads that really sleep: a lost wake-up hangs it.
class TwoThreads : public QueueTest, public ::testing::WithParamInterface<bool> {};

TEST_P(TwoThreads, EveryChainGoesRound) {
  const bool event_idx = GetParam();
  constexpr uint32_t kSize = 16;
  constexpr uint32_t kChains = 100000;
  Build(kSize, {.event_idx = event_idx, .indirect = false});
  for (uint32_t i = 0; i < kSize; ++i) driver->WriteDesc(i, {.address = kBuffers, .length = 1});
  std::atomic<uint32_t> kicks{0};
  std::atomic<uint32_t> interrupts{0};

  std::thread device([&] {
    uint32_t served = 0;
    uint32_t seen_kicks = 0;
    while (served < kChains) {
      queue->DisableKicks();
      bool returned = false;
      for (;;) {
        auto chain = queue->Pop();
        ASSERT_TRUE(chain.ok());
        if (!chain->has_value()) break;
        queue->Return(*std::move(*chain), 0);
        returned = true;
        ++served;
      }
      if (returned && queue->Publish()) {
        interrupts.fetch_add(1);
        interrupts.notify_one();
      }
      if (served == kChains || queue->EnableKicks()) continue;
      kicks.wait(seen_kicks);
      seen_kicks = kicks.load();
    }
  });

  uint32_t offered = 0;
  uint32_t finished = 0;
  uint32_t seen_interrupts = 0;
  while (finished < kChains) {
    const uint16_t before = driver->avail_idx();
    while (offered < kChains && offered - finished < kSize) driver->Offer(offered++ % kSize);
    driver->Expose();
    if (driver->avail_idx() != before && driver->MustKick(before, driver->avail_idx())) {
      kicks.fetch_add(1);
      kicks.notify_one();
    }
    const uint32_t had = finished;
    while (driver->TakeUsed()) ++finished;
    if (finished != had || finished == kChains) continue;
    if (event_idx) driver->SetUsedEvent(driver->used_seen());
    if (memory->Load<uint16_t>(driver->layout().device + 2, std::memory_order_seq_cst) !=
        driver->used_seen())
      continue;
    interrupts.wait(seen_interrupts);
    seen_interrupts = interrupts.load();
  }
  device.join();
  EXPECT_EQ(finished, kChains);
}

INSTANTIATE_TEST_SUITE_P(EventIdx, TwoThreads, ::testing::Bool());

}  // namespace
}  // namespace vmsg::testing
