// SPDX-License-Identifier: Apache-2.0
// The ring between two honest sides: docs/binding.md, sections 2 and 3.
#include "virtio-msg/flex_ring.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/virtio-msg/ring_fixture.h"

namespace vmsg::wire {
namespace {

class FlexRing : public testing::TestWithParam<bool> {
 protected:
  bool suppression() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Suppression, FlexRing, testing::Bool(),
                         [](const auto& info) { return info.param ? "On" : "Off"; });

std::vector<std::byte> PopOne(RingConsumer& consumer) {
  std::vector<std::byte> record(kMaxMessageSize);
  const auto size = consumer.Pop(record);
  EXPECT_TRUE(size.ok()) << size.status();
  if (!size.ok() || !size->has_value()) return {};
  record.resize(**size);
  return record;
}

TEST_P(FlexRing, EmptyRingHasNothing) {
  RingMemory ring(64);
  RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize);
  std::vector<std::byte> record(kMaxMessageSize);
  const auto size = consumer.Pop(record);
  ASSERT_TRUE(size.ok());
  EXPECT_FALSE(size->has_value());
  EXPECT_FALSE(consumer.HasMore());
  EXPECT_FALSE(consumer.Release());
}

TEST_P(FlexRing, NothingIsSeenBeforePublish) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), suppression());
  RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize);
  EXPECT_FALSE(producer.Publish());
  ASSERT_TRUE(*producer.Push(Record(8, 1)));
  EXPECT_FALSE(consumer.HasMore());
  EXPECT_TRUE(producer.Publish());
  EXPECT_TRUE(consumer.HasMore());
  EXPECT_EQ(PopOne(consumer), Record(8, 1));
}

// [bus:Basic Concepts / Common Message Format / Bus]
// Padding is zero.
TEST_P(FlexRing, RecordsArePaddedWithZerosToEight) {
  for (size_t size = 8; size <= 17; ++size) {
    RingMemory ring(64);
    std::fill(ring.words.begin(), ring.words.end(), ~uint64_t{0});
    RingProducer producer(&ring.shared, ring.data(), suppression());
    ASSERT_TRUE(*producer.Push(Record(size, 3)));
    (void)producer.Publish();
    const size_t padded = (size + 7) / 8 * 8;
    EXPECT_EQ(ring.shared.prod, padded);
    for (size_t i = size; i < padded; ++i) EXPECT_EQ(ring.data()[i], std::byte{0}) << size;
    EXPECT_EQ(ring.data()[padded], std::byte{0xff});
  }
}

TEST_P(FlexRing, RecordsOfEachSizeWrapAtEachOffset) {
  constexpr size_t kRing = 512;
  for (size_t start = 0; start < kRing; start += 8) {
    for (const size_t size : {8, 9, 15, 16, 23, 63, 64, 255, 263, 264}) {
      RingMemory ring(kRing);
      RingProducer producer(&ring.shared, ring.data(), suppression());
      RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize);
      for (size_t at = 0; at < start; at += 8) {
        ASSERT_TRUE(*producer.Push(Record(8, 0)));
        (void)producer.Publish();
        ASSERT_EQ(PopOne(consumer).size(), 8u);
        (void)consumer.Release();
      }
      const auto record = Record(size, static_cast<uint32_t>(start));
      ASSERT_TRUE(*producer.Push(record));
      (void)producer.Publish();
      ASSERT_EQ(PopOne(consumer), record) << "size " << size << " at " << start;
    }
  }
}

TEST_P(FlexRing, AFullRingTakesNoMoreAndLosesNothing) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), suppression());
  RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize);
  for (uint32_t i = 0; i < 4; ++i) ASSERT_TRUE(*producer.Push(Record(16, i)));
  EXPECT_EQ(*producer.Free(), 0u);
  EXPECT_FALSE(*producer.Push(Record(8, 9)));
  (void)producer.Publish();

  // Popped is not yet given back.
  EXPECT_EQ(PopOne(consumer), Record(16, 0));
  EXPECT_FALSE(*producer.Push(Record(8, 9)));
  (void)consumer.Release();
  EXPECT_EQ(*producer.Free(), 16u);
  EXPECT_FALSE(*producer.Push(Record(17, 9)));
  EXPECT_TRUE(*producer.Push(Record(16, 4)));
  (void)producer.Publish();
  for (uint32_t i = 1; i < 5; ++i) EXPECT_EQ(PopOne(consumer), Record(16, i));
}

TEST_P(FlexRing, CursorsPassFourGigabytes) {
  constexpr uint32_t kStart = 0xffffff80;  // 128 bytes before they return to 0
  RingMemory ring(64);
  ring.shared = {.cons = kStart, .prod = kStart, .event = kStart};
  RingProducer producer(&ring.shared, ring.data(), suppression(), kStart);
  RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize, kStart);
  for (uint32_t i = 0; i < 20; ++i) {
    EXPECT_FALSE(*consumer.Arm());
    ASSERT_TRUE(*producer.Push(Record(17, i)));
    ASSERT_TRUE(*producer.Push(Record(24, i)));
    EXPECT_EQ(*producer.Free(), 16u);
    EXPECT_TRUE(producer.Publish()) << i;
    EXPECT_EQ(PopOne(consumer), Record(17, i));
    EXPECT_EQ(PopOne(consumer), Record(24, i));
    EXPECT_FALSE(consumer.HasMore());
    (void)consumer.Release();
    EXPECT_EQ(ring.shared.cons, kStart + 48 * (i + 1));
  }
}

