// SPDX-License-Identifier: Apache-2.0
// The trace against its disk: what may lie where it is written, its size, its end.
#include "backend/service/trace/trace.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "virtio-msg/capture.h"

namespace vmsg::backend {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

// Met by a failure only.
constexpr absl::Duration kPatience = absl::Minutes(1);
constexpr uint64_t kNoLimit = uint64_t{1} << 40;

class TraceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/vmsg-trace.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/trace.pcap";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // The messages of a capture that is whole, by their first byte.
  std::string Messages(const std::string& path) {
    const std::string text = Content(path);
    std::span<const std::byte> bytes = std::as_bytes(std::span(text));
    if (bytes.size() < wire::kCaptureFileHeaderSize) return "no header";
    bytes = bytes.subspan(wire::kCaptureFileHeaderSize);
    std::string messages;
    while (!bytes.empty()) {
      const auto packet = wire::ParseCapturePacket({}, bytes);
      if (!packet.ok() || !packet->has_value()) return absl::StrCat(messages, " and a cut packet");
      messages.push_back(static_cast<char>((*packet)->captured.message[0]));
      bytes = bytes.subspan((*packet)->size);
    }
    return messages;
  }
  void Write(Trace& trace, char first, size_t size = 8) {
    std::vector<std::byte> message(size);
    message[0] = static_cast<std::byte>(first);
    trace.Write(3, 0, /*from_driver=*/true, message);
  }
  std::string Refusal(const std::string& path) {
    Trace trace;
    const absl::Status status = trace.Use({path, kNoLimit}, kPatience);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(CheckTracePath(path), status);
    return std::string(status.message());
  }

  std::string directory_;
  std::string path_;
};

TEST_F(TraceTest, WhatIsThereAndIsNoTraceIsRefusedAndLeftAlone) {
  const std::string other = directory_ + "/other";
  std::ofstream(other) << "root:x:0:0";
  EXPECT_THAT(Refusal(other), AllOf(HasSubstr(other), HasSubstr("not overwritten")));
  EXPECT_EQ(Content(other), "root:x:0:0");
  std::filesystem::create_symlink(other, path_);
  EXPECT_THAT(Refusal(path_), HasSubstr("is a link"));
  const std::string dangling = directory_ + "/dangling", target = directory_ + "/target";
  std::filesystem::create_symlink(target, dangling);
  EXPECT_THAT(Refusal(dangling), HasSubstr("is a link"));
  EXPECT_FALSE(std::filesystem::exists(target));
  EXPECT_THAT(Refusal(directory_), HasSubstr("no regular file"));
  EXPECT_THAT(Refusal("/dev/null"), HasSubstr("no regular file"));
  // Nobody reads it, and nobody waits for it.
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(Refusal(fifo), HasSubstr("no regular file"));
  EXPECT_THAT(Refusal(directory_ + "/none/trace"), HasSubstr("directory is not there"));
  EXPECT_THAT(Refusal(directory_ + "/"), HasSubstr("no file"));
  // Nor is what would have to make room.
  const std::string trace = directory_ + "/t";
  std::ofstream(trace + ".1") << "a letter";
  EXPECT_THAT(Refusal(trace), AllOf(HasSubstr(trace + ".1"), HasSubstr("not overwritten")));
  EXPECT_EQ(Content(trace + ".1"), "a letter");
}

TEST_F(TraceTest, SomebodyElsesFileIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  std::ofstream(path_) << "";
  ASSERT_EQ(chown(path_.c_str(), 65534, 65534), 0);
  EXPECT_THAT(Refusal(path_), HasSubstr("another user"));
}

TEST_F(TraceTest, OnlyItsUserReadsItWhateverWasThere) {
  const mode_t before = umask(0);
  {
    Trace trace;
    ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  }
  umask(before);
  chmod(path_.c_str(), 0666);
  Trace trace;
  ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  struct stat file = {};
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
}

TEST_F(TraceTest, ATraceOfBeforeIsKeptUnderAnotherName) {
  for (const char first : {'a', 'b', 'c'}) {
    Trace trace;
    ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
    Write(trace, first);
  }
  EXPECT_EQ(Messages(path_), "c");
  EXPECT_EQ(Messages(path_ + ".1"), "b");
}

