// SPDX-License-Identifier: Apache-2.0
// What is found out about a config's entries before the first is attached.
#include "backend/service/toolstack/entry_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using xenstore::AttachItem;

class EntryCheckTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/vmsg-entries.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    std::ofstream(directory_ + "/image") << "x";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  static AttachItem Item(const std::string& text) {
    absl::StatusOr<xenstore::DeviceEntry> entry = xenstore::ParseDeviceEntry(text);
    EXPECT_TRUE(entry.ok()) << entry.status();
    return {.label = "the entry", .entry = entry.value_or(xenstore::DeviceEntry())};
  }
  static std::string Refusal(const std::string& text) {
    const absl::Status status = CheckItems({Item("type=rng"), Item(text)});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }
  std::string directory_;
};

TEST_F(EntryCheckTest, WhatCannotBeServedIsNamedWithItsEntryAndKey) {
  EXPECT_THAT(Refusal("type=blk,path=" + directory_ + "/none"),
              AllOf(HasSubstr("the entry: path="), HasSubstr("No such file")));
  EXPECT_THAT(Refusal("type=blk,path=" + directory_), HasSubstr("neither a regular file nor"));
  ASSERT_EQ(mkfifo((directory_ + "/fifo").c_str(), 0600), 0);
  EXPECT_THAT(Refusal("type=blk,path=" + directory_ + "/fifo"), HasSubstr("neither"));
  EXPECT_THAT(Refusal("type=blk,path=image"), HasSubstr("the entry: path="));
  EXPECT_THAT(Refusal("type=blk"), HasSubstr("path"));
  EXPECT_THAT(Refusal("type=blk,pth=/a"), AllOf(HasSubstr("pth="), HasSubstr("unknown key")));
  EXPECT_THAT(Refusal("type=bkl,path=/a"), HasSubstr("unknown device type"));
  EXPECT_THAT(Refusal("type=console,pty=" + directory_ + "/none/tty"),
              AllOf(HasSubstr("pty="), HasSubstr("its directory:"), HasSubstr("No such file")));
  EXPECT_THAT(Refusal("type=console,socket=" + directory_ + "/image/s"),
              AllOf(HasSubstr("socket="), HasSubstr("Not a directory")));
}

TEST_F(EntryCheckTest, LookingMakesAndTakesNothing) {
  const std::string pty = directory_ + "/tty", socket = directory_ + "/socket";
  EXPECT_EQ(CheckItems({Item("type=blk,path=" + directory_ + "/image"), Item("type=rng"),
                        Item("type=console,pty=" + pty), Item("type=console,socket=" + socket),
                        Item("type=blk,path=" + directory_ + "/image")}),
            absl::OkStatus());
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(pty)));
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(EntryCheckTest, TheFirstRefusalIsTheAnswerOfAPatientCheckToo) {
  PatientCheck check(absl::Minutes(1));
  EXPECT_TRUE(check({Item("type=rng")}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(check({Item("type=blk,path=/none")})));
}

TEST_F(EntryCheckTest, ADiskThatHangsHoldsUpNobodyAndABoundedNumberOfThreads) {
  std::mutex mutex;
  std::condition_variable changed;
  int begun = 0, ended = 0;
  bool answers = false;
  PatientCheck check(absl::ZeroDuration(), [&](const std::vector<AttachItem>&) {
    std::unique_lock lock(mutex);
    ++begun;
    changed.notify_all();
    changed.wait(lock, [&] { return answers; });
    ++ended;
    changed.notify_all();
    return absl::InvalidArgumentError("too late");
  });
  testing::internal::CaptureStderr();
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(check({Item("type=blk,path=/hung")}).ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("the entry: what it or the entries after it name does not answer"));
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return begun == 8; });
  answers = true;
  changed.notify_all();
  changed.wait(lock, [&] { return ended == 8; });
}

}  // namespace
}  // namespace vmsg::backend
