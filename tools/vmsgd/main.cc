// SPDX-License-Identifier: Apache-2.0
// vmsgd: the backend service.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/supervisor.h"
#include "grants/platform.h"
#include "tools/vmsgd/arguments.h"

namespace vmsg {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int Fail(const absl::Status& status) {
  backend::Log(backend::LogLevel::kError, absl::StrCat("vmsgd: ", status.message()));
  return kExitFailure;
}

void TellReady(int fd) {
  const absl::string_view text = "ready\n";
  [[maybe_unused]] ssize_t written = write(fd, text.data(), text.size());
}

int Run(const Arguments& arguments) {
  backend::SetLogging(arguments.log_level, arguments.log_priority);
  // Blocked before there are threads, so that they all inherit it and only the loop takes signals.
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // Each guest costs a few descriptors.
  if (rlimit files; getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }

  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform(arguments.xen);
  if (!platform.ok()) return Fail(platform.status());
  std::unique_ptr<backend::ThreadLoop> loop = backend::NewEpollLoop(absl::ZeroDuration());
  absl::Status result;
  absl::StatusOr<std::unique_ptr<backend::Supervisor>> supervisor = backend::Supervisor::Start(
      loop.get(), **platform, arguments.service, [&](absl::Status status) {
        result = std::move(status);
        loop->Stop();
      });
  if (!supervisor.ok()) return Fail(supervisor.status());

  backend::UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  absl::Status watch = loop->Watch(signal_fd.get(), EPOLLIN, [&](uint32_t) {
    signalfd_siginfo info;
    while (read(signal_fd.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGHUP || info.ssi_signo == SIGUSR1) {
        (*supervisor)->LogCounters();
      } else {
        backend::Log(backend::LogLevel::kInfo, "vmsgd: stopping");
        (*supervisor)->Stop();
      }
    }
  });
  if (!watch.ok()) return Fail(watch);
  backend::Log(backend::LogLevel::kInfo,
               absl::StrCat("vmsgd: serving on ", (*platform)->name(), " with ",
                            arguments.service.io_threads, " I/O threads"));
  TellReady(arguments.ready_fd >= 0 ? arguments.ready_fd : STDOUT_FILENO);
  loop->Run();
  if (!result.ok()) {
    // Something hangs in the kernel or xenstore is gone: joining threads could wait for ever. The
    // kernel unmaps and closes what is left.
    Fail(result);
    _exit(kExitFailure);
  }
  return 0;
}

}  // namespace
}  // namespace vmsg

int main(int argc, char** argv) {
  absl::StatusOr<vmsg::Arguments> arguments = vmsg::ParseArguments(argc, argv);
  if (!arguments.ok()) {
    fprintf(stderr, "vmsgd: %s\nTry vmsgd --help.\n",
            std::string(arguments.status().message()).c_str());
    return vmsg::kExitUsage;
  }
  if (arguments->help) {
    fputs(vmsg::HelpText(), stdout);
    return 0;
  }
  return vmsg::Run(*arguments);
}
