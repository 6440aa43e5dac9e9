// SPDX-License-Identifier: Apache-2.0
// Pop reads each word of a record once. The ring's page is taken away while Pop runs: each access
// faults, is let through alone (single step) and counted, and changes the word behind it, so that a
// second look at a header would see another one. Deterministic, unlike a racing thread.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <cstring>
#include <vector>

#include "tests/virtio-msg/ring_fixture.h"
#include "virtio-msg/flex_ring.h"

#if defined(__x86_64__)

namespace vmsg::wire {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWords = kPage / 8;
constexpr greg_t kTrapFlag = 0x100;  // EFLAGS.TF: trap after the next instruction

// What the signal handlers work on.
uint64_t* page = nullptr;
size_t accessed = 0;
std::array<int, kWords> reads;
uint64_t change = 0;  // xor

void OnFault(int, siginfo_t* info, void* context) {
  const uintptr_t offset =
      reinterpret_cast<uintptr_t>(info->si_addr) - reinterpret_cast<uintptr_t>(page);
  if (offset >= kPage) {
    signal(SIGSEGV, SIG_DFL);  // a real one: it comes again, and ends us
    return;
  }
  accessed = offset / 8;
  ++reads[accessed];
  mprotect(page, kPage, PROT_READ | PROT_WRITE);
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
}

void OnStep(int, siginfo_t*, void* context) {
  page[accessed] ^= change;
  mprotect(page, kPage, PROT_NONE);
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
}

class ReadOnce : public testing::Test {
 protected:
  ReadOnce() {
    page = static_cast<uint64_t*>(
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = OnFault;
    sigaction(SIGSEGV, &action, &old_fault_);
    action.sa_sigaction = OnStep;
    sigaction(SIGTRAP, &action, &old_step_);
  }
  ~ReadOnce() override {
    sigaction(SIGSEGV, &old_fault_, nullptr);
    sigaction(SIGTRAP, &old_step_, nullptr);
    munmap(page, kPage);
  }

  // Pops a record of `size` bytes that starts at `start`, and checks what was read.
  void PopWatched(uint32_t start, size_t size) {
    const std::vector<std::byte> sent = Record(size, 1);
    RingDirection shared{.cons = start, .prod = start};
    const auto data = std::as_writable_bytes(std::span(page, kWords));
    RingProducer producer(&shared, data, true, start);
    ASSERT_TRUE(*producer.Push(sent));
    (void)producer.Publish();

    RingConsumer consumer(&shared, data, true, kMaxMessageSize, start);
    std::vector<std::byte> record(kMaxMessageSize);
    reads = {};
    change = uint64_t{size ^ 16} << 48;  // as a header: 16 bytes, and back
    mprotect(page, kPage, PROT_NONE);
    const auto popped = consumer.Pop(record);
    mprotect(page, kPage, PROT_READ | PROT_WRITE);

    ASSERT_TRUE(popped.ok()) << popped.status();
    ASSERT_TRUE(popped->has_value());
    ASSERT_EQ(**popped, size);
    record.resize(size);
    EXPECT_EQ(record, sent);
    const size_t words = PaddedRecordSize(size) / 8;
    for (size_t i = 0; i < kWords; ++i) {
      const size_t nth = (i + kWords - start / 8) % kWords;
      EXPECT_EQ(reads[i], nth < words ? 1 : 0) << "word " << nth << " of " << words;
    }
  }

 private:
  struct sigaction old_fault_ {};
  struct sigaction old_step_ {};
};

TEST_F(ReadOnce, ShortestRecord) { PopWatched(0, 8); }
TEST_F(ReadOnce, LongestRecord) { PopWatched(0, kMaxMessageSize); }
TEST_F(ReadOnce, RecordWithPadding) { PopWatched(64, 37); }
TEST_F(ReadOnce, RecordThatWraps) { PopWatched(kPage - 16, 44); }

}  // namespace
}  // namespace vmsg::wire

#endif
