// SPDX-License-Identifier: Apache-2.0
#include "backend/runtime/rate_limited_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace vmsg::backend {
namespace {

using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(RateLimitedLog, LetsABurstPassThenOneEachInterval) {
  RateLimitedLog log("g1: ", 3, absl::Seconds(10));
  absl::Time now = absl::UnixEpoch();
  int passed = 0;
  for (int i = 0; i < 1000; ++i) passed += log.Admit(LogLevel::kError, now);
  EXPECT_EQ(passed, 3);
  EXPECT_EQ(log.suppressed(), 997u);
  now += absl::Seconds(9);
  EXPECT_FALSE(log.Admit(LogLevel::kError, now));
  now += absl::Seconds(1);
  EXPECT_TRUE(log.Admit(LogLevel::kError, now));
  EXPECT_FALSE(log.Admit(LogLevel::kError, now));
}

TEST(RateLimitedLog, SavesUpNoMoreThanABurst) {
  RateLimitedLog log("g1: ", 3, absl::Seconds(1));
  absl::Time now = absl::UnixEpoch();
  EXPECT_TRUE(log.Admit(LogLevel::kError, now));
  now += absl::Hours(1);
  int passed = 0;
  for (int i = 0; i < 1000; ++i) passed += log.Admit(LogLevel::kError, now);
  EXPECT_EQ(passed, 3);
}

TEST(RateLimitedLog, SaysHowManyItSwallowed) {
  RateLimitedLog log("g1: ", 1, absl::Seconds(1));
  CaptureStderr();
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 5; ++i) {
    if (log.Admit(LogLevel::kError, now)) log.Write(LogLevel::kError, "first");
  }
  now += absl::Seconds(1);
  if (log.Admit(LogLevel::kError, now)) log.Write(LogLevel::kError, "second");
  EXPECT_EQ(GetCapturedStderr(), "g1: first\ng1: second (and 4 lines not shown before it)\n");
}

TEST(RateLimitedLog, LinesThatNobodySeesTakeNothingFromTheOthers) {
  RateLimitedLog log("g1: ", 1, absl::Seconds(1));
  const absl::Time now = absl::UnixEpoch();
  CaptureStderr();
  for (int i = 0; i < 1000; ++i) log.Line(now, LogLevel::kDebug, "not logged");
  log.Line(now, LogLevel::kError, "seen");
  SetLogLevel(LogLevel::kDebug);
  for (int i = 0; i < 1000; ++i) log.Line(now, LogLevel::kDebug, "d");
  log.Line(now + absl::Seconds(1), LogLevel::kError, "seen, too");
  SetLogLevel(LogLevel::kInfo);
  const std::string text = GetCapturedStderr();
  EXPECT_THAT(text, ::testing::StartsWith("g1: seen\ng1: d\n"));
  EXPECT_THAT(text, ::testing::EndsWith("g1: d\ng1: seen, too\n"));
  // Bounded at debug level, too.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2 + RateLimitedLog::kDebugBurst);
}

TEST(Log, GuestsBytesCannotForgeALine) {
  CaptureStderr();
  Log(LogLevel::kError, "bad\nname\x1b[31m\x7f");
  EXPECT_EQ(GetCapturedStderr(), "bad\\nname\\x1b[31m\\x7f\n");
}

TEST(Log, LinesAreCutAtALimit) {
  CaptureStderr();
  Log(LogLevel::kError, std::string(100'000, 'x'));
  EXPECT_LE(GetCapturedStderr().size(), 1025u);
}

// A pager that was stopped, a journal that hangs: without the look before, this never ends.
TEST(Log, AReaderThatStopsStopsNobody) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const int stderr_before = dup(STDERR_FILENO);
  ASSERT_EQ(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
  for (int i = 0; i < 100; ++i) Log(LogLevel::kError, std::string(5'000, 'x'));
  std::string text(1 << 20, 0);
  ssize_t got = read(ends[0], text.data(), text.size());
  EXPECT_GT(got, 32'768);
  const auto passed = std::count(text.begin(), text.begin() + got, '\n');
  Log(LogLevel::kError, "read again");
  Log(LogLevel::kError, "and again");
  dup2(stderr_before, STDERR_FILENO);
  got = read(ends[0], text.data(), text.size());
  EXPECT_EQ(text.substr(0, got),
            std::to_string(100 - passed) +
                " lines are lost: standard error took none\nread again\nand again\n");
  for (const int fd : {ends[0], ends[1], stderr_before}) close(fd);
}

TEST(Log, IsWrittenForWhoeverReadsIt) {
  CaptureStderr();
  SetLogging(LogLevel::kInfo, LogStyle::kJournal);
  Log(LogLevel::kWarning, "for the journal");
  SetLogging(LogLevel::kInfo, LogStyle::kTimed);
  Log(LogLevel::kError, "with a time");
  SetLogLevel(LogLevel::kError);
  Log(LogLevel::kInfo, "left out");
  SetLogging(LogLevel::kInfo, LogStyle::kPlain);
  Log(LogLevel::kInfo, "alone");
  EXPECT_THAT(GetCapturedStderr(),
              ::testing::MatchesRegex("<4>for the journal\n20[0-9-]+T[0-9:.]+Z error: with a "
                                      "time\nalone\n"));
}

TEST(Log, KnowsTheJournalByItsStream) {
  CaptureStderr();  // a file of its own
  struct stat file = {};
  ASSERT_EQ(fstat(2, &file), 0);
  setenv("JOURNAL_STREAM",
         (std::to_string(file.st_dev) + ":" + std::to_string(file.st_ino)).c_str(), 1);
  EXPECT_EQ(LogStyleOfStderr(), LogStyle::kJournal);
  setenv("JOURNAL_STREAM", "1:2", 1);  // inherited, while stderr went elsewhere
  EXPECT_EQ(LogStyleOfStderr(), LogStyle::kTimed);
  unsetenv("JOURNAL_STREAM");
  EXPECT_EQ(LogStyleOfStderr(), LogStyle::kTimed);
  GetCapturedStderr();
}

}  // namespace
}  // namespace vmsg::backend
