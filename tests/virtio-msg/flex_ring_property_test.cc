// SPDX-License-Identifier: Apache-2.0
// Random records through rings of random size: nothing is lost, changed or reordered, and no
// wake-up is ever lost. Seeded, so a failure comes back.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <random>
#include <semaphore>
#include <thread>
#include <vector>

#include "tests/virtio-msg/ring_fixture.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::wire {
namespace {

// Two sides as state machines that sleep and wake by events only, their steps interleaved at
// random down to the single call. A side that sleeps while there is something for it to do, with no
// event under way, would sleep for ever.
class Model {
 public:
  Model(uint32_t seed, bool suppression)
      : random_(seed),
        ring_(size_t{64} << random_() % 5),
        producer_(&ring_.shared, ring_.data(), suppression),
        consumer_(&ring_.shared, ring_.data(), suppression, kMaxMessageSize),
        limit_(std::min(ring_.data().size(), kMaxMessageSize)) {}

  void Run(uint32_t records) {
    records_ = records;
    for (uint64_t steps = 0; received_ < records_; ++steps) {
      ASSERT_LT(steps, uint64_t{records_} * 200) << "no progress";
      const bool producer_can = !producer_asleep_ || producer_event_;
      const bool consumer_can = !consumer_asleep_ || consumer_event_;
      ASSERT_TRUE(producer_can || consumer_can) << "a wake-up was lost after " << received_;
      if (producer_can && (!consumer_can || random_() % 2 == 0)) {
        ProducerStep();
      } else {
        ConsumerStep();
      }
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  uint64_t events() const { return events_; }

 private:
  void ProducerStep() {
    if (producer_asleep_) {
      producer_asleep_ = producer_event_ = false;
      return;
    }
    switch (producer_state_) {
      case 0: {  // push some
        if (sent_ == records_) {
          producer_state_ = 1;
          return;
        }
        if (next_.empty()) next_ = Record(8 + random_() % (limit_ - 7), sent_);
        const auto pushed = producer_.Push(next_);
        ASSERT_TRUE(pushed.ok()) << pushed.status();
        if (*pushed) {
          expected_.push_back(std::move(next_));
          next_.clear();
          ++sent_;
          if (random_() % 4 == 0) producer_state_ = 1;
        } else {
          full_ = true;
          producer_state_ = 1;
        }
        return;
      }
      case 1:  // show it
        if (producer_.Publish()) SendToConsumer();
        producer_state_ = full_ ? 2 : sent_ == records_ ? 4 : 0;
        return;
      case 2:  // the ring is full: ask for space
        producer_.WantSpace(true);
        producer_state_ = 3;
        return;
      case 3: {  // and look once more before sleeping
        const auto free = producer_.Free();
        ASSERT_TRUE(free.ok()) << free.status();
        if (*free >= PaddedRecordSize(next_.size())) {
          if (random_() % 2 == 0) producer_.WantSpace(false);
          full_ = false;
          producer_state_ = 0;
        } else {
          producer_asleep_ = true;
        }
        return;
      }
      default:
        producer_asleep_ = true;
        return;
    }
  }

  void ConsumerStep() {
    if (consumer_asleep_) {
      consumer_asleep_ = consumer_event_ = false;
      consumer_state_ = 0;
      return;
    }
    switch (consumer_state_) {
      case 0: {
        std::vector<std::byte> record(kMaxMessageSize);
        const auto size = consumer_.Pop(record);
        ASSERT_TRUE(size.ok()) << size.status();
        if (size->has_value()) {
          record.resize(**size);
          ASSERT_FALSE(expected_.empty());
          ASSERT_EQ(record, expected_.front());
          expected_.pop_front();
          ++received_;
          if (random_() % 3 == 0) consumer_state_ = 1;
        } else {
          consumer_state_ = 2;
        }
        return;
      }
      case 1:
        if (consumer_.Release()) SendToProducer();
        consumer_state_ = 0;
        return;
      case 2:  // give everything back before sleeping
        if (consumer_.Release()) SendToProducer();
        consumer_state_ = 3;
        return;
      default: {
        const auto more = consumer_.Arm();
        ASSERT_TRUE(more.ok()) << more.status();
        consumer_asleep_ = !*more;
        consumer_state_ = 0;
        return;
      }
    }
  }

  void SendToConsumer() {
    consumer_event_ = true;
    ++events_;
  }
  void SendToProducer() {
    producer_event_ = true;
    ++events_;
  }

  std::mt19937 random_;
  RingMemory ring_;
  RingProducer producer_;
  RingConsumer consumer_;
  size_t limit_;
  uint32_t records_ = 0, sent_ = 0, received_ = 0;
  uint64_t events_ = 0;
  std::deque<std::vector<std::byte>> expected_;
  std::vector<std::byte> next_;
  int producer_state_ = 0, consumer_state_ = 0;
  bool full_ = false;
  bool producer_asleep_ = false, consumer_asleep_ = false;
  bool producer_event_ = false, consumer_event_ = false;
};

TEST(FlexRingProperty, NoRecordAndNoWakeUpIsLostInAnyInterleaving) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    for (const bool suppression : {false, true}) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << " suppression " << suppression);
      Model model(seed, suppression);
      model.Run(400);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(FlexRingProperty, SuppressionSavesEvents) {
  uint64_t with = 0, without = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    Model quiet(seed, true), loud(seed, false);
    quiet.Run(400);
    loud.Run(400);
    with += quiet.events();
    without += loud.events();
  }
  EXPECT_LT(with, without);
}

// The same with two real threads and their memory ordering: each side sleeps on a semaphore that
// only the other's events release, so that a lost wake-up hangs the test (its time limit fails it).
void RunThreads(bool suppression) {
  constexpr uint32_t kRecords = 20000;
  RingMemory ring(256);
  std::counting_semaphore<> producer_event(0), consumer_event(0);
  std::thread driver([&] {
    std::mt19937 random(7);
    RingProducer producer(&ring.shared, ring.data(), suppression);
    for (uint32_t i = 0; i < kRecords; ++i) {
      const auto record = Record(8 + random() % 120, i);
      while (!*producer.Push(record)) {
        if (producer.Publish()) consumer_event.release();
        producer.WantSpace(true);
        if (*producer.Free() < PaddedRecordSize(record.size())) producer_event.acquire();
      }
      producer.WantSpace(false);
      if (random() % 3 == 0 && producer.Publish()) consumer_event.release();
    }
    if (producer.Publish()) consumer_event.release();
  });
  std::mt19937 random(7);
  std::vector<std::byte> record(kMaxMessageSize);
  RingConsumer consumer(&ring.shared, ring.data(), suppression, kMaxMessageSize);
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < kRecords;) {
    const auto size = consumer.Pop(record);
    if (size.ok() && size->has_value()) {
      const auto expected = Record(8 + random() % 120, i++);
      random();
      wrong += !std::equal(expected.begin(), expected.end(), record.begin(),
                           record.begin() + static_cast<ptrdiff_t>(**size));
      continue;
    }
    if (!size.ok()) ++wrong;
    if (consumer.Release()) producer_event.release();
    if (!*consumer.Arm()) consumer_event.acquire();
  }
  driver.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(FlexRingThreads, EachRecordArrivesWithSuppression) { RunThreads(true); }
TEST(FlexRingThreads, EachRecordArrivesWithoutSuppression) { RunThreads(false); }

}  // namespace
}  // namespace vmsg::wire
