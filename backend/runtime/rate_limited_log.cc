// SPDX-License-Identifier: Apache-2.0
#include "backend/runtime/rate_limited_log.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "text/foreign_text.h"

namespace vmsg::backend {
namespace {

constexpr size_t kMaxLine = 1024;

// Of stderr: what one thread saw room for, another must not take.
std::mutex g_stderr;
uint64_t g_lost = 0;  // guarded by g_stderr: lines since the last one that was taken

std::atomic<LogLevel> g_most_verbose = LogLevel::kInfo;
std::atomic<LogStyle> g_style = LogStyle::kPlain;

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "?";
}

std::string Prefix(LogLevel level) {
  switch (g_style.load()) {
    case LogStyle::kPlain:
      return "";
    case LogStyle::kJournal:
      return absl::StrCat("<", static_cast<int>(level), ">");
    case LogStyle::kTimed:
      return absl::StrCat(
          absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
          LevelName(level), ": ");
  }
  return "";
}

}  // namespace

LogStyle LogStyleOfStderr() {
  // "<device>:<inode>" of the stream: it may have been inherited while stderr went elsewhere.
  const char* const stream = getenv("JOURNAL_STREAM");
  struct stat file = {};
  if (stream != nullptr && fstat(STDERR_FILENO, &file) == 0 &&
      absl::StrCat(file.st_dev, ":", file.st_ino) == stream) {
    return LogStyle::kJournal;
  }
  return LogStyle::kTimed;
}

void SetLogging(LogLevel most_verbose, LogStyle style) {
  g_most_verbose = most_verbose;
  g_style = style;
}

void SetLogLevel(LogLevel most_verbose) { g_most_verbose = most_verbose; }

bool LogEnabled(LogLevel level) { return level <= g_most_verbose; }

void Log(LogLevel level, absl::string_view text) {
  if (!LogEnabled(level)) return;
  std::string line = absl::StrCat(Prefix(level), CleanText(text, kMaxLine), "\n");
  std::lock_guard lock(g_stderr);
  // A pipe that is ready takes 4 KiB at once, a socket more.
  pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&room, 1, 0) == 0) {
    ++g_lost;
    return;
  }
  if (g_lost > 0) {
    line = absl::StrCat(Prefix(LogLevel::kWarning), std::exchange(g_lost, 0),
                        " lines are lost: standard error took none\n", line);
  }
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

bool RateLimitedLog::Admit(LogLevel level, absl::Time now) {
  if (!LogEnabled(level)) return false;
  std::lock_guard lock(mutex_);
  Bucket& bucket = BucketOf(level);
  if (bucket.refilled == absl::InfinitePast()) bucket.refilled = now;
  const int64_t earned = std::max<int64_t>(0, (now - bucket.refilled) / bucket.interval);
  if (earned > 0) {
    bucket.refilled += earned * bucket.interval;
    bucket.tokens = static_cast<uint32_t>(std::min<int64_t>(bucket.burst, earned + bucket.tokens));
  }
  if (bucket.tokens == 0) {
    ++bucket.suppressed;
    return false;
  }
  --bucket.tokens;
  return true;
}

void RateLimitedLog::Write(LogLevel level, absl::string_view text) {
  uint64_t swallowed;
  {
    std::lock_guard lock(mutex_);
    swallowed = std::exchange(BucketOf(level).suppressed, 0);
  }
  if (swallowed == 0) {
    Log(level, absl::StrCat(prefix_, text));
  } else {
    Log(level, absl::StrCat(prefix_, text, " (and ", swallowed, " lines not shown before it)"));
  }
}

}  // namespace vmsg::backend
