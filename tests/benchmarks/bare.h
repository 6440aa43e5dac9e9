// SPDX-License-Identifier: Apache-2.0
// The limits our figures are held against: the same job without Xen, ring, transport and virtqueue.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace vmsg::bench {

// Mean round trip between two processes that hand a token back and forth through two eventfds,
// blocking in read().
absl::StatusOr<absl::Duration> EventfdRoundTrip(uint64_t round_trips);

struct ReadLoad {
  std::string path;
  uint32_t block_size;
  uint32_t depth;
  bool random;
  uint64_t count;  // reads in all
};
// Bytes a second of a loop that keeps `depth` reads in flight straight on io_uring (O_DIRECT, one
// thread).
absl::StatusOr<double> BareReadBandwidth(const ReadLoad& load);

}  // namespace vmsg::bench
