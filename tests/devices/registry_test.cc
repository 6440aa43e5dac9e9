// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/devices/device.h"

namespace vmsg::backend {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Refusal(DeviceEntry entry) {
  auto opened = OpenDevice(entry);
  if (opened.ok()) return "not refused";
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(opened.status().message());
}

TEST(RegistryTest, KnowsItsTypes) {
  std::vector<std::string> names;
  for (const DeviceType& type : DeviceTypes()) names.emplace_back(type.name);
  EXPECT_THAT(names, ::testing::ElementsAre("blk", "console", "rng"));
}

TEST(RegistryTest, AnUnknownTypeIsRefusedWithThoseKnown) {
  EXPECT_THAT(Refusal({.type = "floppy"}),
              AllOf(HasSubstr("type=\"floppy\""), HasSubstr("blk, console, rng")));
  EXPECT_THAT(Refusal({.type = ""}), HasSubstr("type=\"\""));
}

TEST(RegistryTest, AnUnknownKeyIsRefusedWithThoseKnown) {
  EXPECT_THAT(Refusal({.type = "blk", .keys = {{"path", "/x"}, {"pth", "/y"}}}),
              AllOf(HasSubstr("pth=\"/y\""), HasSubstr("cache, direct, format, path")));
  EXPECT_THAT(Refusal({.type = "rng", .keys = {{"source", "/dev/random"}}}),
              HasSubstr("takes none"));
}

TEST(RegistryTest, ValuesAreShownEscapedAndShortened) {
  EXPECT_THAT(Refusal({.type = "blk", .keys = {{"path", "a\nb"}}}), HasSubstr("a\\nb"));
  EXPECT_LT(Refusal({.type = "blk", .keys = {{"path", std::string(3000, 'a')}}}).size(), 300u);
}

TEST(RegistryTest, NumberAndTypeAreKept) {
  auto opened = OpenDevice({.number = 42, .type = "rng"});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->number, 42);
  EXPECT_EQ(opened->type, "rng");
}

TEST(RegistryTest, ADeviceNeedsWhatItsTypeOpened) {
  EXPECT_FALSE(CreateDevice({.type = "floppy"}, {}).ok());
  EXPECT_EQ(CreateDevice({.type = "blk"}, {}).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(CreateDevice({.type = "console"}, {}).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace vmsg::backend
