// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/waiting.h"

#include <poll.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmsg::ctl {
namespace {

constexpr char kToken[] = "vmsgctl";

absl::StatusOr<bool> WaitWatching(xenstore::Store& store, absl::Duration limit,
                                  absl::FunctionRef<absl::StatusOr<bool>()> condition) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(limit);
  while (true) {
    absl::StatusOr<bool> met = condition();
    if (!met.ok() || *met) return met;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd ready{.fd = store.fd(), .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, static_cast<int>(left.count())) < 0 && errno != EINTR) {
      return absl::InternalError(absl::StrCat("cannot wait for the store: ", std::strerror(errno)));
    }
    absl::StatusOr<std::vector<xenstore::WatchEvent>> events = store.TakeWatchEvents();
    if (!events.ok()) return events.status();
  }
}

}  // namespace

absl::StatusOr<bool> WaitFor(xenstore::Store& store, const std::string& path, absl::Duration limit,
                             absl::FunctionRef<absl::StatusOr<bool>()> condition) {
  if (absl::Status status = store.Watch(path, kToken); !status.ok()) return status;
  absl::StatusOr<bool> met = WaitWatching(store, limit, condition);
  store.Unwatch(path, kToken).IgnoreError();
  return met;
}

}  // namespace vmsg::ctl
