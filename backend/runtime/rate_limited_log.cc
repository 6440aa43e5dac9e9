// SPDX-License-Identifier: Apache-2.0
#include "backend/runtime/rate_limited_log.h"

#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

constexpr size_t kMaxLine = 1024;

std::atomic<LogLevel> g_most_verbose = LogLevel::kInfo;
std::atomic<bool> g_priority_prefix = false;

}  // namespace

void SetLogging(LogLevel most_verbose, bool priority_prefix) {
  g_most_verbose = most_verbose;
  g_priority_prefix = priority_prefix;
}

bool LogEnabled(LogLevel level) { return level <= g_most_verbose; }

void Log(LogLevel level, absl::string_view text) {
  if (!LogEnabled(level)) return;
  std::string line =
      g_priority_prefix ? absl::StrCat("<", static_cast<int>(level), ">") : std::string();
  for (char c : text.substr(0, kMaxLine)) {
    const auto byte = static_cast<unsigned char>(c);
    line.push_back(byte < 0x20 || byte == 0x7f ? '?' : c);
  }
  line.push_back('\n');
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

bool RateLimitedLog::Admit(absl::Time now) {
  std::lock_guard lock(mutex_);
  if (refilled_ == absl::InfinitePast()) refilled_ = now;
  const int64_t earned = std::max<int64_t>(0, (now - refilled_) / interval_);
  if (earned > 0) {
    refilled_ += earned * interval_;
    tokens_ = static_cast<uint32_t>(std::min<int64_t>(burst_, earned + tokens_));
  }
  if (tokens_ == 0) {
    ++suppressed_;
    return false;
  }
  --tokens_;
  return true;
}

void RateLimitedLog::Write(LogLevel level, absl::string_view text) {
  uint64_t swallowed;
  {
    std::lock_guard lock(mutex_);
    swallowed = std::exchange(suppressed_, 0);
  }
  if (swallowed == 0) {
    Log(level, absl::StrCat(prefix_, text));
  } else {
    Log(level, absl::StrCat(prefix_, text, " (and ", swallowed, " lines not shown before it)"));
  }
}

}  // namespace vmsg::backend
