// SPDX-License-Identifier: Apache-2.0
// A measured figure beside its limit of the same run.
#pragma once

#include <string>

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

// One line: a table row, or with json one object with name, value, unit, reference, ratio.
void Print(const Figure& figure, bool json);

}  // namespace vmsg::bench
