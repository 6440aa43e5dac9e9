// SPDX-License-Identifier: Apache-2.0
// What is read of the kernel's tables, from tables of the test's.
#include "backend/devices/blk/opening/kernel_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class KernelViewTest : public ::testing::Test {
 protected:
  KernelViewTest() : view_({.sys = dir_ / "sys", .proc = dir_ / "proc", .dev = dir_ / "dev"}) {
    Write("proc/self/mountinfo", "");
    Write("proc/swaps", "Filename Type Size Used Priority\n");
    std::filesystem::create_directories(dir_ / "sys/dev/block");
    std::filesystem::create_directories(dir_ / "sys/block");
  }
  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(dir_ / name).parent_path());
    std::ofstream(dir_ / name) << text;
  }
  // A disk of the kernel's, below sys/devices.
  void Disk(const std::string& name, const std::string& number) {
    const std::string folder = "sys/devices/" + name;
    Write(folder + "/dev", number + "\n");
    Write(folder + "/ro", "0\n");
    std::filesystem::create_directory_symlink("../../devices/" + name,
                                              dir_ / ("sys/dev/block/" + number));
    if (name.find('/') == std::string::npos) {
      std::filesystem::create_directory_symlink("../devices/" + name, dir_ / ("sys/block/" + name));
    } else {
      Write(folder + "/partition", "1\n");
    }
  }
  void Holder(const std::string& disk, const std::string& holder) {
    for (const auto& [from, part, to] :
         {std::tuple(disk, "holders", holder), std::tuple(holder, "slaves", disk)}) {
      std::filesystem::create_directories(dir_ / ("sys/devices/" + from + "/" + part));
      const std::string name = std::filesystem::path(to).filename();
      std::filesystem::create_directory_symlink(
          dir_ / ("sys/devices/" + to), dir_ / ("sys/devices/" + from + "/" + part + "/" + name));
    }
  }
  std::vector<std::string> Uses(dev_t disk, bool writers_only = false) {
    auto uses = view_.UsesOf({disk});
    EXPECT_TRUE(uses.ok()) << uses.status();
    std::vector<std::string> texts;
    for (const backend::DiskUse& use : *uses) {
      if (use.writes || !writers_only) texts.push_back(use.what);
    }
    return texts;
  }

  TempDir dir_;
  backend::KernelView view_;
};

TEST_F(KernelViewTest, PartitionsAndTheirDisk) {
  Disk("sda", "8:0");
  Disk("sda/sda1", "8:1");
  Disk("sda/sda2", "8:2");
  EXPECT_THAT(view_.Relatives(makedev(8, 0)), UnorderedElementsAre(makedev(8, 1), makedev(8, 2)));
  EXPECT_THAT(view_.Relatives(makedev(8, 1)), ElementsAre(makedev(8, 0)));
  EXPECT_THAT(view_.Below(makedev(8, 1)), ElementsAre(makedev(8, 0)));
  EXPECT_THAT(view_.Below(makedev(8, 0)), IsEmpty());
  EXPECT_EQ(view_.WholeDisk(makedev(8, 2)), makedev(8, 0));
  EXPECT_EQ(view_.WholeDisk(makedev(8, 0)), makedev(8, 0));
  EXPECT_EQ(view_.Name(makedev(8, 2)), "sda2");
  EXPECT_EQ(view_.Name(makedev(9, 9)), "9:9");
}

TEST_F(KernelViewTest, MappingsAreHoldersAndWhatTheyAreMadeOfIsBelow) {
  Disk("sda", "8:0");
  Disk("sda/sda1", "8:1");
  Disk("dm-0", "254:0");
  Write("sys/devices/dm-0/dm/name", "vg-root\n");
  Holder("sda/sda1", "dm-0");
  EXPECT_THAT(Uses(makedev(8, 1)), ElementsAre("is part of dm-0 (vg-root)"));
  EXPECT_THAT(view_.Below(makedev(254, 0)), ElementsAre(makedev(8, 1), makedev(8, 0)));
  Write("sys/devices/dm-0/ro", "1\n");
  EXPECT_THAT(Uses(makedev(8, 1), /*writers_only=*/true), IsEmpty());
}

TEST_F(KernelViewTest, Mounts) {
  Write("proc/self/mountinfo",
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "22 21 8:2 / /srv/a\\040b ro shared:2 master:1 - ext4 /dev/sda2 rw,errors=continue\n"
        "23 21 8:3 / /cd rw - iso9660 /dev/sr0 ro,nojoliet\n"
        "no mount\n24 1 8:4 / /x\n");
  EXPECT_THAT(Uses(makedev(8, 1)), ElementsAre("is mounted at /"));
  // Read-only there, but the file system may be written by another mount.
  EXPECT_THAT(Uses(makedev(8, 2), true), ElementsAre("is mounted at /srv/a b"));
  EXPECT_THAT(Uses(makedev(8, 3)), ElementsAre("is mounted at /cd"));
  EXPECT_THAT(Uses(makedev(8, 3), true), IsEmpty());
  EXPECT_THAT(Uses(makedev(8, 4)), IsEmpty());
}

