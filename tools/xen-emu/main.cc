// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "tools/program/program.h"
#include "tools/xen-emu/control/control.h"
#include "tools/xen-emu/server.h"

namespace vmsg::emu {
namespace {

constexpr char kUsage[] =
    "usage: xen-emu serve --dir D [options]      the hypervisor and xenstored, in the foreground\n"
    "       xen-emu create --dir D [--name N] [--memory MiB]    prints the domid\n"
    "       xen-emu destroy --dir D <domid|name>\n"
    "       xen-emu shutdown --dir D <domid|name>\n"
    "       xen-emu list --dir D\n"
    "       xen-emu debug --dir D                grants, mappings and ports in use, per domain\n"
    "       xen-emu fault --dir D <fault> [arguments]\n"
    "faults: map-fail <domid> <entry> [times]    share-fail <domid> [times]\n"
    "        bind-fail <domid> [times]           lose-events <domid> <port> <n>\n"
    "        store-hold   store-release          store-delay <ms>\n"
    "        store-lose <domid> <n>\n"
    "        list         clear\n"
    "options of serve:\n"
    "  --max-grant-frames N       512 grant references each, per domain (64)\n"
    "  --max-maptrack-frames N    256 mappings each, per domain (1024)\n"
    "  --gntalloc-limit N         pages that one domain shares (1048576)\n"
    "  --until-stdin-closes       end also when standard input is closed\n"
    "  --help, --version          this text, the program's version\n"
    "Programs choose a domain by its directory: --xen=emulated:D is Dom0,\n"
    "--xen=emulated:D/domains/<domid> that guest. D/xenstored is a xenstored socket.\n";

constexpr uint32_t kMaxFrames = 1 << 16;

struct Options {
  std::string directory;
  std::string name;
  std::string memory;
  bool until_stdin_closes = false;
  DomainLimits limits;
  std::vector<std::string> arguments;
};

int Fail(absl::string_view what) {
  fprintf(stderr, "xen-emu: %.*s\n", static_cast<int>(what.size()), what.data());
  return 1;
}

// Readable when the program is to end.
absl::StatusOr<OwnedFd> OpenStopFd(bool until_stdin_closes) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  OwnedFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signal_fd) return absl::UnavailableError(strerror(errno));
  if (!until_stdin_closes) return signal_fd;
  OwnedFd either(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  epoll_event closed{.events = EPOLLRDHUP, .data = {.u64 = 0}};
  if (!either || epoll_ctl(either.get(), EPOLL_CTL_ADD, signal_fd.get(), &event) != 0) {
    return absl::UnavailableError(strerror(errno));
  }
  if (epoll_ctl(either.get(), EPOLL_CTL_ADD, STDIN_FILENO, &closed) != 0) {
    return absl::InvalidArgumentError(
        "--until-stdin-closes needs a pipe or a socket as standard input");
  }
  signal_fd.Release();  // as long as the process
  return either;
}

int Serve(const Options& options) {
  // Every guest costs a few descriptors.
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  auto stop = OpenStopFd(options.until_stdin_closes);
  if (!stop.ok()) return Fail(stop.status().message());
  auto server = Server::Create(options.directory, options.limits);
  if (!server.ok()) return Fail(server.status().message());
  printf("ready\n");
  fflush(stdout);
  const absl::Status status = (*server)->Run(stop->get());
  return status.ok() ? 0 : Fail(status.message());
}

int RunCommand(const Options& options) {
  auto control = Control::Open(options.directory);
  if (!control.ok()) return Fail(control.status().message());
  std::vector<std::string> command = options.arguments;
  if (command[0] == "create") {
    if (command.size() != 1) return Fail("create takes no arguments but --name and --memory");
    command.push_back(options.name);
    if (!options.memory.empty()) command.push_back(options.memory);
  }
  auto text = control->Run(command);
  if (!text.ok()) return Fail(text.status().message());
  fputs(text->c_str(), stdout);
  if (!text->empty() && text->back() != '\n') fputs("\n", stdout);
  return 0;
}

bool ParseLimit(const char* text, uint32_t largest, uint32_t* value) {
  return absl::SimpleAtoi(text, value) && *value > 0 && *value <= largest;
}

int Main(int argc, char** argv) {
  const option long_options[] = {
      {"dir", required_argument, nullptr, 'd'},
      {"name", required_argument, nullptr, 'n'},
      {"memory", required_argument, nullptr, 'm'},
      {"max-grant-frames", required_argument, nullptr, 'g'},
      {"max-maptrack-frames", required_argument, nullptr, 't'},
      {"gntalloc-limit", required_argument, nullptr, 'a'},
      {"until-stdin-closes", no_argument, nullptr, 's'},
      {"help", no_argument, nullptr, 'h'},
      {nullptr, 0, nullptr, 0},
  };
  Options options;
  uint32_t gntalloc = 0;
  bool valid = true;
  for (int c; (c = getopt_long(argc, argv, "h", long_options, nullptr)) != -1;) {
    switch (c) {
      case 'd':
        options.directory = optarg;
        break;
      case 'n':
        options.name = optarg;
        break;
      case 'm':
        options.memory = optarg;
        break;
      case 'g':
        valid = valid && ParseLimit(optarg, kMaxFrames, &options.limits.max_grant_frames);
        break;
      case 't':
        valid = valid && ParseLimit(optarg, kMaxFrames, &options.limits.max_maptrack_frames);
        break;
      case 'a':
        valid = valid && ParseLimit(optarg, UINT32_MAX, &gntalloc);
        options.limits.gntalloc_limit = gntalloc;
        break;
      case 's':
        options.until_stdin_closes = true;
        break;
      case 'h':
        fputs(kUsage, stdout);
        return 0;
      default:
        fputs(kUsage, stderr);
        return 2;
    }
  }
  if (!valid) return Fail("an option's number is out of range");
  for (int i = optind; i < argc; ++i) options.arguments.push_back(argv[i]);
  if (options.arguments.empty() || options.directory.empty()) {
    fputs(kUsage, stderr);
    return 2;
  }
  return options.arguments[0] == "serve" ? Serve(options) : RunCommand(options);
}

}  // namespace
}  // namespace vmsg::emu

int main(int argc, char** argv) { return vmsg::RunProgram("xen-emu", argc, argv, vmsg::emu::Main); }
