// SPDX-License-Identifier: Apache-2.0
#include "backend/runtime/rate_limited_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>

namespace vmsg::backend {
namespace {

using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

TEST(RateLimitedLog, LetsABurstPassThenOneEachInterval) {
  RateLimitedLog log("g1: ", 3, absl::Seconds(10));
  absl::Time now = absl::UnixEpoch();
  int passed = 0;
  for (int i = 0; i < 1000; ++i) passed += log.Admit(now);
  EXPECT_EQ(passed, 3);
  EXPECT_EQ(log.suppressed(), 997u);
  now += absl::Seconds(9);
  EXPECT_FALSE(log.Admit(now));
  now += absl::Seconds(1);
  EXPECT_TRUE(log.Admit(now));
  EXPECT_FALSE(log.Admit(now));
}

TEST(RateLimitedLog, SavesUpNoMoreThanABurst) {
  RateLimitedLog log("g1: ", 3, absl::Seconds(1));
  absl::Time now = absl::UnixEpoch();
  EXPECT_TRUE(log.Admit(now));
  now += absl::Hours(1);
  int passed = 0;
  for (int i = 0; i < 1000; ++i) passed += log.Admit(now);
  EXPECT_EQ(passed, 3);
}

TEST(RateLimitedLog, SaysHowManyItSwallowed) {
  RateLimitedLog log("g1: ", 1, absl::Seconds(1));
  CaptureStderr();
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 5; ++i) {
    if (log.Admit(now)) log.Write(LogLevel::kError, "first");
  }
  now += absl::Seconds(1);
  if (log.Admit(now)) log.Write(LogLevel::kError, "second");
  EXPECT_EQ(GetCapturedStderr(), "g1: first\ng1: second (and 4 lines not shown before it)\n");
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
