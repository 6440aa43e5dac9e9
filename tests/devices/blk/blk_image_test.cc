// SPDX-License-Identifier: Apache-2.0
// The block device on real files with io_uring, and what opening them refuses.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "backend/devices/async_file_io.h"
#include "backend/devices/blk/image.h"
#include "tests/devices/blk/loop_disk.h"
#include "tests/devices/device_rig.h"
#include "tests/devices/manual_loop.h"
#include "tests/devices/temp_dir.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Keys = absl::btree_map<std::string, std::string>;

absl::StatusOr<backend::OpenedDevice> Open(Keys keys) {
  return backend::OpenDevice({.number = 1, .type = "blk", .keys = std::move(keys)});
}

std::string ImageRefusal(Keys keys) {
  auto opened = Open(std::move(keys));
  if (opened.ok()) return "not refused";
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(opened.status().message());
}

class BlkOpenTest : public ::testing::Test {
 protected:
  TempDir dir_;
};

TEST_F(BlkOpenTest, PathIsRequiredAndAbsolute) {
  EXPECT_THAT(ImageRefusal({}), AllOf(HasSubstr("path=\"\""), HasSubstr("required")));
  EXPECT_THAT(ImageRefusal({{"path", "disk.img"}}),
              AllOf(HasSubstr("path=\"disk.img\""), HasSubstr("absolute")));
  EXPECT_THAT(ImageRefusal({{"path", std::string("/a\0b", 4)}}), HasSubstr("NUL"));
  EXPECT_THAT(ImageRefusal({{"path", "/" + std::string(5000, 'a')}}), HasSubstr("longer than"));
}

TEST_F(BlkOpenTest, MissingFile) {
  EXPECT_THAT(ImageRefusal({{"path", dir_ / "none"}}),
              AllOf(HasSubstr(dir_ / "none"), HasSubstr("No such file")));
}

// A user may own the directory and exchange the image for a link at any time.
TEST_F(BlkOpenTest, AUsersLinkToAFileOfRoots) {
  const std::string secret = dir_.File("secret", 4096);
  ASSERT_EQ(symlink(secret.c_str(), (dir_ / "g1.img").c_str()), 0);
  EXPECT_TRUE(Open({{"path", dir_ / "g1.img"}}).ok()) << "its maker owns both";
  if (lchown((dir_ / "g1.img").c_str(), 4001, 4001) != 0) GTEST_SKIP() << "needs root";
  EXPECT_THAT(
      ImageRefusal({{"path", dir_ / "g1.img"}}),
      AllOf(HasSubstr("path=\"" + (dir_ / "g1.img")), HasSubstr("symbolic link of user 4001")));
  ASSERT_EQ(chown(secret.c_str(), 4001, 4001), 0);
  EXPECT_TRUE(Open({{"path", dir_ / "g1.img"}}).ok()) << "that user's own file";
}

