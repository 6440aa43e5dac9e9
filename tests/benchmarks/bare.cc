// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/bare.h"

#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "absl/cleanup/cleanup.h"
#include "absl/time/clock.h"
#include "tests/benchmarks/processors.h"

namespace vmsg::bench {

absl::StatusOr<absl::Duration> EventfdRoundTrip(uint64_t round_trips) {
  const int there = eventfd(0, EFD_CLOEXEC);
  const int back = eventfd(0, EFD_CLOEXEC);
  if (there < 0 || back < 0) return absl::ErrnoToStatus(errno, "eventfd");
  auto close_both = absl::MakeCleanup([&] { close(there), close(back); });
  // On two processors, as guest and backend are: on one, a switch is all that a round trip costs.
  const OnProcessor here(0);
  uint64_t word = 0;
  const pid_t child = fork();
  if (child < 0) return absl::ErrnoToStatus(errno, "fork");
  if (child == 0) {
    KeepThreadOn(1);
    const uint64_t one = 1;
    for (uint64_t i = 0; i < round_trips; ++i) {
      if (read(there, &word, sizeof(word)) != sizeof(word)) _exit(1);
      if (write(back, &one, sizeof(one)) != sizeof(one)) _exit(1);
    }
    _exit(0);
  }
  const uint64_t one = 1;
  const absl::Time start = absl::Now();
  for (uint64_t i = 0; i < round_trips; ++i) {
    if (write(there, &one, sizeof(one)) != sizeof(one) ||
        read(back, &word, sizeof(word)) != sizeof(word)) {
      return absl::ErrnoToStatus(errno, "eventfd ping-pong");
    }
  }
  const absl::Duration took = absl::Now() - start;
  int status = 0;
  waitpid(child, &status, 0);
  return took / static_cast<int64_t>(round_trips);
}

}  // namespace vmsg::bench
