// SPDX-License-Identifier: Apache-2.0
// Log lines, and the limit on those that a guest can cause.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace vmsg::backend {

enum class LogLevel { kError = 3, kWarning = 4, kInfo = 6, kDebug = 7 };  // syslog's numbers

// One line to stderr, at once and whole. `text` is cleaned (text/foreign_text.h), so that what a
// guest wrote cannot forge a line, and cut when it is long. Never waits for a pipe's, a journal's
// or a terminal's reader, who would hold up the guests: the line is lost then, and the next one
// that is taken says how many were. Thread-safe.
void Log(LogLevel level, absl::string_view text);

enum class LogStyle {
  kPlain,    // the text only
  kJournal,  // "<n>" first, as systemd's journal reads it; the journal adds the time
  kTimed,    // UTC and the level first
};
// Whether standard error is a journal's stream, by what systemd says in the environment.
LogStyle LogStyleOfStderr();

// Lines above this level are dropped. The style is set once, before threads start; the level may
// change at any time.
void SetLogging(LogLevel most_verbose, LogStyle style);
void SetLogLevel(LogLevel most_verbose);
bool LogEnabled(LogLevel level);

// A token bucket: `burst` lines at once, then one each `interval`. What it swallows is counted and
// told with the next line that passes. Lines of debug level have a bucket of their own, so that
// they never stand in the way of the others. Thread-safe: all that logs for one bus shares one.
class RateLimitedLog {
 public:
  static constexpr uint32_t kBurst = 10;  // enough to see one failure whole
  static constexpr absl::Duration kInterval = absl::Seconds(10);
  // A bus with all its devices comes up in fewer lines.
  static constexpr uint32_t kDebugBurst = 300;
  static constexpr absl::Duration kDebugInterval = absl::Milliseconds(50);

  explicit RateLimitedLog(std::string prefix, uint32_t burst = kBurst,
                          absl::Duration interval = kInterval)
      : prefix_(std::move(prefix)),
        ordinary_(burst, interval),
        debug_(kDebugBurst, kDebugInterval) {}

  // Ask first, then build the text. A line whose level is not logged is not admitted, and takes
  // nothing from the others. `now`: the loop's time.
  bool Admit(LogLevel level, absl::Time now);
  // After Admit with the same level.
  void Write(LogLevel level, absl::string_view text);

  // Both.
  void Line(absl::Time now, LogLevel level, absl::string_view text) {
    if (Admit(level, now)) Write(level, text);
  }

  uint64_t suppressed() const {
    std::lock_guard lock(mutex_);
    return ordinary_.suppressed;
  }

 private:
  struct Bucket {
    Bucket(uint32_t burst, absl::Duration interval)
        : burst(burst), interval(interval), tokens(burst) {}
    const uint32_t burst;
    const absl::Duration interval;
    uint32_t tokens;
    absl::Time refilled = absl::InfinitePast();
    uint64_t suppressed = 0;  // since the last line that passed
  };
  Bucket& BucketOf(LogLevel level) { return level == LogLevel::kDebug ? debug_ : ordinary_; }

  const std::string prefix_;
  mutable std::mutex mutex_;
  Bucket ordinary_;  // guarded by mutex_
  Bucket debug_;     // guarded by mutex_
};

}  // namespace vmsg::backend