TEST_F(BlkOpenTest, NeitherFileNorBlockDevice) {
  EXPECT_THAT(ImageRefusal({{"path", dir_ / "."}}),
              HasSubstr("neither a regular file nor a block"));
  EXPECT_THAT(ImageRefusal({{"path", "/dev/null"}}),
              HasSubstr("neither a regular file nor a block"));
  ASSERT_EQ(mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(ImageRefusal({{"path", dir_ / "fifo"}}), HasSubstr("neither a regular file"))
      << "and opening it does not block";
}

TEST_F(BlkOpenTest, SizesThatAreNoWholeSectors) {
  EXPECT_THAT(ImageRefusal({{"path", dir_.File("odd", 1000)}}),
              AllOf(HasSubstr("1000 bytes"), HasSubstr("multiple of 512")));
  EXPECT_THAT(ImageRefusal({{"path", dir_.File("empty", 0)}}), HasSubstr("is empty"));
}

// In a process of its own that is not root, which may read and write everything.
TEST_F(BlkOpenTest, UnreadableOrUnwritable) {
  const std::string readable = dir_.File("readable", 4096);
  const std::string secret = dir_.File("secret", 4096);
  ASSERT_EQ(chmod((dir_ / ".").c_str(), 0755), 0);
  ASSERT_EQ(chmod(readable.c_str(), 0444), 0);
  ASSERT_EQ(chmod(secret.c_str(), 0), 0);
  const pid_t user = fork();
  if (user == 0) {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(8);
    prctl(PR_SET_DUMPABLE, 1);  // else /proc/self is root's
    const auto refused = [](Keys keys, const char* why) {
      return ImageRefusal(std::move(keys)).find(why) != std::string::npos;
    };
    _exit((Open({{"path", readable}, {"readonly", "1"}}).ok() ? 0 : 1) +
          (refused({{"path", readable}}, "readonly=1") ? 0 : 2) +
          (refused({{"path", secret}, {"readonly", "1"}}, "Permission denied") ? 0 : 4));
  }
  int status = 0;
  ASSERT_EQ(waitpid(user, &status, 0), user);
  EXPECT_EQ(WEXITSTATUS(status), 0) << "bits: 1 reading, 2 writing, 4 reading a secret one";
}

TEST_F(BlkOpenTest, ValuesOutsideTheirRules) {
  const std::string path = dir_.File("disk", 4096);
  EXPECT_THAT(ImageRefusal({{"path", path}, {"readonly", "yes"}}),
              HasSubstr("readonly=\"yes\": must be 0 or 1"));
  EXPECT_THAT(ImageRefusal({{"path", path}, {"direct", "2"}}), HasSubstr("direct=\"2\""));
  EXPECT_THAT(ImageRefusal({{"path", path}, {"cache", "unsafe"}}),
              HasSubstr("cache=\"unsafe\": must be writeback or writethrough"));
  for (const char* queues : {"0", "17", "-1", "1x", "", "99999999999999999999"}) {
    EXPECT_THAT(ImageRefusal({{"path", path}, {"queues", queues}}), HasSubstr("from 1 to 16"))
        << queues;
  }
  EXPECT_THAT(ImageRefusal({{"path", path}, {"serial", std::string(21, 'a')}}),
              HasSubstr("longer than 20"));
  EXPECT_THAT(ImageRefusal({{"path", path}, {"serial", "a\nb"}}), HasSubstr("printable"));
}

// A driver that takes a block for a whole page (zram) writes past a buffer that begins in one.
TEST_F(BlkOpenTest, ABufferBeginsWhereABlockMay) {
  const LoopDisk loop(dir_.File("disk", 65536), false, 4096);
  if (!loop.why_not.empty()) GTEST_SKIP() << "SKIPPED: " << loop.why_not;
  auto opened = Open({{"path", loop.path()}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->options["memory-alignment"], "4096");
}

TEST_F(BlkOpenTest, TheSameImageForWritingTwice) {
  const std::string path = dir_.File("disk", 4096);
  auto first = Open({{"path", path}});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto names_us =
      AllOf(HasSubstr("is in use"), HasSubstr("another device of this vmsgd (vmsgctl list"));
  EXPECT_THAT(ImageRefusal({{"path", path}}), names_us);
  EXPECT_THAT(ImageRefusal({{"path", path}, {"readonly", "1"}}), names_us);
  *first = {};
  EXPECT_TRUE(Open({{"path", path}}).ok()) << "free again";
}

// What a session that ended learned of the disk, the next one knows.
TEST_F(BlkOpenTest, DuplicatesShareTheirHealth) {
  auto opened = Open({{"path", dir_.File("disk", 4096)}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  auto duplicate = opened->Duplicate();
  ASSERT_TRUE(duplicate.ok()) << duplicate.status();
  auto image = backend::UnpackImage(*std::move(duplicate));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->health, opened->health);
}

TEST_F(BlkOpenTest, ReadersShareAndKeepWritersOut) {
  const std::string path = dir_.File("disk", 4096);
  auto first = Open({{"path", path}, {"readonly", "1"}});
  auto second = Open({{"path", path}, {"readonly", "1"}});
  EXPECT_TRUE(first.ok() && second.ok());
  EXPECT_THAT(ImageRefusal({{"path", path}}), HasSubstr("is in use"));
}

// A classic lock shows who holds it.
TEST_F(BlkOpenTest, TheHolderIsNamedIfKnown) {
  const std::string path = dir_.File("disk", 4096);
  int ready[2];
  int done[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(done), 0);
  const pid_t holder = fork();
  if (holder == 0) {
    const int fd = open(path.c_str(), O_RDWR);
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    char byte = fcntl(fd, F_SETLK, &lock) == 0 ? 'y' : 'n';
    (void)!write(ready[1], &byte, 1);
    close(done[1]);
    (void)!read(done[0], &byte, 1);
    _exit(0);
  }
  close(done[0]);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_THAT(ImageRefusal({{"path", path}}), HasSubstr("by process " + std::to_string(holder)));
  close(done[1]);
  waitpid(holder, nullptr, 0);
}

// The device on a file, over io_uring.
class BlkFileTest : public ::testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  static constexpr size_t kBytes = 1 << 20;
  static constexpr uint64_t kHeader = DeviceRig::kBuffers;
  static constexpr uint64_t kData = DeviceRig::kBuffers + 4096;
  static constexpr uint64_t kStatus = DeviceRig::kBuffers + 16;

  void SetUp() override {
    path_ = dir_.File("disk", kBytes);
    before_ = TempDir::Content(path_);
    auto opened = Open({{"path", path_}, {"direct", std::get<0>(GetParam())}});
    if (!opened.ok()) GTEST_SKIP() << opened.status();
    auto io = backend::NewUringFileIo(&loop_);
    if (!io.ok()) GTEST_SKIP() << io.status();
    io_ = *std::move(io);
    auto share = backend::NewGuestFileIo(io_.get(), &loop_, std::get<1>(GetParam()));
    ASSERT_TRUE(share.ok()) << share.status();
    share_ = *std::move(share);
    auto device = backend::CreateDevice(*std::move(opened), {.loop = &loop_, .io = share_.get()});
    ASSERT_TRUE(device.ok()) << device.status();
    rig_ = std::make_unique<DeviceRig>(*std::move(device));
    rig_->Start(~uint64_t{0});
  }

  // One request, done when it returns; its status.
  int Run(uint32_t type, uint64_t sector, std::vector<DeviceRig::Buffer> data) {
    wire::BlkRequestHeader bytes{type, 0, sector};
    rig_->Put(kHeader, std::string(reinterpret_cast<char*>(&bytes), sizeof bytes));
    rig_->Put(kStatus, "\xee");
    data.insert(data.begin(), {kHeader, 16, false});
    data.push_back({kStatus, 1, true});
    rig_->Submit(0, data);
    rig_->Kick(0);
    EXPECT_TRUE(loop_.RunUntil([&] { return !rig_->Used(0).empty(); }));
    return static_cast<uint8_t>(rig_->Get(kStatus, 1)[0]);
  }

  TempDir dir_;
  std::string path_;
  std::string before_;
  ManualLoop loop_;
  std::unique_ptr<backend::AsyncFileIo> io_;
  std::unique_ptr<backend::AsyncFileIo> share_;
  std::unique_ptr<DeviceRig> rig_;
};

TEST_P(BlkFileTest, AlignedAndUnalignedBuffersSeeTheSameDisk) {
  // Aligned, then at odd addresses, then in odd pieces.
  EXPECT_EQ(Run(wire::kBlkRequestIn, 0, {{kData, 65536, true}}), 0);
  EXPECT_EQ(rig_->Get(kData, 65536), before_.substr(0, 65536));
  EXPECT_EQ(Run(wire::kBlkRequestIn, 3, {{kData + 3, 4096, true}}), 0);
  EXPECT_EQ(rig_->Get(kData + 3, 4096), before_.substr(3 * 512, 4096));
  EXPECT_EQ(Run(wire::kBlkRequestIn, 5, {{kData, 1, true}, {kData + 100, 1023, true}}), 0);
  EXPECT_EQ(rig_->Get(kData, 1) + rig_->Get(kData + 100, 1023), before_.substr(5 * 512, 1024));

  // Each kind of write is seen by each kind of read, within one page of the file.
  std::string expected = before_;
  for (int round = 0; round < 20; ++round) {
    const uint64_t sector = round % 16;
    const uint64_t address = kData + (round % 3 == 0 ? 0 : 5 * round);
    const std::string fill(512, static_cast<char>('A' + round));
    rig_->Put(address, fill);
    ASSERT_EQ(Run(wire::kBlkRequestOut, sector, {{address, 512, false}}), 0);
    expected.replace(sector * 512, 512, fill);
    const uint64_t to = kData + 65536 + (round % 2 == 0 ? 0 : 9);
    ASSERT_EQ(Run(wire::kBlkRequestIn, 0, {{to, 8192, true}}), 0);
    ASSERT_EQ(rig_->Get(to, 8192), expected.substr(0, 8192)) << round;
  }
  EXPECT_EQ(Run(wire::kBlkRequestFlush, 0, {}), 0);
  EXPECT_EQ(TempDir::Content(path_), expected);
}

TEST_P(BlkFileTest, TheLastSectorAndNotOneMore) {
  EXPECT_EQ(Run(wire::kBlkRequestIn, kBytes / 512 - 1, {{kData, 512, true}}), 0);
  EXPECT_EQ(rig_->Get(kData, 512), before_.substr(kBytes - 512));
  EXPECT_EQ(Run(wire::kBlkRequestOut, kBytes / 512, {{kData, 512, false}}),
            wire::kBlkStatusIoError);
  EXPECT_EQ(std::filesystem::file_size(path_), kBytes);
}

TEST_P(BlkFileTest, MoreRequestsThanTheRingTakesAtOnce) {
  wire::BlkRequestHeader bytes{wire::kBlkRequestIn, 0, 1};
  rig_->Put(kHeader, std::string(reinterpret_cast<char*>(&bytes), sizeof bytes));
  int done = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 16; ++i) {
      rig_->Submit(0, {{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}});
    }
    while (rig_->Kick(0)) {
    }
    ASSERT_TRUE(loop_.RunUntil([&] {
      done += rig_->Used(0).size();
      return done == 16 * (round + 1);
    }));
  }
  EXPECT_EQ(rig_->Get(kData, 512), before_.substr(512, 512));
}

