// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend: the driver side of a virtio-msg bus in a guest's userspace.
#include <csignal>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "grants/platform.h"
#include "text/foreign_text.h"
#include "tools/program/program.h"
#include "tools/vmsg-frontend/commands.h"

namespace vmsg::frontend_tool {
namespace {

constexpr char kUsage[] =
    R"(Usage: vmsg-frontend [--xen=native|emulated:DIR] [--bus N] [--pages N] [--extend N]
                     [--ring-order N] [--spin US] [--wait S] COMMAND

  list                              devices, features, queues and configuration; of a bus that
                                    another program has: who has it
  blk read [FILE|-]                 the whole disk, or --offset N --length N; --sha256: only its sum
  blk write FILE|-                  at --offset N; --flush
  blk verify                        writes a pattern, flushes, reads it back:
                                    --offset N --length N --seed N
  blk bench                         --rw randread|read|randwrite|write --bs N --depth N
                                    --seconds N or --count N; --json
                                    --events: prints "started" and hotplug events to stderr
  rng --bytes N                     to standard output
  console                           standard input and output to the console;
                                    or --send TEXT --expect TEXT --timeout SECONDS
  ping --count N                    round-trip times; --json
  hold                              connects, prints hotplug events until standard input ends
  nbd --socket PATH                 offers the disk with nbdkit; --readonly; --run COMMAND: until it
                                    ends, with $uri set, at a socket of its own without --socket

--dev N names the device; otherwise the first one of the right type is taken.
--pages N: window at the start (1000); --extend N: a second segment, withdrawn at the end (0).
--spin N: microseconds to look for answers before sleeping (200).
--wait N: seconds to wait for a backend that has gone (300; nbd: until there is one).
--help: this text; --version: the program's version.
Numbers may end in k, M or G. Exit status: 0 done, 1 failed, 2 not understood.
)";

struct Settings {
  std::string xen;
  frontend::ConnectOptions connect;
  uint32_t extend_pages = 0;
  std::chrono::microseconds max_spin;
};

absl::StatusOr<Settings> ReadSettings(const Arguments& arguments) {
  Settings settings;
  settings.xen = arguments.Text("xen", "");
  frontend::ConnectOptions& connect = settings.connect;
  absl::StatusOr<uint64_t> number = arguments.Number("bus", 0, 0, UINT32_MAX);
  if (!number.ok()) return number.status();
  connect.bus_id = static_cast<uint32_t>(*number);
  number = arguments.Number("pages", connect.pages, 1, 1 << 20);
  if (!number.ok()) return number.status();
  connect.pages = static_cast<uint32_t>(*number);
  number = arguments.Number("extend", 0, 0, 1 << 20);
  if (!number.ok()) return number.status();
  settings.extend_pages = static_cast<uint32_t>(*number);
  number = arguments.Number("ring-order", connect.ring_order, 1, wire::kMaxRingOrder);
  if (!number.ok()) return number.status();
  connect.ring_order = static_cast<uint32_t>(*number);
  constexpr std::chrono::microseconds kDefaultSpin =
      std::chrono::duration_cast<std::chrono::microseconds>(frontend::FrontendBus::kDefaultMaxSpin);
  number = arguments.Number("spin", kDefaultSpin.count(), 0, 1'000'000);
  if (!number.ok()) return number.status();
  settings.max_spin = std::chrono::microseconds(*number);
  const auto default_patience =
      std::chrono::duration_cast<std::chrono::seconds>(frontend::ConnectOptions{}.patience);
  number = arguments.Number("wait", static_cast<uint64_t>(default_patience.count()), 0, UINT32_MAX);
  if (!number.ok()) return number.status();
  connect.patience = std::chrono::seconds(*number);
  connect.notice = [](absl::string_view text) {
    std::fprintf(stderr, "vmsg-frontend: %s\n", std::string(text).c_str());
  };
  return settings;
}

using Run = absl::Status (*)(frontend::BusConnection&, const Arguments&);

absl::Status RunExtended(frontend::BusConnection& connection, const Arguments& arguments, Run run,
                         uint32_t pages) {
  if (pages == 0) return run(connection, arguments);
  absl::StatusOr<uint32_t> first_page = connection.ExtendWindow(pages, frontend::After(kPatience));
  if (!first_page.ok()) return first_page.status();
  absl::Status status = run(connection, arguments);
  if (!status.ok()) return status;
  return connection.WithdrawWindow(*first_page, pages, frontend::After(kPatience));
}

absl::Status RunConnected(const Arguments& arguments, const std::string& command) {
  Run run = nullptr;
  if (command == "list") run = RunList;
  if (command == "blk") run = RunBlk;
  if (command == "rng") run = RunRng;
  if (command == "console") run = RunConsole;
  if (command == "ping") run = RunPing;
  if (command == "hold") run = RunHold;
  if (command == "nbd") run = FindDisk;
  if (run == nullptr) {
    return UsageError(absl::StrCat("unknown command \"", command, "\""));
  }
  absl::StatusOr<Settings> settings = ReadSettings(arguments);
  if (!settings.ok()) return settings.status();
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform(settings->xen);
  if (!platform.ok()) return platform.status();
  if (command == "list") {
    absl::StatusOr<bool> shown = ListHeldBus(**platform, settings->connect.bus_id);
    if (!shown.ok() || *shown) return shown.status();
  }
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection =
      frontend::BusConnection::Open(**platform, settings->connect);
  if (!connection.ok()) return connection.status();
  (*connection)->bus().set_max_spin(settings->max_spin);
  absl::Status status = RunExtended(**connection, arguments, run, settings->extend_pages);
  absl::Status closed = (*connection)->Close();
  return status.ok() ? closed : status;
}

// Before nbdkit has a client: one that finds no disk would leave --run's command waiting.
absl::Status StartNbd(const Arguments& arguments) {
  if (absl::Status status = CheckNbdArguments(arguments); !status.ok()) return status;
  absl::Status status = RunConnected(arguments, "nbd");
  return status.ok() ? RunNbd(arguments) : status;
}

int Main(int argc, char** argv) {
  // A reader that closes its pipe is an error of write(), not the end of the bus without a word.
  std::signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<Arguments> arguments = Arguments::Parse(
      argc, argv,
      {"xen",    "bus",     "pages",  "extend", "ring-order", "dev",   "offset", "length",
       "seed",   "rw",      "bs",     "depth",  "seconds",    "count", "bytes",  "send",
       "expect", "timeout", "socket", "plugin", "run",        "spin",  "wait"},
      {"help", "events", "json", "sha256", "flush", "readonly"});
  if (arguments.ok() && arguments->Has("help")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  absl::Status status = arguments.status();
  if (status.ok() && arguments->words().empty()) {
    status = UsageError("no command");
  }
  if (!status.ok()) {
    std::fprintf(stderr, "vmsg-frontend: %s\n\n%s", CleanText(status.message()).c_str(), kUsage);
    return 2;
  }
  const std::string& command = arguments->words()[0];
  status = command == "nbd" ? StartNbd(*arguments) : RunConnected(*arguments, command);
  if (status.ok()) return 0;
  // Reasons come from another domain.
  std::fprintf(stderr, "vmsg-frontend: %s\n", CleanText(status.message()).c_str());
  return IsUsageError(status) ? 2 : 1;
}

}  // namespace
}  // namespace vmsg::frontend_tool

int main(int argc, char** argv) {
  return vmsg::RunProgram("vmsg-frontend", argc, argv, vmsg::frontend_tool::Main);
}
