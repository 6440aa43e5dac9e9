// SPDX-License-Identifier: Apache-2.0
// Who may be the server of a Xen, and how long one that was killed still is.
#include "backend/server-lock/server_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "backend/devices/async_file_io.h"
#include "tests/backend/simulated_loop.h"

namespace vmsg::backend {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ServerLockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/server-lock.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/server.lock";
    ASSERT_TRUE(UniqueFd(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string directory_, path_;
};

TEST_F(ServerLockTest, OneAtATimeAndTheOtherIsNamed) {
  EXPECT_EQ(FindServer(path_).value(), std::nullopt);
  {
    const auto first = TakeServerLock(path_);
    ASSERT_TRUE(first.ok()) << first.status();
    const auto found = FindServer(path_);
    ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
    EXPECT_EQ((*found)->pid, getpid());
    EXPECT_FALSE((*found)->ending);
    const absl::Status second = TakeServerLock(path_).status();
    EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
    EXPECT_THAT(second.message(), AllOf(HasSubstr(absl::StrCat("process ", getpid())),
                                        HasSubstr("SIGHUP"), HasSubstr("systemctl stop")));
  }
  EXPECT_EQ(FindServer(path_).value(), std::nullopt);
  EXPECT_TRUE(TakeServerLock(path_).ok());
}

// A character device, as Xen's own are: no file of anybody's is needed.
TEST_F(ServerLockTest, ADeviceNodeCanBeLocked) {
  const auto lock = TakeServerLock("/dev/zero");
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(FindServer("/dev/zero").value()->pid, getpid());
}

// A stand-in for a request that the kernel still works on: somebody else has the description.
TEST_F(ServerLockTest, AServerThatWasKilledIsOneUntilNothingRefersToItsLock) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const pid_t child = fork();
  if (child == 0) {
    auto lock = TakeServerLock(path_);
    if (!lock.ok()) _exit(1);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    *reinterpret_cast<int*>(CMSG_DATA(header)) = lock->get();
    if (sendmsg(theirs.get(), &message, 0) != 1) _exit(1);
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(recvmsg(ours.get(), &message, MSG_CMSG_CLOEXEC), 1);
  {
    const UniqueFd kept(*reinterpret_cast<int*>(CMSG_DATA(CMSG_FIRSTHDR(&message))));
    const auto found = FindServer(path_);
    ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
    EXPECT_EQ((*found)->pid, child);
    EXPECT_TRUE((*found)->ending);
    const absl::Status refused = TakeServerLock(path_).status();
    EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
    EXPECT_THAT(refused.message(), AllOf(HasSubstr(absl::StrCat("process ", child)),
                                         HasSubstr("has ended, but the kernel still works")));
  }
  EXPECT_TRUE(TakeServerLock(path_).ok());
}

// The kernel closes a ring when the last of its requests has ended, whoever made them.
TEST_F(ServerLockTest, AnIoRingKeepsTheLock) {
  SimulatedLoop loop;
  auto lock = TakeServerLock(path_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  auto io = NewUringFileIo(&loop, lock->get());
  if (absl::IsUnavailable(io.status())) GTEST_SKIP() << io.status();
  ASSERT_TRUE(io.ok()) << io.status();
  *lock = UniqueFd();
  EXPECT_TRUE(FindServer(path_).value().has_value());
  io->reset();
  // The kernel takes a moment to end a ring; only a failure waits for the deadline.
  for (int waited = 0; FindServer(path_).value().has_value(); ++waited) {
    ASSERT_LT(waited, 20'000);
    poll(nullptr, 0, 1);
  }
}

TEST_F(ServerLockTest, WhatCannotBeLockedIsAnErrorWithItsPath) {
  const std::string missing = directory_ + "/missing";
  EXPECT_TRUE(absl::IsNotFound(TakeServerLock(missing).status()));
  EXPECT_THAT(TakeServerLock(missing).status().message(), HasSubstr(missing));
  EXPECT_FALSE(std::filesystem::exists(missing));
  EXPECT_FALSE(FindServer(missing).ok());
  // Nobody can point us at a file of his.
  const std::string link = directory_ + "/link";
  std::filesystem::create_symlink(path_, link);
  EXPECT_FALSE(TakeServerLock(link).ok());
  EXPECT_FALSE(FindServer(link).ok());
  EXPECT_FALSE(absl::IsAlreadyExists(TakeServerLock(directory_).status()));
}

}  // namespace
}  // namespace vmsg::backend
