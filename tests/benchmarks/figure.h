// SPDX-License-Identifier: Apache-2.0
// A measured figure beside its limit of the same run.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmsg::bench {

struct Figure {
  std::string name;
  double value;  // ours
  std::string unit;
  double reference;  // the bare thing, measured in the same run
  double bound;      // what the ratio value / reference is held against
  enum class Kind { kAtMost, kAtLeast } kind;
  // Half of the rounds' ratios lie between these; 0: not known.
  double low = 0, high = 0;

  double ratio() const { return reference == 0 ? 0 : value / reference; }
  bool reached() const { return kind == Kind::kAtMost ? ratio() <= bound : ratio() >= bound; }
};

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

// Between which ratios the middle half of the rounds lies. `rounds` is not empty.
inline std::pair<double, double> Quartiles(const std::vector<Pair>& rounds) {
  std::vector<double> ratios;
  for (const Pair& round : rounds) ratios.push_back(round.ours / round.bare);
  std::sort(ratios.begin(), ratios.end());
  const size_t quarter = ratios.size() / 4;
  return {ratios[quarter], ratios[ratios.size() - 1 - quarter]};
}

// One line: a table row, or with json one object with name, value, unit, reference, ratio, low,
// high.
void Print(const Figure& figure, bool json);

}  // namespace vmsg::bench
