// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/figure.h"

#include <cstdio>

#include "absl/strings/str_format.h"

namespace vmsg::bench {

void Print(const Figure& figure, bool json) {
  if (json) {
    absl::PrintF(
        "{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"reference\":%.4g,\"ratio\":%.3f}\n",
        figure.name, figure.value, figure.unit, figure.reference, figure.ratio());
  } else {
    absl::PrintF("%-34s %12.4g %-8s bare %12.4g  ratio %5.2f  (%s %.2f) %s\n", figure.name,
                 figure.value, figure.unit, figure.reference, figure.ratio(),
                 figure.kind == Figure::Kind::kAtMost ? "at most" : "at least", figure.bound,
                 figure.reached() ? "reached" : "MISSED");
  }
  std::fflush(stdout);
}

}  // namespace vmsg::bench
