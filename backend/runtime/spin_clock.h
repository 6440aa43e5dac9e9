// SPDX-License-Identifier: Apache-2.0
// CLOCK_MONOTONIC for a thread that spins and looks at the time every turn. Reading it can be a
// system call (on a PV domain's clock it is, and each goes through Xen), so between two readings
// the processor's cycle counter says how much later it is.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>

namespace vmsg::backend {

// Of one thread. Never goes back. `Source` has Cycles() and Nanoseconds(), static.
template <typename Source>
class SpinClockOf {
 public:
  // In nanoseconds, as of CLOCK_MONOTONIC; off by as much as the counter strays within kMostNs.
  int64_t Read() {
    const uint64_t since = Source::Cycles() - cycles_;
    // A counter that stands still, or that another processor has otherwise, is found out.
    if (since >= most_cycles_ || ++reads_ >= kMostReads) return ReadExactly();
    const auto ns = static_cast<int64_t>((since * rate_) >> kRateBits);
    return latest_ = std::max(latest_, ns_ + ns);
  }

  int64_t ReadExactly() {
    const int64_t ns = Source::Nanoseconds();
    const uint64_t cycles = Source::Cycles();
    const int64_t passed = ns - ns_;
    reads_ = 0;
    // Of a shorter time, that which a reading takes would be much.
    if (ns_ == 0 || passed >= kLeastNs) {
      if (ns_ != 0 && passed < kLongNs) {
        const uint64_t counted = cycles - cycles_;
        const bool sane = counted > 0 && counted < uint64_t{kLongNs} * 16;
        rate_ = sane ? (static_cast<uint64_t>(passed) << kRateBits) / counted : 0;
        most_cycles_ = rate_ == 0 ? 0 : (uint64_t{kMostNs} << kRateBits) / rate_;
      }
      ns_ = ns;
      cycles_ = cycles;
    }
    return latest_ = std::max(latest_, ns);
  }

 private:
  static constexpr int64_t kMostNs = 1'000'000;
  static constexpr int64_t kLeastNs = 500'000;
  // A rate is taken from no longer time: the processor may have slept, or the domain been saved.
  static constexpr int64_t kLongNs = 100'000'000;
  static constexpr uint32_t kMostReads = 1024;
  static constexpr int kRateBits = 20;

  int64_t ns_ = 0;
  uint64_t cycles_ = 0;
  uint64_t rate_ = 0;  // nanoseconds a cycle, times 2^kRateBits; 0: not known
  uint64_t most_cycles_ = 0;
  uint32_t reads_ = 0;
  int64_t latest_ = 0;
};

struct ThisProcessor {
  static uint64_t Cycles() {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t count;
    asm volatile("mrs %0, cntvct_el0" : "=r"(count));
    return count;
#else
    return 0;
#endif
  }
  static int64_t Nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  }
};

using SpinClock = SpinClockOf<ThisProcessor>;

}  // namespace vmsg::backend
