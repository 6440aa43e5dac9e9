// SPDX-License-Identifier: Apache-2.0
// Names of nodes, as xenstore defines them: absolute, parts separated by one slash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace vmsg::emu::store {

// Length limit of a path, not counting a leading /local/domain/<id>/.
inline constexpr size_t kPathLimit = 2048;

// Starts with a slash, ends in none unless it is "/", no empty part, only letters, digits and
// -/_@, within kPathLimit.
bool IsValidPath(absl::string_view path);

// Of a valid path; the root is its own parent.
std::string ParentOf(absl::string_view path);
absl::string_view BaseName(absl::string_view path);
std::string ChildPath(absl::string_view parent, absl::string_view name);
bool IsAtOrBelow(absl::string_view path, absl::string_view ancestor);

// "/local/domain/<id>": what a relative path of that domain is below.
std::string DomainPath(uint32_t domain);

}  // namespace vmsg::emu::store
