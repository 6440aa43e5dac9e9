// SPDX-License-Identifier: Apache-2.0
// The console over a real pseudo terminal and a real Unix socket.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <filesystem>

#include "backend/devices/console/console_device.h"
#include "tests/devices/device_rig.h"
#include "tests/devices/manual_loop.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Keys = absl::btree_map<std::string, std::string>;

constexpr uint64_t kBuffer = DeviceRig::kBuffers;
constexpr uint32_t kReceive = wire::kConsoleReceiveQueue;
constexpr uint32_t kTransmit = wire::kConsoleTransmitQueue;

std::string ConsoleRefusal(Keys keys) {
  auto opened = backend::OpenDevice({.number = 1, .type = "console", .keys = std::move(keys)});
  if (opened.ok()) return "not refused";
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(opened.status().message());
}

// Both kinds of terminal, and how a user attaches to them.
class ConsoleTest : public ::testing::TestWithParam<const char*> {
 protected:
  bool is_pty() const { return std::string(GetParam()) == "pty"; }

  void SetUp() override {
    path_ = dir_ / "console";
    auto opened = backend::OpenDevice({.type = "console", .keys = {{GetParam(), path_}}});
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened_ = *std::move(opened);
    Connect();
  }
  void TearDown() override {
    rig_.reset();
    backend::CloseDevice(std::move(opened_));
  }

  // A session of the guest's, on what was opened once.
  void Connect() {
    auto opened = opened_.Duplicate();
    ASSERT_TRUE(opened.ok()) << opened.status();
    auto device = backend::CreateDevice(*std::move(opened), {.loop = &loop_});
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = static_cast<backend::ConsoleDevice*>(device->get());
    rig_ = std::make_unique<DeviceRig>(*std::move(device));
    rig_->Start(wire::kConsoleFeatureSize);
    ASSERT_TRUE(loop_.Settle());
  }

