// SPDX-License-Identifier: Apache-2.0
// Pop reads each word of a record once: a second look at a header would see another one.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

#include "tests/virtio-msg/ring_fixture.h"
#include "tests/virtio-msg/watched_memory.h"
#include "virtio-msg/flex_ring.h"

#if defined(__x86_64__)

namespace vmsg::wire {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWords = kPage / 8;

uint64_t change = 0;  // xor

class ReadOnce : public ::testing::Test {
 protected:
  ReadOnce()
      : page_(static_cast<uint64_t*>(
            mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~ReadOnce() override { munmap(page_, kPage); }

  // Pops a record of `size` bytes that starts at `start`, and checks what was read.
  void PopWatched(uint32_t start, size_t size) {
    const std::vector<std::byte> sent = Record(size, 1);
    RingDirection shared{.cons = start, .prod = start};
    const auto data = std::as_writable_bytes(std::span(page_, kWords));
    RingProducer producer(&shared, data, true, start);
    ASSERT_TRUE(*producer.Push(sent));
    (void)producer.Publish();

    RingConsumer consumer(&shared, data, true, kMaxMessageSize, start);
    std::vector<std::byte> record(kMaxMessageSize);
    change = uint64_t{size ^ 16} << 48;  // as a header: 16 bytes, and back
    vmsg::testing::WatchedMemory watched(
        data, [](std::byte* accessed) { *reinterpret_cast<uint64_t*>(accessed) ^= change; });
    const auto popped = consumer.Pop(record);
    watched.Stop();

    ASSERT_TRUE(popped.ok()) << popped.status();
    ASSERT_TRUE(popped->has_value());
    ASSERT_EQ(**popped, size);
    record.resize(size);
    EXPECT_EQ(record, sent);
    const size_t words = PaddedRecordSize(size) / 8;
    for (size_t i = 0; i < kWords; ++i) {
      const size_t nth = (i + kWords - start / 8) % kWords;
      EXPECT_EQ(watched.accesses(8 * i), nth < words ? 1 : 0) << "word " << nth << " of " << words;
    }
  }

 private:
  uint64_t* const page_;
};

TEST_F(ReadOnce, ShortestRecord) { PopWatched(0, 8); }
TEST_F(ReadOnce, LongestRecord) { PopWatched(0, kMaxMessageSize); }
TEST_F(ReadOnce, RecordWithPadding) { PopWatched(64, 37); }
TEST_F(ReadOnce, RecordThatWraps) { PopWatched(kPage - 16, 44); }

}  // namespace
}  // namespace vmsg::wire

#endif