TEST_P(FlexRing, PushRefusesWhatCanNeverFit) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), suppression());
  EXPECT_EQ(producer.Push({}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(producer.Push(Record(65, 0)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(*producer.Push(Record(64, 0))) << "a refusal does not break the ring";
}

TEST_P(FlexRing, PopRefusesATooSmallBufferAndKeepsTheRecord) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), suppression());
  RingConsumer consumer(&ring.shared, ring.data(), suppression(), kMaxMessageSize);
  ASSERT_TRUE(*producer.Push(Record(24, 5)));
  (void)producer.Publish();
  std::vector<std::byte> small(23);
  EXPECT_EQ(consumer.Pop(small).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PopOne(consumer), Record(24, 5));
}

TEST_P(FlexRing, RefusesMemoryThatIsNoRing) {
  RingMemory ring(64);
  std::vector<std::byte> record(kMaxMessageSize);
  for (const size_t size : {0, 4, 24, 63}) {
    RingProducer producer(&ring.shared, ring.data().first(size), suppression());
    EXPECT_FALSE(producer.Free().ok()) << size;
    EXPECT_FALSE(producer.Push(Record(8, 0)).ok()) << size;
    RingConsumer consumer(&ring.shared, ring.data().first(size), suppression(), kMaxMessageSize);
    EXPECT_FALSE(consumer.Pop(record).ok()) << size;
    EXPECT_FALSE(consumer.Arm().ok()) << size;
  }
  RingConsumer unaligned(&ring.shared, ring.data().subspan(4, 32), suppression(), 64);
  EXPECT_FALSE(unaligned.Pop(record).ok());
}

TEST(FlexRingEvents, WithoutSuppressionEachMoveOfACursorIsAnnounced) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), false);
  RingConsumer consumer(&ring.shared, ring.data(), false, kMaxMessageSize);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(*producer.Push(Record(8, 0)));
    EXPECT_TRUE(producer.Publish());
    PopOne(consumer);
    EXPECT_TRUE(consumer.Release());
    EXPECT_FALSE(*consumer.Arm());
    producer.WantSpace(true);
  }
  // The words belong to the feature; without it they stay zero.
  EXPECT_EQ(ring.shared.event, 0u);
  EXPECT_EQ(ring.shared.want_space, 0u);
}

TEST(FlexRingEvents, TheFirstRecordIsAnnouncedAndThenOnlyWhatWasAskedFor) {
  RingMemory ring(256);
  RingProducer producer(&ring.shared, ring.data(), true);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  int events = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(*producer.Push(Record(8, 0)));
    events += producer.Publish();
  }
  EXPECT_EQ(events, 1);
  for (int i = 0; i < 5; ++i) PopOne(consumer);
  ASSERT_TRUE(*producer.Push(Record(8, 0)));
  EXPECT_FALSE(producer.Publish()) << "the consumer is awake";
  PopOne(consumer);
  EXPECT_FALSE(*consumer.Arm());
  ASSERT_TRUE(*producer.Push(Record(8, 0)));
  EXPECT_TRUE(producer.Publish()) << "the consumer sleeps";
}

TEST(FlexRingEvents, AnEventIsSentIffProdPassesTheEventWord) {
  struct Row {
    uint32_t event;
    bool sent;
  };
  // prod moves from 16 to 40. A consumer may ask for an event further on than at its cursor.
  for (const Row& row : {Row{8, false}, Row{15, false}, Row{16, true}, Row{24, true}, Row{39, true},
                         Row{40, false}, Row{48, false}, Row{0xfffffff8, false}}) {
    RingMemory ring(64);
    RingProducer producer(&ring.shared, ring.data(), true);
    ASSERT_TRUE(*producer.Push(Record(16, 0)));
    (void)producer.Publish();
    RingMemory::Set(ring.shared.event, row.event);
    ASSERT_TRUE(*producer.Push(Record(24, 0)));
    EXPECT_EQ(producer.Publish(), row.sent) << row.event;
  }
}

TEST(FlexRingEvents, ABatchIsAnnouncedOnce) {
  RingMemory ring(256);
  RingProducer producer(&ring.shared, ring.data(), true);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  EXPECT_FALSE(*consumer.Arm());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(*producer.Push(Record(16, 0)));
  EXPECT_TRUE(producer.Publish());
  EXPECT_FALSE(producer.Publish());
}

TEST(FlexRingEvents, ArmTellsOfARecordThatCameBeforeIt) {
  RingMemory ring(256);
  RingProducer producer(&ring.shared, ring.data(), true);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  ASSERT_TRUE(*producer.Push(Record(8, 0)));
  (void)producer.Publish();
  EXPECT_TRUE(*consumer.Arm());
  PopOne(consumer);
  EXPECT_FALSE(*consumer.Arm());
}

TEST(FlexRingEvents, SpaceIsAnnouncedOnlyWhenItIsWanted) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), true);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  for (uint32_t i = 0; i < 8; ++i) ASSERT_TRUE(*producer.Push(Record(8, i)));
  (void)producer.Publish();
  PopOne(consumer);
  EXPECT_FALSE(consumer.Release());
  producer.WantSpace(true);
  EXPECT_EQ(ring.shared.want_space, 1u);
  EXPECT_FALSE(consumer.Release()) << "nothing moved";
  PopOne(consumer);
  EXPECT_TRUE(consumer.Release());
  producer.WantSpace(false);
  EXPECT_EQ(ring.shared.want_space, 0u);
  PopOne(consumer);
  EXPECT_FALSE(consumer.Release());
}

}  // namespace
}  // namespace vmsg::wire
