// SPDX-License-Identifier: Apache-2.0
// Strict reading of text that somebody else wrote: node values, directory names, config entries.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmsg::xenstore {

// An unsigned decimal number between `min` and `max`: digits only, no sign, no space, no leading
// zero, no NUL. InvalidArgument names `what`, the value and the limits; it does not contain the
// value's unprintable bytes.
absl::StatusOr<uint64_t> ParseDecimal(absl::string_view text, absl::string_view what, uint64_t min,
                                      uint64_t max);

}  // namespace vmsg::xenstore
