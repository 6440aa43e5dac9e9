// SPDX-License-Identifier: Apache-2.0
// Every lie of a peer breaks the ring for good, and is told; nothing outside the ring is touched
// (the sanitizers watch) and no value is taken twice from shared memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/virtio-msg/ring_fixture.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::wire {
namespace {

using testing::HasSubstr;

constexpr size_t kRing = 512;

// What Pop says when the peer wrote `prod` and, at 0, a record with that msg_size.
std::string PopError(uint32_t prod, uint16_t msg_size, size_t limit = kMaxMessageSize) {
  RingMemory ring(kRing);
  RingConsumer consumer(&ring.shared, ring.data(), true, limit);
  ring.Put(0, msg_size);
  RingMemory::Set(ring.shared.prod, prod);
  std::vector<std::byte> record(limit);
  const auto size = consumer.Pop(record);
  if (size.ok()) return "";
  EXPECT_EQ(size.status().code(), absl::StatusCode::kDataLoss);
  // For good: repairing the words does not help.
  RingMemory::Set(ring.shared.prod, 8);
  ring.Put(0, 8);
  EXPECT_EQ(consumer.Pop(record).status(), size.status());
  EXPECT_EQ(consumer.Arm().status(), size.status());
  EXPECT_TRUE(consumer.HasMore()) << "a poller must come and find the error";
  EXPECT_FALSE(consumer.Release());
  return std::string(size.status().message());
}

TEST(HostileProducer, RecordSizesZeroToSeven) {
  for (uint16_t size = 0; size < 8; ++size) {
    EXPECT_THAT(PopError(64, size), HasSubstr("msg_size is " + std::to_string(size))) << size;
  }
  EXPECT_EQ(PopError(64, 8), "");
}

// [bus:Basic Concepts / Revisions / Advertising Transport Parameters]
TEST(HostileProducer, RecordOverTheMessageSize) {
  EXPECT_EQ(PopError(512, 264), "");
  EXPECT_THAT(PopError(512, 265), HasSubstr("msg_size is 265"));
  EXPECT_THAT(PopError(512, 0xffff), HasSubstr("msg_size is 65535"));
  EXPECT_THAT(PopError(512, 53, 52), HasSubstr("msg_size is 53"));
}

TEST(HostileProducer, RecordLongerThanWhatWasProduced) {
  EXPECT_THAT(PopError(8, 9), HasSubstr("8 bytes were produced"));
  EXPECT_THAT(PopError(56, 57), HasSubstr("56 bytes were produced"));
  EXPECT_EQ(PopError(64, 57), "") << "padding counts";
}

TEST(HostileProducer, ProdNotAMultipleOfEight) {
  for (uint32_t prod = 1; prod < 8; ++prod) {
    EXPECT_THAT(PopError(prod, 8), HasSubstr("prod is " + std::to_string(prod)));
    EXPECT_THAT(PopError(64 + prod, 8), HasSubstr("expected a multiple of 8"));
  }
}

TEST(HostileProducer, ProdFurtherThanTheRing) {
  EXPECT_EQ(PopError(kRing, 8), "");
  EXPECT_THAT(PopError(kRing + 8, 8), HasSubstr("prod is 520"));
  EXPECT_THAT(PopError(0x80000000, 8), HasSubstr("prod is 2147483648"));
  EXPECT_THAT(PopError(0xfffffff8, 8), HasSubstr("prod is 4294967288"));
}

TEST(HostileProducer, ProdOverBytesThatWereNotGivenBack) {
  RingMemory ring(kRing);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  ring.Put(0, 64);
  RingMemory::Set(ring.shared.prod, 64);
  std::vector<std::byte> record(kMaxMessageSize);
  ASSERT_TRUE(consumer.Pop(record).ok());
  RingMemory::Set(ring.shared.prod, kRing + 64);
  EXPECT_EQ(consumer.Pop(record).status().code(), absl::StatusCode::kDataLoss);
}

TEST(HostileProducer, ProdGoesBack) {
  for (const uint32_t back : {0u, 8u, 0xffffff00u}) {
    RingMemory ring(kRing);
    RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
    ring.Put(0, 8);
    ring.Put(8, 8);
    RingMemory::Set(ring.shared.prod, 16);
    std::vector<std::byte> record(kMaxMessageSize);
    ASSERT_TRUE(consumer.Pop(record).ok());
    (void)consumer.Release();
    // One more record was seen and is taken still; the lie is found at the next look.
    RingMemory::Set(ring.shared.prod, back);
    ASSERT_TRUE(consumer.Pop(record).ok());
    EXPECT_TRUE(consumer.HasMore());
    EXPECT_EQ(consumer.Arm().status().code(), absl::StatusCode::kDataLoss) << back;
    EXPECT_EQ(consumer.Pop(record).status().code(), absl::StatusCode::kDataLoss) << back;
  }
}

TEST(HostileProducer, ScribblingOnOurCursorChangesNothing) {
  RingMemory ring(kRing);
  RingProducer producer(&ring.shared, ring.data(), true);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  std::vector<std::byte> record(kMaxMessageSize);
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(*producer.Push(Record(8, i)));
    (void)producer.Publish();
    RingMemory::Set(ring.shared.cons, 0xdeadbeef);
    RingMemory::Set(ring.shared.event, 0xdeadbeef);
    ASSERT_EQ(**consumer.Pop(record), 8u);
    (void)consumer.Release();
    EXPECT_EQ(RingMemory::Get(ring.shared.cons), 8 * (i + 1));
  }
}