TEST_P(BlkFileTest, AFileTruncatedUnderTheGuestGivesErrors) {
  ASSERT_EQ(truncate(path_.c_str(), 4096), 0);
  EXPECT_EQ(Run(wire::kBlkRequestIn, 100, {{kData, 512, true}}), wire::kBlkStatusIoError);
  EXPECT_EQ(Run(wire::kBlkRequestIn, 0, {{kData, 512, true}}), wire::kBlkStatusOk);
}

// Reset with the disk at work: the queue drains when the disk is done, and then the window may go.
TEST_P(BlkFileTest, ResetWithRequestsAtTheDisk) {
  wire::BlkRequestHeader bytes{wire::kBlkRequestIn, 0, 1};
  rig_->Put(kHeader, std::string(reinterpret_cast<char*>(&bytes), sizeof bytes));
  for (int i = 0; i < 16; ++i) {
    rig_->Submit(0, {{kHeader, 16, false}, {kData + 4096u * i, 4096, true}, {kStatus, 1, true}});
  }
  rig_->Kick(0);
  rig_->BeginReset();
  EXPECT_TRUE(loop_.RunUntil([&] { return rig_->Drained(); }));
  EXPECT_TRUE(rig_->Used(0).empty());
  rig_->EndReset();
  EXPECT_TRUE(loop_.Settle());
}

INSTANTIATE_TEST_SUITE_P(DirectAndBounce, BlkFileTest,
                         ::testing::Combine(::testing::Values("0", "1"), ::testing::Bool()));

}  // namespace
}  // namespace vmsg::testing
