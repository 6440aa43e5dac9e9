// SPDX-License-Identifier: Apache-2.0
// The console over a real pseudo terminal and a real Unix socket.
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>

#include <cstring>
#include <filesystem>

#include "tests/devices/console/console_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_P(ConsoleTest, OutputReachesTheUser) {
  const backend::UniqueFd user = Attach();
  rig_->Put(kConsoleBuffer, "hello, ");
  rig_->Put(kConsoleBuffer + 100, "world\n");
  const uint16_t head = rig_->Submit(
      wire::kConsoleTransmitQueue, {{kConsoleBuffer, 7, false}, {kConsoleBuffer + 100, 6, false}});
  rig_->Kick(wire::kConsoleTransmitQueue);
  EXPECT_EQ(UserReads(user, 13), "hello, world\n");
  EXPECT_THAT(rig_->Used(wire::kConsoleTransmitQueue), ElementsAre(UsedEntry{head, 0}));
}

TEST_P(ConsoleTest, InputReachesTheGuest) {
  const uint16_t head = rig_->Submit(wire::kConsoleReceiveQueue,
                                     {{kConsoleBuffer, 3, true}, {kConsoleBuffer + 100, 10, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  const backend::UniqueFd user = Attach();
  ASSERT_EQ(write(user.get(), "ls -l", 5), 5);
  std::vector<UsedEntry> used;
  ASSERT_TRUE(
      loop_.RunUntil([&] { return !(used = rig_->Used(wire::kConsoleReceiveQueue)).empty(); }));
  EXPECT_THAT(used, ElementsAre(UsedEntry{head, 5}));
  EXPECT_EQ(rig_->Get(kConsoleBuffer, 3) + rig_->Get(kConsoleBuffer + 100, 2), "ls -l")
      << "in order of buffers";
}

TEST_P(ConsoleTest, OutputIsNotEchoedBackAsInput) {
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer + 4096, 64, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  const backend::UniqueFd user = Attach();
  GuestWrites("login: ");
  EXPECT_EQ(UserReads(user, 7), "login: ");
  EXPECT_TRUE(loop_.Settle());
  EXPECT_THAT(rig_->Used(wire::kConsoleReceiveQueue), IsEmpty());
}

TEST_P(ConsoleTest, InputWaitsForBuffersWithoutABusyLoop) {
  const backend::UniqueFd user = Attach();
  ASSERT_EQ(write(user.get(), "typed early", 11), 11);
  EXPECT_TRUE(loop_.Settle()) << "input that nobody takes must not keep the loop busy";
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer, 64, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  std::vector<UsedEntry> used;
  ASSERT_TRUE(
      loop_.RunUntil([&] { return !(used = rig_->Used(wire::kConsoleReceiveQueue)).empty(); }));
  EXPECT_EQ(used[0].len, 11u);
  EXPECT_EQ(rig_->Get(kConsoleBuffer, 11), "typed early");
}

// As the kernel's terminals keep it, so do the sockets.
TEST_P(ConsoleTest, WhatWasTypedWithoutAGuestWaitsForItAlsoWhenItsUserHasLeft) {
  rig_.reset();
  backend::UniqueFd user = Attach();
  ASSERT_EQ(write(user.get(), "early", 5), 5);
  user = backend::UniqueFd();
  Begin();
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer, 64, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  user = Attach();
  std::vector<UsedEntry> used;
  ASSERT_TRUE(
      loop_.RunUntil([&] { return !(used = rig_->Used(wire::kConsoleReceiveQueue)).empty(); }));
  EXPECT_EQ(rig_->Get(kConsoleBuffer, used[0].len), "early");
  GuestWrites("who?");
  EXPECT_EQ(UserReads(user, 4), "who?") << "the next one is attached";
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

// Whoever tells a size does not wait, whether the guest is there or not.
TEST_P(ConsoleTest, SizesThatNobodyTakesDoNotBlockTheirSender) {
  if (is_pty()) GTEST_SKIP() << "a pseudo terminal keeps its size";
  const backend::UniqueFd sender(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (path_ + ".size").copy(address.sun_path, sizeof address.sun_path - 1);
  const auto send_many = [&](const std::string& text) {
    for (int i = 0; i < 1000; ++i) {
      if (sendto(sender.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&address),
                 sizeof address) < 0) {
        return i;
      }
    }
    return 1000;
  };
  rig_.reset();
  EXPECT_EQ(send_many("1 1"), 1000) << "between two sessions";
  Connect();
  EXPECT_EQ(rig_->Config<uint16_t>(0), 80) << "what came meanwhile is gone";
  rig_->Reset();
  ASSERT_GT(send_many("132 43"), 0);
  EXPECT_TRUE(loop_.Settle());
  rig_->Start(0);
  EXPECT_EQ(rig_->Config<uint16_t>(0), 132) << "kept from before the driver's start";

  auto opened = backend::OpenDevice({.type = "console", .keys = {{"socket", dir_ / "idle"}}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::memset(address.sun_path, 0, sizeof address.sun_path);
  (dir_ / "idle.size").copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(send_many("1 1"), 1000) << "before the first session";
}

// Without a descriptor for it a client waits, and the thread does not look for it all the time.
TEST_P(ConsoleTest, AClientThatCannotBeAcceptedIsTriedAgainLater) {
  if (is_pty()) GTEST_SKIP() << "nothing is accepted";
  const backend::UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  // As many descriptors as there may be.
  const backend::UniqueFd lowest(dup(STDERR_FILENO));
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {.rlim_cur = static_cast<rlim_t>(lowest.get()) + 1,
                       .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_TRUE(loop_.Settle()) << "a busy loop";
  EXPECT_EQ(loop_.timers(), 1u);
  loop_.Advance(absl::Seconds(1));
  EXPECT_TRUE(loop_.Settle()) << "and again";
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  loop_.Advance(absl::Seconds(1));
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(loop_.timers(), 0u);
  GuestWrites("hello");
  EXPECT_EQ(UserReads(client, 5), "hello");
}

TEST_P(ConsoleTest, ConfigurationCannotBeWritten) {
  const std::byte value[] = {std::byte{1}};
  EXPECT_EQ(rig_->device().WriteConfig(0, value).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(ConsoleTest, ResetReturnsWhatWaitsAndTheConsoleWorksAgain) {
  const backend::UniqueFd user = Attach();
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer, 16, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  rig_->Put(kConsoleBuffer + 4096, std::string(1 << 20, 'x'));
  rig_->Submit(wire::kConsoleTransmitQueue, {{kConsoleBuffer + 4096, 1 << 20, false}});
  rig_->Kick(wire::kConsoleTransmitQueue);
  EXPECT_TRUE(loop_.Settle());
  Reset();
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_EQ(loop_.watch_count(), is_pty() ? 0u : 1u) << "a device at rest: only the size";
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
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer, 16, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  ASSERT_EQ(write(is_pty() ? user.get() : other.get(), "in", 2), 2);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(wire::kConsoleReceiveQueue).empty(); }));
}

TEST_P(ConsoleTest, ChainsOfTheWrongKindAreReturnedEmpty) {
  const backend::UniqueFd user = Attach();
  const uint16_t readable_in_receive =
      rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer, 4, false}});
  const uint16_t writable_in_transmit =
      rig_->Submit(wire::kConsoleTransmitQueue, {{kConsoleBuffer, 4, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  rig_->Kick(wire::kConsoleTransmitQueue);
  EXPECT_THAT(rig_->Used(wire::kConsoleReceiveQueue),
              ElementsAre(UsedEntry{readable_in_receive, 0}));
  EXPECT_THAT(rig_->Used(wire::kConsoleTransmitQueue),
              ElementsAre(UsedEntry{writable_in_transmit, 0}));
}

TEST_P(ConsoleTest, ABrokenAvailableIndexNeedsAReset) {
  rig_->driver(wire::kConsoleTransmitQueue).ExposeIdx(1000);
  EXPECT_FALSE(rig_->Kick(wire::kConsoleTransmitQueue));
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
  const auto again = backend::OpenDevice({.type = "console", .keys = {{GetParam(), path_}}});
  EXPECT_THAT(std::string(again.status().message()), AllOf(HasSubstr(path_), HasSubstr("in use")));
}

INSTANTIATE_TEST_SUITE_P(Terminals, ConsoleTest, ::testing::Values("pty", "socket"));

}  // namespace
}  // namespace vmsg::testing
