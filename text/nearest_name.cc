// SPDX-License-Identifier: Apache-2.0
#include "text/nearest_name.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace vmsg {
namespace {

// What is longer is nobody's name, and the comparison takes its square.
constexpr size_t kMaxName = 64;

std::string Folded(absl::string_view name) {
  std::string folded = absl::AsciiStrToLower(name);
  std::replace(folded.begin(), folded.end(), '_', '-');
  return folded;
}

// Optimal string alignment: insertions, deletions, substitutions, exchanged neighbours.
size_t Changes(const std::string& from, const std::string& to) {
  std::vector<size_t> before(to.size() + 1), last(to.size() + 1), row(to.size() + 1);
  for (size_t j = 0; j <= to.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= from.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= to.size(); ++j) {
      const size_t other = from[i - 1] == to[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + other});
      if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[to.size()];
}

}  // namespace

std::optional<std::string> NearestName(absl::string_view name,
                                       const std::vector<std::string>& names, size_t most_changes) {
  if (name.empty() || name.size() > kMaxName) return std::nullopt;
  const std::string wanted = Folded(name);
  std::optional<std::string> nearest;
  size_t fewest = 0;
  for (const std::string& candidate : names) {
    // It is no advice to write what was written.
    if (candidate.size() > kMaxName || candidate == name) continue;
    const size_t changes = Changes(wanted, Folded(candidate));
    if (changes > std::min(candidate.size() / 3, most_changes)) continue;
    if (nearest.has_value() && changes >= fewest) continue;
    nearest = candidate;
    fewest = changes;
  }
  return nearest;
}

std::string DidYouMean(absl::string_view name, const std::vector<std::string>& names) {
  const std::optional<std::string> nearest = NearestName(name, names);
  return nearest.has_value() ? absl::StrCat("; did you mean ", *nearest, "?") : "";
}

}  // namespace vmsg
