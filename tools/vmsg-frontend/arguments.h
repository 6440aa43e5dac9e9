// SPDX-License-Identifier: Apache-2.0
// The command line: "--name value", "--name=value", "--switch" and words.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmsg::frontend_tool {

// InvalidArgument, marked as the caller's mistake on the command line (exit status 2), not as a
// value that a device or the store gave us.
absl::Status UsageError(absl::string_view text);
bool IsUsageError(const absl::Status& status);

class Arguments {
 public:
  // `valued` options take a value, `switches` none. InvalidArgument: anything else that starts with
  // "--", or a missing value. A lone "-" is a word.
  static absl::StatusOr<Arguments> Parse(int argc, char** argv,
                                         const std::vector<std::string>& valued,
                                         const std::vector<std::string>& switches);

  const std::vector<std::string>& words() const { return words_; }
  bool Has(const std::string& name) const { return options_.contains(name); }
  std::string Text(const std::string& name, const std::string& otherwise) const;
  // A number from min to max, with an optional suffix k, M or G (of 1024). InvalidArgument names
  // option, value and limits.
  absl::StatusOr<uint64_t> Number(const std::string& name, uint64_t otherwise, uint64_t min,
                                  uint64_t max) const;

 private:
  std::map<std::string, std::string> options_;
  std::vector<std::string> words_;
};

}  // namespace vmsg::frontend_tool
