// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/notifier.h"

#include <systemd/sd-daemon.h>

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace vmsg {
namespace {

// That nobody listens, or not any more, changes nothing for the guests.
void Tell(const std::string& message) { (void)sd_notify(/*unset_environment=*/0, message.c_str()); }

}  // namespace

void Notifier::Ready(absl::string_view status) {
  status_ = std::string(status);
  Tell(absl::StrCat("READY=1\nSTATUS=", status));
}

void Notifier::Reloading() { Tell("RELOADING=1"); }

void Notifier::Stopping() { Tell("STOPPING=1\nSTATUS=stopping"); }

void Notifier::Status(absl::string_view status) {
  if (status == status_) return;
  status_ = std::string(status);
  Tell(absl::StrCat("STATUS=", status));
}

void Notifier::Alive() { Tell("WATCHDOG=1"); }

absl::Duration Notifier::WatchdogLimit() {
  uint64_t limit_us = 0;
  if (sd_watchdog_enabled(/*unset_environment=*/0, &limit_us) <= 0) return absl::InfiniteDuration();
  return absl::Microseconds(static_cast<int64_t>(limit_us));
}

}  // namespace vmsg
