// SPDX-License-Identifier: Apache-2.0
// How often a proof repeats what it repeats.
#pragma once

#include <cstddef>
#include <cstdlib>

#include "absl/strings/numbers.h"

namespace vmsg::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// `full` in a release build, a twentieth under a sanitizer; VMSG_TEST_SCALE multiplies either.
inline size_t Repetitions(size_t full) {
  size_t scale = 1;
  const char* const text = getenv("VMSG_TEST_SCALE");
  if (text != nullptr && !absl::SimpleAtoi(text, &scale)) scale = 1;
  return (kSanitized ? full / 20 : full) * scale;
}

}  // namespace vmsg::testing
