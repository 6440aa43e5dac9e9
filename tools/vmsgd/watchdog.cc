// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/watchdog.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg {

Watchdog::Watchdog(backend::EventLoop* loop, absl::Duration limit,
                   absl::AnyInvocable<std::vector<size_t>()> hanging,
                   absl::AnyInvocable<void()> alive)
    : loop_(loop), interval_(limit / 2), hanging_(std::move(hanging)), alive_(std::move(alive)) {
  LookLater();
}

Watchdog::~Watchdog() { loop_->Cancel(timer_); }

void Watchdog::LookLater() {
  timer_ = loop_->RunAfter(interval_, [this] { Look(); });
}

void Watchdog::Look() {
  std::vector<size_t> hanging = hanging_();
  if (hanging != told_) {
    if (hanging.empty()) {
      backend::Log(backend::LogLevel::kWarning, "watchdog: all I/O threads get on again");
    } else {
      backend::Log(
          backend::LogLevel::kError,
          absl::StrCat("watchdog: no progress of I/O thread ", absl::StrJoin(hanging, ", "),
                       " for ", absl::FormatDuration(interval_),
                       "; the service manager is told nothing until it gets on"));
    }
    told_ = std::move(hanging);
  }
  if (told_.empty()) alive_();
  LookLater();
}

}  // namespace vmsg
