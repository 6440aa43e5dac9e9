// SPDX-License-Identifier: Apache-2.0
#include "xenstore/text_value.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "text/foreign_text.h"

namespace vmsg::xenstore {

absl::StatusOr<uint64_t> ParseDecimal(absl::string_view text, absl::string_view what, uint64_t min,
                                      uint64_t max) {
  const auto refuse = [&](absl::string_view reason) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is ", Quoted(text), ", which ", reason,
                                                   "; expected a decimal number from ", min, " to ",
                                                   max));
  };
  if (text.empty()) return refuse("is empty");
  uint64_t value = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return refuse("is not a number");
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (value > (UINT64_MAX - digit) / 10) return refuse("is above the limit");
    value = value * 10 + digit;
  }
  if (text.size() > 1 && text[0] == '0') return refuse("has a leading zero");
  if (value > max) return refuse("is above the limit");
  if (value < min) return refuse("is below the limit");
  return value;
}

}  // namespace vmsg::xenstore
