// SPDX-License-Identifier: Apache-2.0
// The name that somebody who mistyped may have meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmsg {

// The one of `names` that takes the fewest changes (a letter more, less or another, two letters
// exchanged; case, '-' and '_' do not count): at most a third of its letters, and `most_changes`.
// The first of several. nullopt: none is near.
std::optional<std::string> NearestName(absl::string_view name,
                                       const std::vector<std::string>& names,
                                       size_t most_changes = SIZE_MAX);

// "; did you mean NAME?", or nothing when none is near: the end of a message.
std::string DidYouMean(absl::string_view name, const std::vector<std::string>& names);

}  // namespace vmsg
