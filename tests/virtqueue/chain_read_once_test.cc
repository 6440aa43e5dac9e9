// SPDX-License-Identifier: Apache-2.0
// Pop reads each word of the available ring and of a descriptor once, and uses what it checked.
#include <map>

#include "tests/virtio-msg/watched_memory.h"
#include "tests/virtqueue/queue_fixture.h"

// TSan reads a word again itself when it is loaded with acquire order.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

namespace vmsg::testing {
namespace {

class ChainReadOnce : public QueueTest {
 protected:
  // What the queue looks at lies below.
  static constexpr uint64_t kWatched = kBuffers + 4096;

  void SetUp() override { Build(8, {.event_idx = true, .indirect = true}); }

  // Makes the chain of `head` available and pops it from watched memory.
  backend::DescriptorChain PopWatched(uint16_t head) {
    driver->MakeAvailable(head);
    // One byte, so that the neighbours in the available ring stay what they are. An index changes
    // to one that is still possible, a head and a descriptor to ones that are not.
    WatchedMemory watched(std::span(memory->At(4096), kWatched - 4096),
                          [](std::byte* accessed) { *accessed ^= std::byte{2}; });
    auto chain = queue->Pop();
    watched.Stop();
    EXPECT_TRUE(chain.ok()) << chain.status();
    EXPECT_TRUE(chain.ok() && chain->has_value()) << queue->last_broken();
    for (uint64_t at = 4096; at < kWatched; ++at) {
      if (watched.accesses(at - 4096) > 0) accesses_[at] = watched.accesses(at - 4096);
    }
    return chain.ok() && chain->has_value() ? **std::move(chain) : backend::DescriptorChain{};
  }
  void ExpectReadOnce(std::initializer_list<uint64_t> descriptors) {
    std::map<uint64_t, int> expected = {{driver->layout().driver + wire::kAvailableIdxOffset, 1},
                                        {driver->layout().driver + wire::kAvailableRingOffset, 1}};
    for (const uint64_t descriptor : descriptors) {
      expected[descriptor] = 1;
      expected[descriptor + 8] = 1;
    }
    EXPECT_EQ(accesses_, expected);
  }
  uint64_t DescriptorAt(uint16_t index) const { return driver->layout().desc + 16 * index; }
  void ExpectPiece(const iovec& piece, uint64_t address, size_t size) {
    EXPECT_EQ(piece.iov_base, memory->At(address));
    EXPECT_EQ(piece.iov_len, size);
  }

  std::map<uint64_t, int> accesses_;
};

TEST_F(ChainReadOnce, Direct) {
  driver->WriteChain(1, {{.address = kBuffers, .length = 16},
                         {.address = kBuffers + 64, .length = 5, .flags = kWrite}});
  backend::DescriptorChain chain = PopWatched(1);
  ExpectReadOnce({DescriptorAt(1), DescriptorAt(2)});
  ASSERT_EQ(chain.readable.size(), 1u);
  ASSERT_EQ(chain.writable.size(), 1u);
  ExpectPiece(chain.readable[0], kBuffers, 16);
  ExpectPiece(chain.writable[0], kBuffers + 64, 5);
  held.push_back(std::move(chain));
}

TEST_F(ChainReadOnce, IndirectTable) {
  driver->WriteTableEntry(kBuffers, 0,
                          {.address = kBuffers, .length = 16, .flags = kNext, .next = 1});
  driver->WriteTableEntry(kBuffers, 1, {.address = kBuffers + 64, .length = 5, .flags = kWrite});
  driver->WriteDesc(3, {.address = kBuffers, .length = 32, .flags = kIndirect});
  backend::DescriptorChain chain = PopWatched(3);
  ExpectReadOnce({DescriptorAt(3), kBuffers, kBuffers + 16});
  ASSERT_EQ(chain.readable.size(), 1u);
  ASSERT_EQ(chain.writable.size(), 1u);
  ExpectPiece(chain.readable[0], kBuffers, 16);
  ExpectPiece(chain.writable[0], kBuffers + 64, 5);
  held.push_back(std::move(chain));
}

// A table that is not aligned is read byte by byte.
TEST_F(ChainReadOnce, UnalignedIndirectTable) {
  const uint64_t table = kBuffers + 4;
  memory->Store<uint32_t>(table, kBuffers);
  memory->Store<uint32_t>(table + 8, 16);
  driver->WriteDesc(3, {.address = table, .length = 16, .flags = kIndirect});
  backend::DescriptorChain chain = PopWatched(3);
  for (uint64_t at = table; at < table + 16; ++at) EXPECT_EQ(accesses_[at], 1) << at - table;
  ASSERT_EQ(chain.readable.size(), 1u);
  ExpectPiece(chain.readable[0], kBuffers, 16);
  held.push_back(std::move(chain));
}

}  // namespace
}  // namespace vmsg::testing

#endif
