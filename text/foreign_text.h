// SPDX-License-Identifier: Apache-2.0
// Text that somebody else wrote, before a person sees it: values and names in the store, reasons
// from another domain, lines of a file. Whatever is in it, a terminal is told nothing and a line
// stays one line.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace vmsg {

// `text` as UTF-8 that can be seen: control characters (C0, DEL, C1), what turns the direction of
// text or cannot be seen, and bytes that are no UTF-8 become "\n", "\x1b", "\u202e", "\U000e0001".
// Everything else is left as it is, so clean text comes back unchanged and may be cleaned again. A
// result longer than `max_bytes` is cut between two characters and ends in "...".
std::string CleanText(absl::string_view text, size_t max_bytes = std::string::npos);

// `value` between quotes, clean, with '"' and '\\' escaped too, so that no value looks like
// another; of a long one the first `shown_bytes` and its length.
std::string Quoted(absl::string_view value, size_t shown_bytes = 64);

// How many characters a terminal shows of clean text, when all are of one width.
size_t ShownCharacters(absl::string_view clean);

}  // namespace vmsg
