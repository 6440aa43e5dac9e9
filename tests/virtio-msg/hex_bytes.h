// SPDX-License-Identifier: Apache-2.0
// Bytes written as hex in tests, and back.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace vmsg::wire {

// "0005 0100" with any spaces; only for literals in tests.
inline std::vector<std::byte> Hex(const std::string& text) {
  std::vector<std::byte> bytes;
  std::string digits;
  for (const char c : text) {
    if (c == ' ') continue;
    digits += c;
    if (digits.size() == 2) {
      bytes.push_back(static_cast<std::byte>(std::stoul(digits, nullptr, 16)));
      digits.clear();
    }
  }
  return bytes;
}

inline std::string ToHex(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 0xf];
  }
  return text;
}

}  // namespace vmsg::wire
