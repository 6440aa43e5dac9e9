// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/device_entry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace vmsg::xenstore {
namespace {

using ::testing::HasSubstr;

TEST(DeviceEntry, TypeNumberBusAndTheTypesOwnKeys) {
  absl::StatusOr<DeviceEntry> entry =
      ParseDeviceEntry("type=blk,path=/srv/g1.img,readonly=1,num=7,bus=2");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(*entry, (DeviceEntry{7, 2, "blk", {{"path", "/srv/g1.img"}, {"readonly", "1"}}}));
}

TEST(DeviceEntry, NumberAndBusMayBeAbsentAndOrderIsFree) {
  absl::StatusOr<DeviceEntry> entry = ParseDeviceEntry("path=/a=b, type=blk");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(*entry, (DeviceEntry{std::nullopt, 0, "blk", {{"path", "/a=b"}}}));
}

TEST(DeviceEntry, BlanksAroundKeysAndValuesAreIgnored) {
  absl::StatusOr<DeviceEntry> entry = ParseDeviceEntry(" type = rng , bus = 1 ");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(*entry, (DeviceEntry{std::nullopt, 1, "rng", {}}));
}

struct Malformed {
  const char* name;
  std::string text;
  const char* key;     // must be named
  const char* reason;  // must be given
};
class DeviceEntryRefuses : public testing::TestWithParam<Malformed> {};
TEST_P(DeviceEntryRefuses, WithKeyAndReason) {
  absl::StatusOr<DeviceEntry> entry = ParseDeviceEntry(GetParam().text);
  ASSERT_TRUE(absl::IsInvalidArgument(entry.status())) << entry.status();
  EXPECT_THAT(entry.status().message(), HasSubstr(GetParam().key));
  EXPECT_THAT(entry.status().message(), HasSubstr(GetParam().reason));
  for (const char c : entry.status().message()) EXPECT_TRUE(c >= ' ' && c <= '~');
}

std::string ManyKeys() {
  std::string text = "type=x";
  for (int i = 0; i < 33; ++i) absl::StrAppend(&text, ",k", i, "=v");
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    Entries, DeviceEntryRefuses,
    testing::Values(
        Malformed{"Empty", "", "", "entry is empty"},
        Malformed{"Blank", "  ", "", "entry is empty"},
        Malformed{"NoType", "path=/a", "key \"type\"", "missing"},
        Malformed{"DuplicateType", "type=a,type=b", "key \"type\"", "given twice"},
        Malformed{"DuplicateKey", "type=a,path=/a,path=/b", "key \"path\"", "given twice"},
        Malformed{"DuplicateNumber", "type=a,num=1,num=1", "key \"num\"", "given twice"},
        Malformed{"DuplicateBus", "type=a,bus=0,bus=0", "key \"bus\"", "given twice"},
        Malformed{"KeyWithoutValue", "type=blk,readonly", "key \"readonly\"", "no value"},
        Malformed{"EmptyValue", "type=blk,path=", "key \"path\"", "value is empty"},
        Malformed{"EmptyType", "type=,path=/a", "key \"type\"", "value is empty"},
        Malformed{"ValueWithoutKey", "type=blk,=/a", "\"/a\"", "no key"},
        Malformed{"CommaTooMany", "type=blk,,path=/a", "", "comma too many"},
        Malformed{"TrailingComma", "type=blk,", "", "comma too many"},
        Malformed{"NumberNegative", "type=blk,num=-1", "key \"num\"", "0 to 65535"},
        Malformed{"NumberTooLarge", "type=blk,num=65536", "key \"num\"", "above the limit"},
        Malformed{"NumberGarbage", "type=blk,num=one", "key \"num\"", "not a number"},
        Malformed{"BusTooLarge", "type=blk,bus=4294967296", "key \"bus\"", "above the limit"},
        Malformed{"ControlCharacter", "type=blk,path=/a\n", "\\n", "control character"},
        Malformed{"NulInside", std::string("type=blk\0,path=/a", 17), "\\x00", "control character"},
        Malformed{"KeyWithSlash", "type=blk,a/b=1", "key \"a/b\"", "may form a key"},
        Malformed{"KeyOverLong", "type=blk," + std::string(33, 'k') + "=1", "kkkk",
                  "longer than 32"},
        Malformed{"EntryOverLong", "type=blk,path=" + std::string(2040, 'a'), "", "limit of 2048"},
        Malformed{"TooManyKeys", ManyKeys(), "key \"k", "at most 32 keys"},
        Malformed{"ReservedOnline", "type=blk,online=0", "key \"online\"", "reserved"},
        Malformed{"ReservedForce", "type=blk,force=1", "key \"force\"", "reserved"},
        Malformed{"ReservedStatus", "type=blk,hotplug-status=x", "key \"hotplug-status\"",
                  "reserved"},
        Malformed{"ReservedError", "type=blk,hotplug-error=x", "key \"hotplug-error\"",
                  "reserved"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace vmsg::xenstore
