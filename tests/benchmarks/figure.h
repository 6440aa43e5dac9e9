// SPDX-License-Identifier: Apache-2.0
// A measured figure beside its limit of the same run.
#pragma once

#include <algorithm>
#include <string>
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

// One line: a table row, or with json one object with name, value, unit, reference, ratio.
void Print(const Figure& figure, bool json);

}  // namespace vmsg::bench
