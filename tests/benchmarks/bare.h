// SPDX-License-Identifier: Apache-2.0
// The limit of a round trip: the same job without Xen, ring and transport.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace vmsg::bench {

// Mean round trip between two processes that hand a token back and forth through two eventfds,
// blocking in read().
absl::StatusOr<absl::Duration> EventfdRoundTrip(uint64_t round_trips);

}  // namespace vmsg::bench
