// SPDX-License-Identifier: Apache-2.0
// Images that somebody else has, or that may not be written. Loop devices and mounts are this
// machine's: where there are none, those tests are skipped and say so.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "backend/devices/device.h"
#include "tests/devices/blk/loop_disk.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Keys = absl::btree_map<std::string, std::string>;

constexpr size_t kBytes = 4 << 20;

// "" when it is attached.
std::string Refused(const absl::StatusOr<backend::OpenedDevice>& opened) {
  return opened.ok() ? "" : std::string(opened.status().message());
}
absl::StatusOr<backend::OpenedDevice> Attach(const std::string& path, bool read_only = false) {
  return backend::OpenDevice(
      {.type = "blk", .keys = {{"path", path}, {"readonly", read_only ? "1" : "0"}}});
}
std::string AttachRefusal(const std::string& path, bool read_only = false) {
  return Refused(Attach(path, read_only));
}

class BlkInUseTest : public ::testing::Test {
 protected:
  BlkInUseTest() : image_(dir_.File("image", kBytes)) {}
  TempDir dir_;
  const std::string image_;
};

TEST_F(BlkInUseTest, AFileThatNobodyMayWrite) {
  ASSERT_EQ(chmod(image_.c_str(), 0400), 0);
  EXPECT_THAT(AttachRefusal(image_), HasSubstr("readonly=1"))
      << "root may write it, but is not meant to";
  EXPECT_EQ(AttachRefusal(image_, /*read_only=*/true), "");
  ASSERT_EQ(chmod(image_.c_str(), 0600), 0);
  EXPECT_EQ(AttachRefusal(image_), "");
}

// QEMU's programs lock single bytes: 100 and on for what they do, 200 and on for what they let
// nobody else do (its block/file-posix.c).
class BlkQemuTest : public BlkInUseTest {
 protected:
  void QemuLocks(std::initializer_list<off_t> bytes) {
    qemu_ = backend::UniqueFd(open(image_.c_str(), O_RDWR | O_CLOEXEC));
    for (const off_t byte : bytes) {
      struct flock lock = {};
      lock.l_type = F_RDLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = byte;
      lock.l_len = 1;
      ASSERT_EQ(fcntl(qemu_.get(), F_OFD_SETLK, &lock), 0);
    }
  }
  // Whether QEMU, which has taken its own bytes, finds this one free of others'.
  bool QemuFindsFree(off_t byte) {
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return fcntl(qemu_.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
  }
  backend::UniqueFd qemu_;
};

TEST_F(BlkQemuTest, AWriterThatSharesReadingKeepsReadersOut) {
  QemuLocks({100, 101});
  EXPECT_THAT(AttachRefusal(image_, true), HasSubstr("is in use"));
  EXPECT_THAT(AttachRefusal(image_), HasSubstr("is in use"));
}

TEST_F(BlkQemuTest, OneThatResizesOrForbidsReadingKeepsReadersOut) {
  QemuLocks({103});
  EXPECT_THAT(AttachRefusal(image_, true), HasSubstr("is in use"));
  QemuLocks({200});
  EXPECT_THAT(AttachRefusal(image_, true), HasSubstr("is in use"));
}

TEST_F(BlkQemuTest, ReadersOfBothReadTogether) {
  // qemu-nbd --read-only: reads, and lets nobody write or resize.
  QemuLocks({100, 201, 203});
  const auto attached = Attach(image_, true);
  EXPECT_EQ(Refused(attached), "");
  EXPECT_TRUE(QemuFindsFree(200)) << "we let it read";
  EXPECT_TRUE(QemuFindsFree(101) && QemuFindsFree(103)) << "and do not write";
  EXPECT_THAT(AttachRefusal(image_), HasSubstr("is in use"));
}

TEST_F(BlkQemuTest, AReaderHereKeepsItsWritersOutAndAWriterEverybody) {
  QemuLocks({});
  {
    const auto attached = Attach(image_, true);
    ASSERT_EQ(Refused(attached), "");
    EXPECT_FALSE(QemuFindsFree(201)) << "it must not write";
    EXPECT_FALSE(QemuFindsFree(203)) << "it must not resize";
  }
  const auto attached = Attach(image_);
  ASSERT_EQ(Refused(attached), "");
  for (const off_t byte : {100, 101, 103, 200, 201, 203}) EXPECT_FALSE(QemuFindsFree(byte)) << byte;
}

class BlkLoopTest : public BlkInUseTest {
 protected:
  // False, with a skip that says why: there are no loop devices here.
  bool Loop(bool read_only = false) {
    loop_.emplace(image_, read_only);
    if (loop_->why_not.empty()) return true;
    [&] { GTEST_SKIP() << loop_->why_not; }();
    return false;
  }
  bool Mount(unsigned long flags) {
    mounted_ = dir_ / "mounted";
    std::filesystem::create_directory(mounted_);
    const std::string make =
        "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F " + loop_->path() + " >/dev/null 2>&1";
    if (!(std::system(make.c_str()) == 0 &&
          mount(loop_->path().c_str(), mounted_.c_str(), "ext4", flags, nullptr) == 0)) {
      mounted_.clear();
      [&] { GTEST_SKIP() << "no file system can be mounted here"; }();
      return false;
    }
    return true;
  }
  void Unmount() {
    if (!mounted_.empty()) umount(mounted_.c_str());
    mounted_.clear();
  }
  ~BlkLoopTest() override { Unmount(); }