// What Free says when the peer wrote `cons` after 64 bytes were published and 8 more pushed.
std::string FreeError(uint32_t cons) {
  RingMemory ring(kRing);
  RingProducer producer(&ring.shared, ring.data(), true);
  EXPECT_TRUE(*producer.Push(Record(64, 0)));
  (void)producer.Publish();
  EXPECT_TRUE(*producer.Push(Record(8, 0)));
  RingMemory::Set(ring.shared.cons, cons);
  const auto free = producer.Free();
  if (free.ok()) return "";
  EXPECT_EQ(free.status().code(), absl::StatusCode::kDataLoss);
  RingMemory::Set(ring.shared.cons, 0);
  EXPECT_EQ(producer.Free().status(), free.status());
  EXPECT_EQ(producer.Push(Record(8, 0)).status(), free.status());
  return std::string(free.status().message());
}

TEST(HostileConsumer, ConsBeyondWhatWasPublished) {
  EXPECT_EQ(FreeError(64), "");
  EXPECT_THAT(FreeError(72), HasSubstr("cons is 72"));  // pushed, but not published
  EXPECT_THAT(FreeError(0x80000000), HasSubstr("cons is 2147483648"));
  EXPECT_THAT(FreeError(0xfffffff8), HasSubstr("cons is 4294967288"));
}

TEST(HostileConsumer, ConsNotAMultipleOfEight) {
  for (uint32_t cons = 1; cons < 8; ++cons) {
    EXPECT_THAT(FreeError(cons), HasSubstr("expected a multiple of 8")) << cons;
  }
}

TEST(HostileConsumer, ConsGoesBack) {
  RingMemory ring(kRing);
  RingProducer producer(&ring.shared, ring.data(), true);
  ASSERT_TRUE(*producer.Push(Record(64, 0)));
  (void)producer.Publish();
  RingMemory::Set(ring.shared.cons, 32);
  ASSERT_TRUE(producer.Free().ok());
  RingMemory::Set(ring.shared.cons, 24);
  EXPECT_EQ(producer.Free().status().code(), absl::StatusCode::kDataLoss);
}

TEST(HostileConsumer, PushFindsTheLieWhenItNeedsRoom) {
  RingMemory ring(64);
  RingProducer producer(&ring.shared, ring.data(), true);
  ASSERT_TRUE(*producer.Push(Record(64, 0)));
  (void)producer.Publish();
  RingMemory::Set(ring.shared.cons, 128);
  EXPECT_EQ(producer.Push(Record(8, 0)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(HostileConsumer, ScribblingOnOurCursorAndWordsChangesNothing) {
  RingMemory ring(kRing);
  RingProducer producer(&ring.shared, ring.data(), true);
  for (uint32_t i = 0; i < 3; ++i) {
    RingMemory::Set(ring.shared.prod, 0xdeadbeef);
    RingMemory::Set(ring.shared.event, 0xdeadbeef);
    RingMemory::Set(ring.shared.want_space, 0xdeadbeef);
    ASSERT_TRUE(*producer.Push(Record(8, i)));
    (void)producer.Publish();
    EXPECT_EQ(RingMemory::Get(ring.shared.prod), 8 * (i + 1));
  }
}

// A peer rewrites the header while it is popped: what Pop decided by is what it handed out, and the
// cursor moves by that. The whole ring is one cache line of headers that change all the time. (That
// each word is read once is shown without a race in read_once_test.cc.)
TEST(HostileProducer, FlippingTheHeaderDuringPopGainsNothing) {
  constexpr uint64_t kShort = uint64_t{8} << 48 | 0x1111'1111'1111;
  constexpr uint64_t kLong = uint64_t{64} << 48 | 0x2222'2222'2222;
  RingMemory ring(64);
  RingConsumer consumer(&ring.shared, ring.data(), true, kMaxMessageSize);
  std::atomic<bool> stop = false;
  std::atomic<uint32_t> flips = 0;
  std::thread peer([&] {
    for (uint32_t i = 0; !stop; ++i) {
      for (uint64_t& word : ring.words) {
        std::atomic_ref(word).store((i & 1) != 0 ? kLong : kShort, std::memory_order_relaxed);
      }
      flips.store(i, std::memory_order_relaxed);
    }
  });
  while (flips < 2) std::this_thread::yield();
  uint32_t cons = 0;
  size_t wrong = 0, longs = 0;
  std::vector<std::byte> record(kMaxMessageSize);
  for (int round = 0; round < 300000; ++round) {
    RingMemory::Set(ring.shared.prod, cons + 64);  // full, so that both sizes fit
    (void)consumer.Arm();                          // looks at prod even if records are left
    const auto size = consumer.Pop(record);
    if (!size.ok() || !size->has_value()) {
      ++wrong;
      break;
    }
    uint64_t header;
    std::memcpy(&header, record.data(), 8);
    wrong += (header != kShort && header != kLong) || **size != header >> 48;
    longs += **size == 64;
    (void)consumer.Release();
    wrong += RingMemory::Get(ring.shared.cons) - cons != **size;
    cons = RingMemory::Get(ring.shared.cons);
  }
  stop = true;
  peer.join();
  EXPECT_EQ(wrong, 0u);
  RecordProperty("records_of_the_longer_kind", static_cast<int>(longs));
}

}  // namespace
}  // namespace vmsg::wire
