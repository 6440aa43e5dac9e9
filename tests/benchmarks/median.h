// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

namespace vmsg::bench {

// One round: ours and the bare thing, measured one right after the other.
struct Pair {
  double ours;
  double bare;
};

// The round whose ratio is the median. `rounds` is not empty.
inline Pair MedianByRatio(std::vector<Pair> rounds) {
  const auto middle = rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2);
  std::nth_element(rounds.begin(), middle, rounds.end(),
                   [](const Pair& a, const Pair& b) { return a.ours * b.bare < b.ours * a.bare; });
  return *middle;
}

}  // namespace vmsg::bench
