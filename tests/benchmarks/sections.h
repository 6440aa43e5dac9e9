// SPDX-License-Identifier: Apache-2.0
// The parts of tools/bench. Each starts what it needs and measures ours beside the bare thing,
// alternating, so that both meet the same noise; what is reported is the median of the rounds'
// ratios.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/benchmarks/figure.h"

namespace vmsg::bench {

struct Options {
  bool quick = false;  // fewer rounds, guests and pages: shows that it runs, not how fast
  std::string image;   // file or device that Block reads; empty: a file of 256 MiB in /tmp
};

// PING through ring and event channel, vmsgd answering, against a bare eventfd ping-pong between
// two processes.
absl::StatusOr<std::vector<Figure>> RoundTrip(const Options& options);
// Disk reads through the whole path against the same loop straight on io_uring, on the same file,
// and against that loop in a second process, which is what no backend of another domain gets
// around.
absl::StatusOr<std::vector<Figure>> Block(const Options& options);
// Directory walk and map of a window against one bare map of the same pages.
absl::StatusOr<std::vector<Figure>> Mapping(const Options& options);
// Memory of vmsgd and its wake-ups with many attached, idle guests.
absl::StatusOr<std::vector<Figure>> Idle(const Options& options);
// Latencies of one guest while another raises events as fast as it can, against the same while that
// one is merely busy; both on one I/O thread.
absl::StatusOr<std::vector<Figure>> EventStorm(const Options& options);

}  // namespace vmsg::bench
