// SPDX-License-Identifier: Apache-2.0
// Durations counted in buckets of at most 1/32 of their value: percentiles in constant memory.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>

namespace vmsg::frontend_tool {

class Latencies {
 public:
  void Add(std::chrono::nanoseconds duration) {
    const uint64_t value = static_cast<uint64_t>(std::max<int64_t>(duration.count(), 1));
    ++buckets_[Index(value)];
    ++count_;
    max_ = std::max(max_, value);
  }

  // In microseconds: the upper end of the bucket in which the percentile lies.
  double Percentile(double percent) const {
    const double target = static_cast<double>(count_) * percent / 100;
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > 0 && static_cast<double>(seen) >= target) {
        return Microseconds(std::min(UpperEnd(i), max_));
      }
    }
    return Max();
  }
  double Max() const { return Microseconds(max_); }
  uint64_t count() const { return count_; }

 private:
  static constexpr size_t kSteps = 32;  // per doubling

  static double Microseconds(uint64_t nanoseconds) {
    return static_cast<double>(nanoseconds) / 1e3;
  }
  static size_t Index(uint64_t value) {
    const unsigned width = std::bit_width(value);
    if (width <= 6) return value;
    const unsigned shift = width - 6;
    return (shift + 1) * kSteps + (value >> shift) - kSteps;
  }
  static uint64_t UpperEnd(size_t index) {
    if (index < 2 * kSteps) return index;
    const size_t shift = index / kSteps - 1;
    return ((index % kSteps + kSteps + 1) << shift) - 1;
  }

  std::array<uint64_t, 64 * kSteps> buckets_{};
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace vmsg::frontend_tool
