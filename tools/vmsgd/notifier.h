// SPDX-License-Identifier: Apache-2.0
// What a service manager is told: systemd's notification protocol (sd_notify(3)). Without a
// NOTIFY_SOCKET in the environment every call does nothing.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace vmsg {

// One thread at a time.
class Notifier {
 public:
  // It serves; also: it serves again after Reloading.
  void Ready(absl::string_view status);
  void Reloading();
  void Stopping();
  // One line for an operator. The same line is not told again.
  void Status(absl::string_view status);
  void Alive();

  // How long the manager waits for Alive before it takes the service for dead; infinite when it
  // does not watch. Another process's limit, which we merely inherited, is not ours.
  static absl::Duration WatchdogLimit();

 private:
  std::string status_;
};

}  // namespace vmsg