  // A user's end. Non-blocking.
  backend::UniqueFd Attach() {
    backend::UniqueFd user;
    if (is_pty()) {
      user = backend::UniqueFd(open(path_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    } else {
      user = backend::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_un address = {};
      address.sun_family = AF_UNIX;
      path_.copy(address.sun_path, sizeof address.sun_path - 1);
      EXPECT_EQ(connect(user.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    EXPECT_TRUE(user);
    EXPECT_TRUE(loop_.Settle());
    return user;
  }

  void GuestWrites(const std::string& text, uint64_t address = kBuffer) {
    rig_->Put(address, text);
    rig_->Submit(kTransmit, {{address, static_cast<uint32_t>(text.size()), false}});
    rig_->Kick(kTransmit);
  }
  // What the user sees: `size` bytes, all of which must come.
  std::string UserReads(const backend::UniqueFd& user, size_t size) {
    std::string seen;
    EXPECT_TRUE(loop_
                    .Watch(user.get(), EPOLLIN,
                           [&](uint32_t) {
                             char bytes[65536];
                             const ssize_t got = read(user.get(), bytes,
                                                      std::min(sizeof bytes, size - seen.size()));
                             if (got > 0) seen.append(bytes, got);
                           })
                    .ok());
    EXPECT_TRUE(loop_.RunUntil([&] { return seen.size() == size; }));
    loop_.Unwatch(user.get());
    return seen;
  }

  TempDir dir_;
  std::string path_;
  backend::OpenedDevice opened_;
  ManualLoop loop_;
  backend::ConsoleDevice* device_ = nullptr;
  std::unique_ptr<DeviceRig> rig_;
};

TEST_P(ConsoleTest, OutputReachesTheUser) {
  const backend::UniqueFd user = Attach();
  rig_->Put(kBuffer, "hello, ");
  rig_->Put(kBuffer + 100, "world\n");
  const uint16_t head = rig_->Submit(kTransmit, {{kBuffer, 7, false}, {kBuffer + 100, 6, false}});
  rig_->Kick(kTransmit);
  EXPECT_EQ(UserReads(user, 13), "hello, world\n");
  EXPECT_THAT(rig_->Used(kTransmit), ElementsAre(UsedEntry{head, 0}));
}

TEST_P(ConsoleTest, InputReachesTheGuest) {
  const uint16_t head = rig_->Submit(kReceive, {{kBuffer, 3, true}, {kBuffer + 100, 10, true}});
  rig_->Kick(kReceive);
  const backend::UniqueFd user = Attach();
  ASSERT_EQ(write(user.get(), "ls -l", 5), 5);
  std::vector<UsedEntry> used;
  ASSERT_TRUE(loop_.RunUntil([&] { return !(used = rig_->Used(kReceive)).empty(); }));
  EXPECT_THAT(used, ElementsAre(UsedEntry{head, 5}));
  EXPECT_EQ(rig_->Get(kBuffer, 3) + rig_->Get(kBuffer + 100, 2), "ls -l") << "in order of buffers";
}

TEST_P(ConsoleTest, OutputIsNotEchoedBackAsInput) {
  rig_->Submit(kReceive, {{kBuffer + 4096, 64, true}});
  rig_->Kick(kReceive);
  const backend::UniqueFd user = Attach();
  GuestWrites("login: ");
  EXPECT_EQ(UserReads(user, 7), "login: ");
  EXPECT_TRUE(loop_.Settle());
  EXPECT_THAT(rig_->Used(kReceive), IsEmpty());
}

TEST_P(ConsoleTest, InputWaitsForBuffersWithoutABusyLoop) {
  const backend::UniqueFd user = Attach();
  ASSERT_EQ(write(user.get(), "typed early", 11), 11);
  EXPECT_TRUE(loop_.Settle()) << "input that nobody takes must not keep the loop busy";
  rig_->Submit(kReceive, {{kBuffer, 64, true}});
  rig_->Kick(kReceive);
  std::vector<UsedEntry> used;
  ASSERT_TRUE(loop_.RunUntil([&] { return !(used = rig_->Used(kReceive)).empty(); }));
  EXPECT_EQ(used[0].len, 11u);
  EXPECT_EQ(rig_->Get(kBuffer, 11), "typed early");
}

TEST_P(ConsoleTest, AReaderThatDoesNotReadBlocksThisQueueOnlyAndLosesNothing) {
  const backend::UniqueFd user = Attach();
  const uint32_t kChunk = 256 * 1024;
  std::string text(kChunk, '\0');
  for (uint32_t i = 0; i < kChunk; ++i) text[i] = static_cast<char>('a' + i / 13 % 26);
  rig_->Put(kBuffer, text);
  std::vector<uint16_t> heads;
  for (int i = 0; i < 8; ++i) heads.push_back(rig_->Submit(kTransmit, {{kBuffer, kChunk, false}}));
  EXPECT_FALSE(rig_->Kick(kTransmit));
  EXPECT_TRUE(loop_.Settle()) << "a busy loop";
  EXPECT_LE(rig_->queue(kTransmit)->in_flight(), 1u) << "the rest stays in the guest's queue";
  EXPECT_FALSE(rig_->Kick(kTransmit)) << "more kicks change nothing";
  // Input is not held up.
  rig_->Submit(kReceive, {{kBuffer + 1024 * 1024, 16, true}});
  rig_->Kick(kReceive);
  ASSERT_EQ(write(user.get(), "q", 1), 1);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(kReceive).empty(); }));

  std::string expected;
  for (int i = 0; i < 8; ++i) expected += text;
  EXPECT_EQ(UserReads(user, expected.size()) == expected, true);
  EXPECT_TRUE(loop_.Settle());
  std::vector<uint16_t> done;
  for (const UsedEntry& used : rig_->Used(kTransmit)) done.push_back(used.id);
  EXPECT_EQ(done, heads);
  EXPECT_EQ(device_->dropped_bytes(), 0u);
}

TEST_P(ConsoleTest, OutputIsDroppedAndCountedWhileNobodyIsAttached) {
  GuestWrites("booting...");
  EXPECT_EQ(rig_->Used(kTransmit).size(), 1u) << "the guest does not stand still";
  EXPECT_EQ(device_->dropped_bytes(), 10u);
  const backend::UniqueFd user = Attach();
  GuestWrites("login: ");
  EXPECT_EQ(UserReads(user, 7), "login: ");
}

TEST_P(ConsoleTest, AUserWhoLeavesFreesTheGuestAndAnotherMayCome) {
  backend::UniqueFd user = Attach();
  rig_->Put(kBuffer, std::string(1 << 20, 'x'));
  rig_->Submit(kTransmit, {{kBuffer, 1 << 20, false}});
  rig_->Kick(kTransmit);
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(rig_->queue(kTransmit)->in_flight(), 1u);
  user = backend::UniqueFd();
  ASSERT_TRUE(loop_.RunUntil([&] { return rig_->queue(kTransmit)->in_flight() == 0; }));
  EXPECT_GT(device_->dropped_bytes(), 0u);
  EXPECT_TRUE(loop_.Settle()) << "a hung-up terminal must not keep the loop busy";

  user = Attach();
  rig_->Submit(kReceive, {{kBuffer + (2 << 20), 16, true}});
  rig_->Kick(kReceive);
  ASSERT_EQ(write(user.get(), "again", 5), 5);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(kReceive).empty(); }));
  EXPECT_EQ(rig_->Get(kBuffer + (2 << 20), 5), "again");
}

