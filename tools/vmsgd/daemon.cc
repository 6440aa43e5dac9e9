// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/daemon.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/sandbox/sandbox.h"
#include "backend/server-lock/server_lock.h"
#include "tools/program/program.h"

namespace vmsg {
namespace {

using backend::Log;
using backend::LogLevel;

// A guest that connects and disconnects in a loop costs the manager no more lines than this allows.
constexpr absl::Duration kStatusInterval = absl::Milliseconds(250);

// How long a start waits for a vmsgd that has ended and whose requests the kernel has not finished;
// then the service manager tries again. The kernel takes some milliseconds to close a ring in any
// case, which is no news.
constexpr absl::Duration kServerPatience = absl::Seconds(10);
constexpr absl::Duration kServerEndsQuietly = absl::Seconds(1);
constexpr absl::Duration kServerPollInterval = absl::Milliseconds(20);

absl::StatusOr<backend::UniqueFd> TakeSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  backend::UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "signalfd");
  return fd;
}

// Each guest costs a few descriptors.
void AllowAllDescriptors() {
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

absl::Status NoSandbox(const absl::Status& why) {
  return absl::FailedPreconditionError(absl::StrCat(
      "sandbox: ", why.message(), "; --sandbox=off runs without one, at the host's risk"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const CommandLine& command_line,
                                                      const Configuration& configuration) {
  auto daemon = std::unique_ptr<Daemon>(new Daemon(command_line, configuration));
  if (absl::Status prepared = daemon->Prepare(); !prepared.ok()) return prepared;
  return daemon;
}

absl::Status Daemon::Prepare() {
  const Arguments& arguments = configuration_.arguments;
  backend::SetLogging(arguments.log_level, backend::LogStyleOfStderr());
  absl::StatusOr<backend::UniqueFd> signals = TakeSignals();
  if (!signals.ok()) return signals.status();
  signals_ = *std::move(signals);
  AllowAllDescriptors();
  // Before there are threads; what is opened below is this user's own.
  const bool sandbox = arguments.sandbox && backend::SandboxIsAvailable();
  if (sandbox) {
    if (absl::Status shed = backend::ShedPrivileges(); !shed.ok()) return NoSandbox(shed);
  } else {
    Log(LogLevel::kWarning,
        absl::StrCat(
            "sandbox: OFF, ",
            arguments.sandbox ? "this is a build with sanitizers" : "as --sandbox=off says",
            ": a guest that takes over this process has all that its user has"));
  }

  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform(arguments.xen);
  if (!platform.ok()) return platform.status();
  platform_ = *std::move(platform);
  // Before xenstore is touched: what stands there is the other one's.
  if (absl::Status alone = BecomeTheServer(); !alone.ok()) return alone;
  backend::ServiceOptions service = arguments.service;
  service.keeps = server_lock_.get();
  loop_ = backend::NewEpollLoop({absl::ZeroDuration()});
  absl::StatusOr<std::unique_ptr<backend::Supervisor>> supervisor =
      backend::Supervisor::Start(loop_.get(), *platform_, service, [this](absl::Status status) {
        result_ = std::move(status);
        loop_->Stop();
      });
  if (!supervisor.ok()) return supervisor.status();
  supervisor_ = *std::move(supervisor);
  supervisor_->OnChange([this] { StatusChanged(); });
  if (sandbox) {
    if (absl::Status restricted = backend::RestrictSystemCalls(); !restricted.ok()) {
      return NoSandbox(restricted);
    }
  }
  return loop_->Watch(signals_.get(), EPOLLIN, [this](uint32_t) {
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof info) == sizeof info) OnSignal(info);
  });
}

absl::Status Daemon::BecomeTheServer() {
  const std::string path = platform_->lock_path();
  for (absl::Duration waited;; waited += kServerPollInterval) {
    absl::StatusOr<backend::UniqueFd> lock = backend::TakeServerLock(path);
    if (lock.ok()) {
      server_lock_ = *std::move(lock);
      return absl::OkStatus();
    }
    if (!absl::IsAlreadyExists(lock.status()) || waited >= kServerPatience) return lock.status();
    absl::StatusOr<std::optional<backend::LivingServer>> other = backend::FindServer(path);
    if (!other.ok()) return other.status();
    if (other->has_value() && !(*other)->ending) return lock.status();
    if (waited == kServerEndsQuietly) {
      const std::string text = absl::StrCat("waiting for ", lock.status().message());
      Log(LogLevel::kWarning, absl::StrCat("vmsgd: ", text));
      notifier_.Status(text);
    }
    pollfd stop = {.fd = signals_.get(), .events = POLLIN, .revents = 0};
    if (poll(&stop, 1, static_cast<int>(absl::ToInt64Milliseconds(kServerPollInterval))) > 0) {
      return lock.status();
    }
  }
}

Daemon::~Daemon() {
  watchdog_.reset();
  supervisor_.reset();
}

absl::Status Daemon::Run() {
  if (absl::Duration limit = Notifier::WatchdogLimit(); limit != absl::InfiniteDuration()) {
    watchdog_.emplace(
        loop_.get(), limit, [this] { return supervisor_->HangingThreads(); },
        [this] { notifier_.Alive(); });
  }
  Log(LogLevel::kInfo,
      absl::StrCat("vmsgd ", Version(), ": serving on ", platform_->name(), " with ",
                   configuration_.arguments.service.io_threads, " I/O threads"));
  TellReady();
  loop_->Run();
  return result_;
}

void Daemon::TellReady() {
  notifier_.Ready(StatusLine());
  const int ready_fd = configuration_.arguments.ready_fd;
  const absl::string_view text = "ready\n";
  const int fd = ready_fd >= 0 ? ready_fd : STDOUT_FILENO;
  if (write(fd, text.data(), text.size()) >= 0) return;
  // Closed by whoever started it, who does not wait for it.
  if (errno == EBADF && ready_fd < 0) return;
  // The guests come first.
  Log(LogLevel::kWarning, absl::StrCat("vmsgd: cannot write `ready` to descriptor ", fd, ": ",
                                       std::strerror(errno), "; it serves nevertheless"));
}

void Daemon::OnSignal(const signalfd_siginfo& info) {
  switch (info.ssi_signo) {
    case SIGUSR1:
      return supervisor_->LogCounters();
    case SIGHUP:
      return Reload();
    default:
      Log(LogLevel::kInfo, "vmsgd: stopping");
      stopping_ = true;
      notifier_.Stopping();
      return supervisor_->Stop();
  }
}

void Daemon::Reload() {
  if (stopping_) return;
  notifier_.Reloading();
  absl::StatusOr<Configuration> next = Configure(command_line_);
  if (next.ok()) {
    Log(LogLevel::kInfo, absl::StrCat("reload: ", Apply(*next)));
  } else {
    Log(LogLevel::kError,
        absl::StrCat("reload: refused, nothing is changed: ", next.status().message()));
  }
  notifier_.Ready(StatusLine());
}

std::string Daemon::Apply(const Configuration& next) {
  std::vector<std::string> now, later;
  for (const OptionRow* row : Changes(configuration_.settings, next.settings)) {
    (row->changed == WhenChanged::kAtReload ? now : later).push_back(row->name);
  }
  backend::SetLogLevel(next.arguments.log_level);
  // Also when nothing changed: the trace may have been renamed, to begin a new one.
  if (absl::Status trace = supervisor_->Reconfigure(next.arguments.service); !trace.ok()) {
    Log(LogLevel::kError, absl::StrCat("reload: ", trace.message()));
  }
  configuration_ = next;
  std::string text =
      now.empty() ? "nothing changed" : absl::StrCat("changed ", absl::StrJoin(now, ", "));
  if (!later.empty()) {
    absl::StrAppend(&text, "; takes effect at restart: ", absl::StrJoin(later, ", "));
  }
  if (const size_t again = supervisor_->TryRefusedAgain(); again > 0) {
    absl::StrAppend(&text, "; refused entries that are tried again: ", again);
  }
  return text;
}

std::string Daemon::StatusLine() const {
  const backend::Supervisor::Summary summary = supervisor_->Summarize();
  return absl::StrCat(summary.buses, " buses, ", summary.connected, " connected, ", summary.devices,
                      " devices, ", summary.refused, " refused");
}

void Daemon::StatusChanged() {
  if (status_timer_ != 0 || stopping_) return;
  status_timer_ = loop_->RunAfter(kStatusInterval, [this] {
    status_timer_ = 0;
    if (!stopping_) notifier_.Status(StatusLine());
  });
}

}  // namespace vmsg