TEST_F(TraceTest, AFullFileIsKeptOnceAndBegunAnew) {
  {
    Trace trace;
    const uint64_t three = wire::kCaptureFileHeaderSize + 3 * (wire::kCapturePacketHeaderSize + 8);
    ASSERT_TRUE(trace.Use({path_, three}, kPatience).ok());
    for (const char first : std::string("abcdefgh")) Write(trace, first);
  }
  EXPECT_EQ(Messages(path_), "gh");
  EXPECT_EQ(Messages(path_ + ".1"), "def");
}

TEST_F(TraceTest, AMessageThatIsLargerThanTheLimitHasAFileOfItsOwn) {
  {
    Trace trace;
    ASSERT_TRUE(trace.Use({path_, 1}, kPatience).ok());
    for (const char first : std::string("abc")) Write(trace, first, 264);
  }
  EXPECT_EQ(Messages(path_), "c");
  EXPECT_EQ(Messages(path_ + ".1"), "b");
}

TEST_F(TraceTest, AFullDiskEndsItWithTheReasonAndNoHalfMessage) {
  // A limit on the size of files stands for the disk.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  constexpr size_t kMessage = 30'000;  // the log is a file, too
  const rlimit small = {
      wire::kCaptureFileHeaderSize + 2 * (wire::kCapturePacketHeaderSize + kMessage) + 5,
      before.rlim_max};
  CaptureStderr();
  Trace trace;
  ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (const char first : std::string("abc")) Write(trace, first, kMessage);
  EXPECT_TRUE(trace.Use({}, kPatience).ok());  // everything before it has been written
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(trace.on());
  EXPECT_THAT(GetCapturedStderr(), AllOf(HasSubstr(path_ + ": File too large"),
                                         HasSubstr("ends here, with 2 messages")));
  EXPECT_EQ(Messages(path_), "ab");
}

TEST_F(TraceTest, ADiskThatHangsCostsMessagesAndNobodysTime) {
  std::promise<void> hung, answers;
  CaptureStderr();
  {
    Trace trace;
    ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
    trace.BeforeWriting([&] {
      hung.set_value();
      answers.get_future().wait();
    });
    Write(trace, 'a');
    hung.get_future().wait();
    // Returns although nobody writes: 8 MiB.
    for (int i = 0; i < 32 * 1024; ++i) Write(trace, 'b', 256 - wire::kCapturePacketHeaderSize);
    EXPECT_TRUE(absl::IsDeadlineExceeded(
        trace.Use({directory_ + "/other", kNoLimit}, absl::ZeroDuration())));
    answers.set_value();
    EXPECT_TRUE(trace.Use({}, kPatience).ok());
  }
  const std::string log = GetCapturedStderr();
  EXPECT_THAT(log, AllOf(HasSubstr("messages are not in it"), HasSubstr("other answers now")));
  const std::string messages = Messages(path_);
  EXPECT_EQ(messages.front(), 'a');
  EXPECT_EQ(messages.size(), kMaxTraceBacklog / 256);
}

TEST_F(TraceTest, GoesOnWhereItIsSentAndInANewFileWhenTheOldOneWasMoved) {
  Trace trace;
  Write(trace, '-');  // not on yet
  ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  Write(trace, 'a');
  ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  Write(trace, 'b');
  std::filesystem::rename(path_, directory_ + "/moved");
  ASSERT_TRUE(trace.Use({path_, kNoLimit}, kPatience).ok());
  Write(trace, 'c');
  // What cannot be made leaves the old one.
  EXPECT_FALSE(trace.Use({directory_ + "/none/trace", kNoLimit}, kPatience).ok());
  Write(trace, 'd');
  ASSERT_TRUE(trace.Use({}, kPatience).ok());
  Write(trace, 'e');
  EXPECT_EQ(Messages(directory_ + "/moved"), "ab");
  EXPECT_EQ(Messages(path_), "cd");
}

}  // namespace
}  // namespace vmsg::backend
