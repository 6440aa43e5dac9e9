// SPDX-License-Identifier: Apache-2.0
// Making a console's terminal: what is refused, replaced, and left alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "backend/devices/device.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::HasSubstr;
using Keys = absl::btree_map<std::string, std::string>;

std::string ConsoleRefusal(Keys keys) {
  auto opened = backend::OpenDevice({.number = 1, .type = "console", .keys = std::move(keys)});
  if (opened.ok()) return "not refused";
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(opened.status().message());
}

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

TEST(ConsoleOpenTest, NamesThatAreAnothersByNowStay) {
  TempDir dir;
  for (const char* key : {"pty", "socket"}) {
    const std::string path = dir / key;
    auto opened = backend::OpenDevice({.type = "console", .keys = {{key, path}}});
    ASSERT_TRUE(opened.ok()) << opened.status();
    for (const std::string& name : {path, path + ".size"}) {
      std::filesystem::remove(name);
      std::ofstream(name) << "another's";
    }
    backend::CloseDevice(*std::move(opened));
    EXPECT_EQ(TempDir::Content(path), "another's");
    EXPECT_EQ(TempDir::Content(path + ".size"), "another's");
  }
}

// Whoever owns the directory can put a link in the socket's place at any time: the mode that the
// socket gets must not be given to what the link leads to. The system call between the two is where
// it happens; here another process does nothing but exchange the name.
TEST(ConsoleOpenTest, AModeIsNeverGivenByName) {
  TempDir dir;
  const std::string secret = dir.File("secret", 1);
  ASSERT_EQ(chmod(secret.c_str(), 0644), 0);
  const std::string path = dir / "socket";
  const pid_t attacker = fork();
  if (attacker == 0) {
    while (true) {
      (void)!symlink(secret.c_str(), (dir / "link").c_str());
      (void)!rename((dir / "link").c_str(), path.c_str());
      (void)!unlink(path.c_str());
    }
  }
  mode_t mode = 0;
  for (int round = 0; round < 2000; ++round) {
    auto opened = backend::OpenDevice({.type = "console", .keys = {{"socket", path}}});
    struct stat file = {};
    EXPECT_EQ(stat(secret.c_str(), &file), 0);
    mode = file.st_mode & 0777;
    if (opened.ok()) backend::CloseDevice(*std::move(opened));
    if (mode != 0644) break;
  }
  kill(attacker, SIGKILL);
  waitpid(attacker, nullptr, 0);
  EXPECT_EQ(mode, 0644u);
}

}  // namespace
}  // namespace vmsg::testing
