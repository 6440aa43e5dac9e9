// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/figure.h"

#include <cstdio>

#include "absl/strings/str_format.h"

namespace vmsg::bench {

void Print(const Figure& figure, bool json) {
  if (json) {
    absl::PrintF(
        "{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"reference\":%.4g,\"ratio\":%.3f,"
        "\"low\":%.3f,\"high\":%.3f}\n",
        figure.name, figure.value, figure.unit, figure.reference, figure.ratio(), figure.low,
        figure.high);
  } else {
    const std::string spread =
        figure.low == 0 ? ""
                        : absl::StrFormat(", half of them %.2f to %.2f", figure.low, figure.high);
    absl::PrintF("%-44s %12.4g %-8s bare %12.4g  ratio %5.2f%s  (%s %.2f) %s\n", figure.name,
                 figure.value, figure.unit, figure.reference, figure.ratio(), spread,
                 figure.kind == Figure::Kind::kAtMost ? "at most" : "at least", figure.bound,
                 figure.reached() ? "reached" : "MISSED");
  }
  std::fflush(stdout);
}

}  // namespace vmsg::bench
