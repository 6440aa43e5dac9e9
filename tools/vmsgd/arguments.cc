// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/arguments.h"

#include <getopt.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace vmsg {
namespace {

enum Option : int {
  kXen = 256,
  kIoThreads,
  kMaxWindowPages,
  kSpin,
  kTrace,
  kLogLevel,
  kReadyFd,
  kHelp,
};

constexpr option kOptions[] = {
    {"xen", required_argument, nullptr, kXen},
    {"io-threads", required_argument, nullptr, kIoThreads},
    {"max-window-pages", required_argument, nullptr, kMaxWindowPages},
    {"spin-us", required_argument, nullptr, kSpin},
    {"trace", required_argument, nullptr, kTrace},
    {"log-level", required_argument, nullptr, kLogLevel},
    {"ready-fd", required_argument, nullptr, kReadyFd},
    {"help", no_argument, nullptr, kHelp},
    {nullptr, 0, nullptr, 0},
};

absl::StatusOr<uint32_t> Number(const char* option, uint32_t least, uint32_t most) {
  uint32_t value = 0;
  if (!absl::SimpleAtoi(optarg, &value) || value < least || value > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", option, "=", optarg, ": a number from ", least, " to ", most));
  }
  return value;
}

}  // namespace

const char* HelpText() {
  return "vmsgd: serves virtio devices to Xen guests over virtio-msg\n"
         "\n"
         "usage: vmsgd [options]\n"
         "\n"
         "  --xen=native | --xen=emulated:DIR   which Xen; default: native, if this is Xen\n"
         "  --io-threads=N         threads that serve guests; default: one less than the\n"
         "                         processors, at most 4\n"
         "  --max-window-pages=N   pages of 4 KiB that one guest may have mapped; default 65536\n"
         "  --spin-us=N            longest time a thread polls before it sleeps; default 50,\n"
         "                         0: never\n"
         "  --trace=FILE           write every message to FILE, for vmsg-decode\n"
         "  --log-level=error|warning|info|debug   default info\n"
         "  --ready-fd=FD          write \"ready\" to FD, not to standard output\n"
         "  --help\n"
         "\n"
         "Prints \"ready\" when it serves. SIGTERM and SIGINT: closes all buses and ends. SIGHUP "
         "and\n"
         "SIGUSR1: logs the counters of each bus. Log lines go to standard error.\n";
}

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  // The control thread sleeps most of the time.
  const unsigned processors = std::thread::hardware_concurrency();
  arguments.service.io_threads = std::clamp(processors, 2u, 5u) - 1;
  arguments.log_priority = getenv("JOURNAL_STREAM") != nullptr;
  opterr = 0;
  int option;
  while ((option = getopt_long(argc, argv, "", kOptions, nullptr)) != -1) {
    absl::StatusOr<uint32_t> number = 0;
    switch (option) {
      case kXen:
        arguments.xen = optarg;
        break;
      case kIoThreads:
        number = Number("io-threads", 1, 64);
        if (number.ok()) arguments.service.io_threads = *number;
        break;
      case kMaxWindowPages:
        // Past 65,536 in one window, gntdev's own limit has to be raised, too.
        number = Number("max-window-pages", 1, 1u << 20);
        if (number.ok()) arguments.service.max_window_pages = *number;
        break;
      case kSpin:
        number = Number("spin-us", 0, 10'000);
        if (number.ok()) arguments.service.max_spin = absl::Microseconds(*number);
        break;
      case kTrace:
        arguments.service.trace_path = optarg;
        break;
      case kReadyFd:
        number = Number("ready-fd", 0, std::numeric_limits<int>::max());
        if (number.ok()) arguments.ready_fd = static_cast<int>(*number);
        break;
      case kLogLevel: {
        const absl::string_view level = optarg;
        if (level == "error") {
          arguments.log_level = backend::LogLevel::kError;
        } else if (level == "warning") {
          arguments.log_level = backend::LogLevel::kWarning;
        } else if (level == "info") {
          arguments.log_level = backend::LogLevel::kInfo;
        } else if (level == "debug") {
          arguments.log_level = backend::LogLevel::kDebug;
        } else {
          return absl::InvalidArgumentError(
              absl::StrCat("--log-level=", level, ": error, warning, info or debug"));
        }
        break;
      }
      case kHelp:
        arguments.help = true;
        break;
      default:
        return absl::InvalidArgumentError(
            absl::StrCat(argv[optind - 1], ": no such option, or its value is missing"));
    }
    if (!number.ok()) return number.status();
  }
  if (optind < argc) {
    return absl::InvalidArgumentError(absl::StrCat(argv[optind], ": takes no arguments"));
  }
  return arguments;
}

}  // namespace vmsg