TEST_F(KernelViewTest, DisksOfXensOwnBackend) {
  for (const auto& [name, device, mode] :
       {std::tuple("vbd-3-51712", "fd:a", "w"), std::tuple("vbd-4-51712", "fd:b", "r"),
        std::tuple("vif-3-0", "fd:a", "w")}) {
    Write(std::string("sys/bus/xen-backend/devices/") + name + "/physical_device",
          std::string(device) + "\n");
    Write(std::string("sys/bus/xen-backend/devices/") + name + "/mode", std::string(mode) + "\n");
  }
  EXPECT_THAT(Uses(makedev(253, 10)), ElementsAre(HasSubstr("vbd-3-51712 of a guest")));
  EXPECT_THAT(Uses(makedev(253, 10), true), ElementsAre(HasSubstr("vbd-3-51712"))) << "it writes";
  EXPECT_THAT(Uses(makedev(253, 11)), ElementsAre(HasSubstr("vbd-4-51712")));
  EXPECT_THAT(Uses(makedev(253, 11), true), IsEmpty());
  EXPECT_THAT(Uses(makedev(253, 12)), IsEmpty());
}

TEST_F(KernelViewTest, FilesThatAreSwappedTo) {
  const std::string file = dir_.File("swap file", 1);
  std::string escaped = file;
  escaped.replace(escaped.find(' '), 1, "\\040");
  Write("proc/swaps", "Filename Type Size Used Priority\n" + escaped + " file 1 0 -2\n");
  struct stat swap = {};
  struct stat other = {};
  ASSERT_EQ(stat(file.c_str(), &swap) + stat(dir_.File("other", 1).c_str(), &other), 0);
  EXPECT_TRUE(view_.IsSwap(swap).value());
  EXPECT_FALSE(view_.IsSwap(other).value());
}

TEST_F(KernelViewTest, LoopDevicesOfAFileByWhateverPath) {
  const std::string file = dir_.File("image", 1);
  ASSERT_EQ(symlink(file.c_str(), (dir_ / "other-name").c_str()), 0);
  Disk("loop0", "7:0");
  Disk("loop1", "7:1");
  Disk("loop2", "7:2");
  Write("sys/devices/loop1/loop/backing_file", (dir_ / "other-name") + "\n");
  Write("sys/devices/loop1/ro", "1\n");
  Write("sys/devices/loop2/loop/backing_file", dir_.File("another", 1) + "\n");
  struct stat there = {};
  ASSERT_EQ(stat(file.c_str(), &there), 0);
  auto loops = view_.LoopsOn(there);
  ASSERT_TRUE(loops.ok()) << loops.status();
  ASSERT_EQ(loops->size(), 1u);
  EXPECT_EQ(loops->at(0).name, "loop1");
  EXPECT_TRUE(loops->at(0).read_only);
  EXPECT_EQ(view_.LoopFile(makedev(7, 0)), "");
}

// To ask about it would wait for its server, as long as that is gone.
TEST_F(KernelViewTest, ALoopDeviceOnAnotherServersFileIsNotAsked) {
  const std::string file = dir_.File("image", 1);
  std::filesystem::create_directories(dir_ / "net");
  std::filesystem::create_hard_link(file, dir_ / "net/image");
  Disk("loop1", "7:1");
  Write("sys/devices/loop1/loop/backing_file", (dir_ / "net/image") + "\n");
  struct stat there = {};
  ASSERT_EQ(stat(file.c_str(), &there), 0);
  const std::string number =
      std::to_string(major(there.st_dev)) + ":" + std::to_string(minor(there.st_dev));
  const auto found = [&](const std::string& device, const std::string& type) {
    Write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 " + device + " / " +
                                     (dir_ / "net") + " rw - " + type + " server:/x rw\n");
    return view_.LoopsOn(there)->size();
  };
  EXPECT_EQ(found("0:99", "nfs4"), 0u);
  EXPECT_EQ(found("0:99", "btrfs"), 1u) << "the number of a btrfs file system is not its files'";
  EXPECT_EQ(found(number, "nfs4"), 1u) << "the file's own server";
}

TEST_F(KernelViewTest, AKernelThatShowsNothing) {
  const backend::KernelView nothing({.sys = "/none", .proc = "/none", .dev = "/none"});
  EXPECT_THAT(nothing.Relatives(makedev(8, 0)), IsEmpty());
  EXPECT_THAT(nothing.Below(makedev(8, 0)), IsEmpty());
  EXPECT_TRUE(nothing.UsesOf({makedev(8, 0)}).value().empty());
  EXPECT_TRUE(nothing.LoopsOn({}).value().empty());
}

}  // namespace
}  // namespace vmsg::testing
