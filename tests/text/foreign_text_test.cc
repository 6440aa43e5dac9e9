// SPDX-License-Identifier: Apache-2.0
#include "text/foreign_text.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace vmsg {
namespace {

TEST(CleanTextTest, WhatCanBeSeenIsLeftAsItIs) {
  for (const char* text : {"", "g1", "type=blk,path=/srv/g 1.img", "back\\slash \"quoted\"",
                           "Gäste-Platte", "ディスク", "disk-\xf0\x9f\x92\xbe",
                           "a\xe2\x80\x8d"
                           "b"}) {
    EXPECT_EQ(CleanText(text), text);
  }
}

TEST(CleanTextTest, WhatATerminalWouldObeyIsShown) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\x1b[2J", "\\x1b[2J"},              // clears the screen
      {"a\nerror: b", "a\\nerror: b"},      // forges a line
      {"a\rb\tc", "a\\rb\\tc"},             //
      {std::string("a\0b", 3), "a\\x00b"},  //
      {"\x7f", "\\x7f"},                    //
      {"\x9b"
       "2J",
       "\\x9b2J"},  // CSI, as a byte
      {"\xc2\x9b"
       "2J",
       "\\u009b2J"},                                     // CSI, encoded
      {"\xc2\x85", "\\u0085"},                           // next line
      {"\xe2\x80\xa8", "\\u2028"},                       // line separator
      {"g1\xe2\x80\xaegmi.", "g1\\u202egmi."},           // right-to-left override
      {"\xe2\x81\xa6x\xe2\x81\xa9", "\\u2066x\\u2069"},  // isolates
      {"\xd8\x9c\xe2\x80\x8f", "\\u061c\\u200f"},        // marks
      {"g\xe2\x80\x8b"
       "1",
       "g\\u200b1"},                        // zero width space
      {"\xef\xbb\xbfg1", "\\ufeffg1"},      // byte order mark
      {"\xf3\xa0\x80\x81", "\\U000e0001"},  // a tag
      {"\xef\xbf\xbf", "\\uffff"},          // no character
  };
  for (const auto& [text, clean] : cases) EXPECT_EQ(CleanText(text), clean);
}

TEST(CleanTextTest, BytesThatAreNoUtf8AreShownOneByOne) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xff\xfe", "\\xff\\xfe"},
      {"a\xc3", "a\\xc3"},  // cut off
      {"\xe2\x82"
       "a",
       "\\xe2\\x82"
       "a"},                                // cut off in the middle
      {"\xc0\x9b", "\\xc0\\x9b"},           // an overlong ESC-like form
      {"\xe0\x80\x9b", "\\xe0\\x80\\x9b"},  //
      {"\xf0\x80\x80\x9b", "\\xf0\\x80\\x80\\x9b"},
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"},           // a surrogate
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // above U+10FFFF
      {"\xf5\x80\x80\x80", "\\xf5\\x80\\x80\\x80"},
  };
  for (const auto& [text, clean] : cases) EXPECT_EQ(CleanText(text), clean);
}

TEST(CleanTextTest, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(CleanText("abcdef", 6), "abcdef");
  EXPECT_EQ(CleanText("abcdefg", 6), "abc...");
  EXPECT_EQ(CleanText("ab\xc3\xa4xyz", 6), "ab...");  // no half of the umlaut
  EXPECT_EQ(CleanText("ab\x1b\x1b", 8), "ab...");     // no half of an escape
  EXPECT_EQ(CleanText("abcdef", 2), "..");
  EXPECT_EQ(CleanText(std::string(1 << 20, 'x'), 100).size(), 100u);
}

TEST(CleanTextTest, CleanTextIsItsOwnCleanForm) {
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string text(random() % 12, '\0');
    for (char& c : text) c = static_cast<char>(random());
    const std::string clean = CleanText(text);
    EXPECT_EQ(CleanText(clean), clean);
    EXPECT_EQ(clean.find_first_of("\x1b\n\r\x7f"), std::string::npos);
    EXPECT_LE(CleanText(text, 10).size(), 10u);
  }
}

TEST(ShownCharactersTest, CountsCharactersNotBytes) {
  EXPECT_EQ(ShownCharacters(""), 0u);
  EXPECT_EQ(ShownCharacters("g1"), 2u);
  EXPECT_EQ(ShownCharacters("Gäste"), 5u);
}

}  // namespace
}  // namespace vmsg
