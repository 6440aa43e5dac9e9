// SPDX-License-Identifier: Apache-2.0
// Until when something may take. Every wait of the frontend has one.
#pragma once

#include <chrono>

namespace vmsg::frontend {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline Deadline After(Clock::duration duration) { return Clock::now() + duration; }

// How long a wait may still take, as poll() takes it: rounded up, so that a sleep never ends just
// before the deadline only to spin.
inline int PollTimeout(Deadline deadline, Clock::time_point now = Clock::now()) {
  if (deadline == Deadline::max()) return -1;
  const auto left = deadline - now;
  if (left <= Clock::duration::zero()) return 0;
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return milliseconds > 60'000 ? 60'000 : static_cast<int>(milliseconds);
}

}  // namespace vmsg::frontend
