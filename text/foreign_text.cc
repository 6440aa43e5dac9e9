// SPDX-License-Identifier: Apache-2.0
#include "text/foreign_text.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace vmsg {
namespace {

constexpr absl::string_view kCut = "...";

struct Character {
  uint32_t code = 0;
  size_t bytes = 0;  // 0: no UTF-8 begins here
};

// Shortest forms only, no surrogates, nothing above U+10FFFF (Unicode 15, table 3-7).
Character FirstCharacter(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return {};
  uint32_t code = first & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast[bytes] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) return {};
  return {code, bytes};
}

struct Range {
  uint32_t first, last;
};
// What a terminal may obey, what makes text look like other text, and what nobody sees.
constexpr Range kNotShown[] = {
    {0x00, 0x1f},       {0x7f, 0x9f},      // controls
    {0xad, 0xad},                          // soft hyphen
    {0x61c, 0x61c},                        // Arabic letter mark
    {0x180e, 0x180e},                      // Mongolian vowel separator
    {0x200b, 0x200b},                      // zero width space
    {0x200e, 0x200f},   {0x2028, 0x202e},  // direction marks; separators, embeddings, overrides
    {0x2060, 0x206f},                      // invisible operators, direction isolates
    {0xfeff, 0xfeff},                      // byte order mark
    {0xfff9, 0xfffb},                      // annotations
    {0xe0000, 0xe007f},                    // tags
};

bool IsShown(uint32_t code) {
  if ((code & 0xfffe) == 0xfffe) return false;  // no characters
  return std::none_of(std::begin(kNotShown), std::end(kNotShown), [code](const Range& range) {
    return code >= range.first && code <= range.last;
  });
}

std::string Escaped(uint32_t code) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (code < 0x80) return absl::StrCat("\\x", absl::Hex(code, absl::kZeroPad2));
  if (code < 0x10000) return absl::StrCat("\\u", absl::Hex(code, absl::kZeroPad4));
  return absl::StrCat("\\U", absl::Hex(code, absl::kZeroPad8));
}

}  // namespace

std::string Quoted(absl::string_view value, size_t shown_bytes) {
  std::string shown = "\"";
  absl::string_view rest = value;
  while (!rest.empty()) {
    const size_t bytes = std::max<size_t>(FirstCharacter(rest).bytes, 1);
    if (bytes > shown_bytes) return absl::StrCat(shown, "\"... (", value.size(), " bytes)");
    if (rest[0] == '"' || rest[0] == '\\') shown.push_back('\\');
    shown.append(CleanText(rest.substr(0, bytes)));
    shown_bytes -= bytes;
    rest.remove_prefix(bytes);
  }
  shown.push_back('"');
  return shown;
}

std::string CleanText(absl::string_view text, size_t max_bytes) {
  std::string clean;
  size_t cut = 0;  // where the result can end and leave room for kCut
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    const size_t bytes = std::max<size_t>(character.bytes, 1);
    if (character.bytes == 0) {
      absl::StrAppend(&clean, "\\x",
                      absl::Hex(static_cast<unsigned char>(text[0]), absl::kZeroPad2));
    } else if (IsShown(character.code)) {
      clean.append(text.data(), bytes);
    } else {
      clean.append(Escaped(character.code));
    }
    if (clean.size() > max_bytes) {
      clean.resize(cut);
      return clean.append(kCut.data(), std::min(kCut.size(), max_bytes));
    }
    if (clean.size() + kCut.size() <= max_bytes) cut = clean.size();
    text.remove_prefix(bytes);
  }
  return clean;
}

size_t ShownCharacters(absl::string_view clean) {
  return static_cast<size_t>(std::count_if(clean.begin(), clean.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace vmsg