  std::optional<LoopDisk> loop_;
  std::string mounted_;
};

TEST_F(BlkLoopTest, TheFileOfALoopDevice) {
  if (!Loop()) return;
  EXPECT_THAT(AttachRefusal(image_),
              AllOf(HasSubstr("path=\"" + image_), HasSubstr("is the file of " + loop_->path())));
  EXPECT_THAT(AttachRefusal(image_, true), HasSubstr(loop_->path())) << "it may be written";
  std::filesystem::create_hard_link(image_, dir_ / "other");
  EXPECT_THAT(AttachRefusal(dir_ / "other"), HasSubstr(loop_->path())) << "by another path";
  loop_.reset();
  EXPECT_EQ(AttachRefusal(image_), "");
}

TEST_F(BlkLoopTest, AReadOnlyLoopDevice) {
  if (!Loop(/*read_only=*/true)) return;
  EXPECT_THAT(AttachRefusal(loop_->path()), HasSubstr("read"));
  const auto reader = Attach(loop_->path(), true);
  EXPECT_EQ(Refused(reader), "");
  EXPECT_EQ(AttachRefusal(image_, true), "") << "and another reads its file";
  EXPECT_THAT(AttachRefusal(image_), HasSubstr("in use"));
}

TEST_F(BlkLoopTest, AMountedDisk) {
  if (!Loop() || !Mount(0)) return;
  EXPECT_THAT(AttachRefusal(loop_->path()), HasSubstr("is mounted at " + mounted_));
  EXPECT_THAT(AttachRefusal(loop_->path(), true),
              AllOf(HasSubstr("is mounted at " + mounted_), HasSubstr("cannot be read here")));
  EXPECT_THAT(AttachRefusal(image_), HasSubstr(loop_->path()));
  Unmount();
  EXPECT_EQ(AttachRefusal(loop_->path(), true), "");
  EXPECT_EQ(AttachRefusal(loop_->path()), "");
}

TEST_F(BlkLoopTest, ADiskThatIsMountedForReadingMayBeReadHere) {
  if (!Loop() || !Mount(MS_RDONLY)) return;
  EXPECT_EQ(AttachRefusal(loop_->path(), true), "");
  EXPECT_THAT(AttachRefusal(loop_->path()), HasSubstr("is mounted at"));
}

TEST_F(BlkLoopTest, ADiskThatAnotherProgramHasClaimed) {
  if (!Loop()) return;
  const backend::UniqueFd program(open(loop_->path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  ASSERT_TRUE(program);
  EXPECT_THAT(AttachRefusal(loop_->path()), HasSubstr("claimed by another program"));
  EXPECT_THAT(AttachRefusal(loop_->path(), true), HasSubstr("claimed by another program"));
}

TEST_F(BlkLoopTest, AFileAndItsLoopDeviceAreOneDisk) {
  if (!Loop()) return;
  for (const bool read_only : {false, true}) {
    const auto attached = Attach(loop_->path(), read_only);
    ASSERT_EQ(Refused(attached), "");
    EXPECT_THAT(AttachRefusal(loop_->path()), HasSubstr("in use")) << "itself again";
    EXPECT_NE(AttachRefusal(image_), "");
    // Whoever has the file under another loop device, too.
    LoopDisk second(image_, /*read_only=*/true);
    ASSERT_EQ(second.why_not, "");
    EXPECT_NE(AttachRefusal(second.path(), true), "");
  }
  loop_.reset();
  const auto attached = Attach(image_);
  ASSERT_EQ(Refused(attached), "");
  if (!Loop()) return;
  EXPECT_THAT(AttachRefusal(loop_->path()),
              AllOf(HasSubstr("is the loop device of " + image_), HasSubstr("in use")));
}

}  // namespace
}  // namespace vmsg::testing
