// SPDX-License-Identifier: Apache-2.0
// The service as a process: signals, reload, and what the service manager is told.
#pragma once

#include <sys/signalfd.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"
#include "backend/service/supervisor.h"
#include "grants/platform.h"
#include "tools/vmsgd/configuration/arguments.h"
#include "tools/vmsgd/notifier.h"
#include "tools/vmsgd/watchdog.h"

namespace vmsg {

class Daemon {
 public:
  // The signals are blocked in the calling thread and so in all that it starts: before it, no other
  // thread may run. The error says what is missing; AlreadyExists: another vmsgd serves this Xen.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const CommandLine& command_line,
                                                       const Configuration& configuration);
  ~Daemon();

  // Serves until SIGTERM or SIGINT, or until xenstore is lost. An error means that something hangs:
  // the caller should leave without destroying this, which could wait for ever.
  absl::Status Run();

 private:
  Daemon(const CommandLine& command_line, const Configuration& configuration)
      : command_line_(command_line), configuration_(configuration) {}

  absl::Status Prepare();
  // Waits a while for another one whose process has ended and whose requests have not.
  absl::Status BecomeTheServer();
  void OnSignal(const signalfd_siginfo& info);
  // SIGHUP.
  void Reload();
  // What the reload came to, for the log and the manager; a problem of the file changes nothing.
  std::string Apply(const Configuration& next);
  void TellReady();
  std::string StatusLine() const;
  void StatusChanged();

  const CommandLine command_line_;
  Configuration configuration_;
  Notifier notifier_;
  bool stopping_ = false;
  absl::Status result_;

  backend::UniqueFd signals_;
  std::unique_ptr<grants::Platform> platform_;
  backend::UniqueFd server_lock_;
  std::unique_ptr<backend::ThreadLoop> loop_;
  std::unique_ptr<backend::Supervisor> supervisor_;
  std::optional<Watchdog> watchdog_;
  backend::EventLoop::TimerId status_timer_ = 0;
};

}  // namespace vmsg
