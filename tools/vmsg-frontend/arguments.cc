// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsg-frontend/arguments.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace vmsg::frontend_tool {
namespace {

constexpr char kUsageMark[] = "vmsg-frontend/usage";

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

absl::Status UsageError(absl::string_view text) {
  absl::Status status = absl::InvalidArgumentError(text);
  status.SetPayload(kUsageMark, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsageMark).has_value(); }

absl::StatusOr<Arguments> Arguments::Parse(int argc, char** argv,
                                           const std::vector<std::string>& valued,
                                           const std::vector<std::string>& switches) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      arguments.words_.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (Contains(switches, name) && equals == std::string::npos) {
      arguments.options_[name] = "1";
    } else if (Contains(valued, name)) {
      if (equals == std::string::npos && i + 1 == argc) {
        return UsageError(absl::StrCat("--", name, " needs a value"));
      }
      arguments.options_[name] = equals == std::string::npos ? argv[++i] : word.substr(equals + 1);
    } else {
      return UsageError(absl::StrCat("unknown option ", word));
    }
  }
  return arguments;
}

std::string Arguments::Text(const std::string& name, const std::string& otherwise) const {
  const auto option = options_.find(name);
  return option == options_.end() ? otherwise : option->second;
}

absl::StatusOr<uint64_t> Arguments::Number(const std::string& name, uint64_t otherwise,
                                           uint64_t min, uint64_t max) const {
  const auto option = options_.find(name);
  if (option == options_.end()) return otherwise;
  const std::string& text = option->second;
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, value);
  unsigned shift = 0;
  if (error == std::errc() && end - rest == 1) {
    if (*rest == 'k' || *rest == 'K') shift = 10;
    if (*rest == 'M') shift = 20;
    if (*rest == 'G') shift = 30;
    if (shift != 0) ++rest;
  }
  const bool fits = value <= UINT64_MAX >> shift;
  value <<= shift;
  if (error != std::errc() || rest != end || !fits || value < min || value > max) {
    return UsageError(absl::StrCat("--", name, "=", text, ": not a number from ", min, " to ", max,
                                   " (k, M and G may follow it)"));
  }
  return value;
}

}  // namespace vmsg::frontend_tool