TEST_P(ConsoleTest, NothingIsWatchedInVainWhileNobodyIsAttached) {
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(loop_.timers(), 0u) << "an idle console costs no wake-up";
}

TEST_P(ConsoleTest, WindowSizeChangesAreConfigurationChanges) {
  EXPECT_EQ(rig_->Config<uint16_t>(0), 80);
  EXPECT_EQ(rig_->Config<uint16_t>(2), 24);
  const backend::UniqueFd user = Attach();
  const int before = rig_->config_changes();
  const auto resize = [&](uint16_t cols, uint16_t rows) {
    if (is_pty()) {
      const winsize size = {.ws_row = rows, .ws_col = cols, .ws_xpixel = 0, .ws_ypixel = 0};
      ASSERT_EQ(ioctl(user.get(), TIOCSWINSZ, &size), 0);
      loop_.Advance(absl::Seconds(1));
      return;
    }
    const backend::UniqueFd sender(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    (path_ + ".size").copy(address.sun_path, sizeof address.sun_path - 1);
    const std::string text = std::to_string(cols) + " " + std::to_string(rows) + "\n";
    ASSERT_EQ(sendto(sender.get(), text.data(), text.size(), 0,
                     reinterpret_cast<sockaddr*>(&address), sizeof address),
              static_cast<ssize_t>(text.size()));
    EXPECT_TRUE(loop_.Settle());
  };
  resize(132, 43);
  EXPECT_EQ(rig_->config_changes(), before + 1);
  EXPECT_EQ(rig_->Config<uint16_t>(0), 132);
  EXPECT_EQ(rig_->Config<uint16_t>(2), 43);
  resize(132, 43);
  EXPECT_EQ(rig_->config_changes(), before + 1) << "no change, no event";
  resize(0, 43);
  EXPECT_EQ(rig_->config_changes() - before, is_pty() ? 2 : 1) << "0 is no size";
  EXPECT_EQ(rig_->Config<uint16_t>(0), is_pty() ? 80 : 132);
}

TEST_P(ConsoleTest, ConfigurationCannotBeWritten) {
  const std::byte value[] = {std::byte{1}};
  EXPECT_EQ(rig_->device().WriteConfig(0, value).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ConsoleTest, ResetReturnsWhatWaitsAndTheConsoleWorksAgain) {
  const backend::UniqueFd user = Attach();
  rig_->Submit(kReceive, {{kBuffer, 16, true}});
  rig_->Kick(kReceive);
  rig_->Put(kBuffer + 4096, std::string(1 << 20, 'x'));
  rig_->Submit(kTransmit, {{kBuffer + 4096, 1 << 20, false}});
  rig_->Kick(kTransmit);
  EXPECT_TRUE(loop_.Settle());
  rig_->Reset();
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_EQ(loop_.watch_count(), 0u) << "a device at rest watches nothing";
  char bytes[65536];
  while (read(user.get(), bytes, sizeof bytes) > 0) {
  }
  rig_->Start(0);
  EXPECT_TRUE(loop_.Settle());
  if (is_pty()) {
    GuestWrites("back");
    EXPECT_EQ(UserReads(user, 4), "back");
  }
  const backend::UniqueFd other = is_pty() ? backend::UniqueFd() : Attach();
  rig_->Submit(kReceive, {{kBuffer, 16, true}});
  rig_->Kick(kReceive);
  ASSERT_EQ(write(is_pty() ? user.get() : other.get(), "in", 2), 2);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(kReceive).empty(); }));
}

