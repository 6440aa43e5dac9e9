// SPDX-License-Identifier: Apache-2.0
// A guest that rewrites its descriptors, its indirect table and its ring while we read them
// (XSA-155): whatever is seen is one consistent copy, and no buffer lies outside the window.
#include <stop_token>
#include <thread>

#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

class DoubleFetchTest : public QueueTest {
 protected:
  void ExpectInside(const grants::IoVector& pieces) {
    const std::byte* const begin = memory->At(0);
    for (const iovec& piece : pieces) {
      const auto* const start = static_cast<std::byte*>(piece.iov_base);
      ASSERT_GE(start, begin);
      ASSERT_LE(piece.iov_len, memory->size());
      ASSERT_LE(start + piece.iov_len, begin + memory->size());
    }
  }
};

TEST_F(DoubleFetchTest, DescriptorsFlipUnderPop) {
  Build(8, {.event_idx = false, .indirect = true});
  const uint64_t table = kBuffers;
  const uint64_t outside = memory->size();
  std::jthread guest([&](const std::stop_token& stop) {
    for (uint32_t i = 0; !stop.stop_requested(); ++i) {
      const bool bad = (i & 1) != 0;
      driver->WriteDesc(0, {.address = bad ? outside : kBuffers + 4096,
                            .length = bad ? UINT32_MAX : 16,
                            .flags = uint16_t(i & kNext),
                            .next = uint16_t(i >> 1)});
      driver->WriteDesc(
          1, {.address = table, .length = bad ? UINT32_MAX - 15 : 32, .flags = kIndirect});
      driver->WriteTableEntry(table, 0,
                              {.address = bad ? UINT64_MAX : kBuffers + 8192,
                               .length = bad ? 0 : 64u,
                               .flags = uint16_t(i & (kNext | kWrite | kIndirect)),
                               .next = uint16_t(bad ? 65535 : 1)});
      driver->WriteTableEntry(table, 1, {.address = kBuffers, .length = bad ? UINT32_MAX : 1});
    }
  });
  uint32_t good = 0;
  for (int i = 0; i < 100000; ++i) {
    driver->MakeAvailable(i & 1);
    std::optional<backend::DescriptorChain> chain = Pop();
    if (chain.has_value()) {
      ++good;
      ExpectInside(chain->readable);
      ExpectInside(chain->writable);
      uint64_t bytes = 0;
      for (const iovec& piece : chain->readable) bytes += piece.iov_len;
      ASSERT_EQ(bytes, chain->readable_bytes);
      queue->Return(*std::move(chain), 0);
    }
    (void)queue->Publish();
    ASSERT_EQ(driver->TakeAllUsed().size(), 1u) << "each head comes back once";
    if (::testing::Test::HasFatalFailure()) break;
  }
  guest.request_stop();
  guest.join();
  EXPECT_EQ(good + queue->broken_chains(), 100000u);
}

TEST_F(DoubleFetchTest, AvailableEntriesAndEventWordsFlip) {
  Build(8, {.event_idx = true, .indirect = true});
  for (uint16_t i = 0; i < 8; ++i) driver->WriteDesc(i, {.address = kBuffers, .length = 16});
  std::jthread guest([&](const std::stop_token& stop) {
    for (uint32_t i = 0; !stop.stop_requested(); ++i) {
      memory->Store<uint16_t>(driver->layout().driver + 4 + 2 * (i & 7), i & 15);
      driver->SetUsedEvent(i);
    }
  });
  for (int i = 0; i < 100000; ++i) {
    driver->ExposeIdx(i + 1);
    std::optional<backend::DescriptorChain> chain = Pop();
    if (chain.has_value()) {
      ASSERT_LT(chain->head, 8);
      queue->Return(*std::move(chain), 0);
    }
    (void)queue->Publish();
    (void)queue->EnableKicks();
  }
  guest.request_stop();
  guest.join();
  EXPECT_EQ(queue->in_flight(), 0u);
}

}  // namespace
}  // namespace vmsg::testing
