// SPDX-License-Identifier: Apache-2.0
#include "xenstore/text_value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace vmsg::xenstore {
namespace {

using ::testing::HasSubstr;

std::string Refusal(absl::string_view text, uint64_t min = 1, uint64_t max = 100) {
  absl::StatusOr<uint64_t> value = ParseDecimal(text, "node", min, max);
  EXPECT_FALSE(value.ok()) << *value;
  EXPECT_TRUE(absl::IsInvalidArgument(value.status()));
  // Whatever the value was, the message is one printable line of bounded length.
  for (const char c : value.status().message()) EXPECT_TRUE(c >= ' ' && c <= '~');
  EXPECT_LT(value.status().message().size(), 400u);
  return std::string(value.status().message());
}

TEST(ParseDecimal, TakesEveryValueWithinTheLimits) {
  EXPECT_EQ(*ParseDecimal("1", "node", 1, 100), 1u);
  EXPECT_EQ(*ParseDecimal("100", "node", 1, 100), 100u);
  EXPECT_EQ(*ParseDecimal("0", "node", 0, 100), 0u);
  EXPECT_EQ(*ParseDecimal("18446744073709551615", "node", 0, std::numeric_limits<uint64_t>::max()),
            std::numeric_limits<uint64_t>::max());
}

TEST(ParseDecimal, RefusesEmpty) { EXPECT_THAT(Refusal(""), HasSubstr("empty")); }
TEST(ParseDecimal, RefusesMinus) { EXPECT_THAT(Refusal("-1"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesPlus) { EXPECT_THAT(Refusal("+1"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesBlankBefore) { EXPECT_THAT(Refusal(" 1"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesBlankBehind) { EXPECT_THAT(Refusal("1 "), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesNewline) { EXPECT_THAT(Refusal("1\n"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesTrailingText) { EXPECT_THAT(Refusal("1x"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesHexadecimal) { EXPECT_THAT(Refusal("0x1"), HasSubstr("not a number")); }
TEST(ParseDecimal, RefusesNulInside) {
  EXPECT_THAT(Refusal(absl::string_view("1\0", 2)), HasSubstr("\\x00"));
  EXPECT_THAT(Refusal(absl::string_view("\0", 1)), HasSubstr("not a number"));
}
TEST(ParseDecimal, RefusesLeadingZero) { EXPECT_THAT(Refusal("01"), HasSubstr("leading zero")); }
TEST(ParseDecimal, RefusesBelow) {
  EXPECT_THAT(Refusal("7", 8, 9), HasSubstr("below the limit; expected a decimal number from 8"));
}
TEST(ParseDecimal, RefusesAbove) {
  EXPECT_THAT(Refusal("101"),
              HasSubstr("above the limit; expected a decimal number from 1 to 100"));
}
TEST(ParseDecimal, RefusesWhatOverflows) {
  EXPECT_THAT(Refusal("18446744073709551616", 0, std::numeric_limits<uint64_t>::max()),
              HasSubstr("above"));
  EXPECT_THAT(Refusal("18446744073709551617"), HasSubstr("above"));  // 1 modulo 2^64
}
TEST(ParseDecimal, RefusesFourKibibytesOfDigits) {
  EXPECT_THAT(Refusal(std::string(4096, '1')), HasSubstr("(4096 bytes)"));
}
TEST(ParseDecimal, NamesTheNode) { EXPECT_THAT(Refusal("x"), HasSubstr("node is \"x\"")); }

}  // namespace
}  // namespace vmsg::xenstore