TEST_P(ConsoleTest, ChainsOfTheWrongKindAreReturnedEmpty) {
  const backend::UniqueFd user = Attach();
  const uint16_t readable_in_receive = rig_->Submit(kReceive, {{kBuffer, 4, false}});
  const uint16_t writable_in_transmit = rig_->Submit(kTransmit, {{kBuffer, 4, true}});
  rig_->Kick(kReceive);
  rig_->Kick(kTransmit);
  EXPECT_THAT(rig_->Used(kReceive), ElementsAre(UsedEntry{readable_in_receive, 0}));
  EXPECT_THAT(rig_->Used(kTransmit), ElementsAre(UsedEntry{writable_in_transmit, 0}));
}

TEST_P(ConsoleTest, ABrokenAvailableIndexNeedsAReset) {
  rig_->driver(kTransmit).ExposeIdx(1000);
  EXPECT_FALSE(rig_->Kick(kTransmit));
  EXPECT_EQ(rig_->needs_reset().size(), 1u);
}

TEST_P(ConsoleTest, ThePathGoesWithTheEntryNotWithTheSession) {
  const auto exists = [](const std::string& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path));
  };
  rig_.reset();
  EXPECT_TRUE(exists(path_));
  backend::CloseDevice(std::move(opened_));
  opened_ = {};
  EXPECT_FALSE(exists(path_));
  EXPECT_FALSE(exists(path_ + ".size"));
}

TEST_P(ConsoleTest, AGuestThatConnectsAgainMeetsTheSameTerminal) {
  backend::UniqueFd user = Attach();
  GuestWrites("before");
  EXPECT_EQ(UserReads(user, 6), "before");
  rig_.reset();
  Connect();
  // A terminal stays open in the user's hands; a socket's client was disconnected and comes again.
  if (!is_pty()) user = Attach();
  GuestWrites("after");
  EXPECT_EQ(UserReads(user, 5), "after");
}

TEST_P(ConsoleTest, APathInUseIsRefused) {
  EXPECT_THAT(ConsoleRefusal({{GetParam(), path_}}), AllOf(HasSubstr(path_), HasSubstr("in use")));
}

INSTANTIATE_TEST_SUITE_P(Terminals, ConsoleTest, ::testing::Values("pty", "socket"));

TEST(ConsoleOpenTest, OneTerminalIsNeeded) {
  EXPECT_THAT(ConsoleRefusal({}), HasSubstr("is required (or socket)"));
  EXPECT_THAT(ConsoleRefusal({{"pty", "/a"}, {"socket", "/b"}}), HasSubstr("one terminal"));
  EXPECT_THAT(ConsoleRefusal({{"pty", "relative"}}), HasSubstr("absolute"));
  EXPECT_THAT(ConsoleRefusal({{"socket", "relative"}}), HasSubstr("absolute"));
}

TEST(ConsoleOpenTest, PathsThatCannotBeMade) {
  TempDir dir;
  EXPECT_THAT(ConsoleRefusal({{"pty", dir / "none/console"}}), HasSubstr("its directory"));
  EXPECT_THAT(ConsoleRefusal({{"pty", dir / ""}}), HasSubstr("does not end in a name"));
  EXPECT_THAT(ConsoleRefusal({{"pty", dir.File("file", 1)}}),
              HasSubstr("no link to a pseudo terminal"));
  EXPECT_THAT(ConsoleRefusal({{"socket", dir / "file"}}), HasSubstr("is no socket"));
  EXPECT_THAT(ConsoleRefusal({{"socket", dir / std::string(100, 'a')}}), HasSubstr("too long"));
  EXPECT_EQ(TempDir::Content(dir / "file").size(), 1u) << "what was there stays";
}

TEST(ConsoleOpenTest, WhatACrashLeftBehindIsReplaced) {
  TempDir dir;
  std::filesystem::create_symlink("/dev/pts/4000000", dir / "pty");
  EXPECT_TRUE(backend::OpenDevice({.type = "console", .keys = {{"pty", dir / "pty"}}}).ok());
  for (const char* name : {"socket", "socket.size"}) {
    const backend::UniqueFd old(
        socket(AF_UNIX, (name[6] == '\0' ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    (dir / name).copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(old.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  auto opened = backend::OpenDevice({.type = "console", .keys = {{"socket", dir / "socket"}}});
  EXPECT_TRUE(opened.ok()) << opened.status();
  struct stat file = {};
  ASSERT_EQ(stat((dir / "socket").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u) << "only the administrator's";
}

}  // namespace
}  // namespace vmsg::testing
