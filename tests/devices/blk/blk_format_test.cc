// SPDX-License-Identifier: Apache-2.0
// Images that are containers of a disk, and raw disks that only look like one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "backend/devices/blk/image.h"
#include "backend/devices/device.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using namespace std::string_literals;
using Keys = absl::btree_map<std::string, std::string>;

constexpr size_t kSize = 1 << 20;

struct Container {
  const char* name;
  std::string bytes;
  size_t at;
};

class BlkFormatTest : public ::testing::TestWithParam<Container> {
 protected:
  std::string Image(size_t size = kSize) {
    std::string content(size, '\0');
    content.replace(GetParam().at, GetParam().bytes.size(), GetParam().bytes);
    std::ofstream(dir_ / "image", std::ios::binary) << content;
    return dir_ / "image";
  }
  static absl::Status Open(Keys keys) {
    return backend::OpenDevice({.type = "blk", .keys = std::move(keys)}).status();
  }
  TempDir dir_;
};

TEST_P(BlkFormatTest, IsRefusedByNameUnlessTheEntrySaysRaw) {
  const std::string path = Image();
  const std::string refusal(Open({{"path", path}}).message());
  EXPECT_THAT(refusal, AllOf(HasSubstr("path=\"" + path), HasSubstr(GetParam().name),
                             HasSubstr("format=raw")));
  EXPECT_EQ(Open({{"path", path}, {"readonly", "1"}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Open({{"path", path}, {"format", "raw"}}).ok());
}

// To cut or fill it up would damage it.
TEST_P(BlkFormatTest, IsNotAdvisedToBeCut) {
  if (GetParam().at > 512) GTEST_SKIP() << "known by its end";
  EXPECT_THAT(std::string(Open({{"path", Image(kSize + 100)}}).message()),
              AllOf(HasSubstr(GetParam().name), Not(HasSubstr("truncate"))));
}

INSTANTIATE_TEST_SUITE_P(
    Containers, BlkFormatTest,
    ::testing::Values(
        Container{"qcow2", "QFI\xfb\0\0\0\3"s, 0}, Container{"QED", "QED\0"s, 0},
        Container{"VMDK", "KDMV\1\0\0\0"s, 0}, Container{"VMDK", "COWD"s, 0},
        Container{"VMDK", "# Disk DescriptorFile\n"s, 0}, Container{"VHD", "conectix"s, 0},
        Container{"VHD", "conectix"s, kSize - 512}, Container{"VHD", "conectix"s, kSize - 511},
        Container{"VHDX", "vhdxfile"s, 0}, Container{"VDI", "\x7f\x10\xda\xbe"s, 0x40},
        Container{"Parallels", "WithoutFreeSpace"s, 0}, Container{"LUKS", "LUKS\xba\xbe\0\2"s, 0},
        Container{"gzip", "\x1f\x8b\x08\0"s, 0}, Container{"xz", "\xfd"s + "7zXZ\0"s, 0}));

TEST(BlkRawTest, ARawDiskIsOneWhateverElseIsInIt) {
  TempDir dir;
  std::string content(kSize, '\0');
  content.replace(4096, 4, "QFI\xfb");
  content.replace(510, 2, "\x55\xaa");
  std::ofstream(dir / "image", std::ios::binary) << content;
  auto opened = backend::OpenDevice({.type = "blk", .keys = {{"path", dir / "image"}}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->found_keys["format"], "raw") << "for when the guest has written something else";
}

TEST(BlkRawTest, TheSmallestDisk) {
  TempDir dir;
  EXPECT_TRUE(backend::OpenDevice({.type = "blk", .keys = {{"path", dir.File("x", 512)}}}).ok());
}

TEST(BlkRawTest, NoOtherFormatIsServed) {
  TempDir dir;
  const auto refused = backend::OpenDevice(
      {.type = "blk", .keys = {{"path", dir.File("x", 512)}, {"format", "qcow2"}}});
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("format=\"qcow2\": must be raw"), HasSubstr("converted first")));
}

}  // namespace
}  // namespace vmsg::testing
