// SPDX-License-Identifier: Apache-2.0
// vmsgd: the backend service.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backend/runtime/rate_limited_log.h"
#include "text/foreign_text.h"
#include "tools/program/program.h"
#include "tools/vmsgd/configuration/arguments.h"
#include "tools/vmsgd/daemon.h"

namespace vmsg {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;  // vmsgd.service does not try again
// Another vmsgd serves this Xen, or the kernel still works for one that ended: later it may go
// (EX_TEMPFAIL).
constexpr int kExitServed = 75;

int FailUsage(const absl::Status& status) {
  fprintf(stderr, "vmsgd: %s\nTry vmsgd --help.\n", CleanText(status.message()).c_str());
  return kExitUsage;
}

// What a start would find wrong before it serves anybody.
int Check(const CommandLine& command_line, const Configuration& configuration) {
  if (absl::Status places = CheckPlaces(configuration.arguments); !places.ok()) {
    return FailUsage(places);
  }
  const std::string& file = command_line.config_file;
  // One that was named and is missing is a mistake.
  const bool missing = !file.empty() && access(file.c_str(), F_OK) != 0;
  printf("vmsgd: %s: %s\n", file.empty() ? "the options" : CleanText(file).c_str(),
         missing ? "there is no such file, and every option is its default" : "no mistakes");
  return 0;
}

int Fail(const absl::Status& status) {
  backend::Log(backend::LogLevel::kError, absl::StrCat("vmsgd: ", status.message()));
  return kExitFailure;
}

// The buses have ended; what hangs in the kernel now (opening an image, reading a config) is a
// thread that would be waited for for ever.
constexpr absl::Duration kEndLimit = absl::Seconds(5);

void EndWithinLimit() {
  std::thread([] {
    absl::SleepFor(kEndLimit);
    _exit(Fail(absl::DeadlineExceededError(
        absl::StrCat("all buses have ended, but something hangs in the kernel and did not end in ",
                     absl::FormatDuration(kEndLimit), "; it is left to the kernel"))));
  }).detach();
}

int Main(int argc, char** argv) {
  absl::StatusOr<CommandLine> command_line = ParseCommandLine(argc, argv);
  if (!command_line.ok()) return FailUsage(command_line.status());
  if (command_line->help) {
    fputs(HelpText(), stdout);
    return 0;
  }
  absl::StatusOr<Configuration> configuration = Configure(*command_line);
  if (!configuration.ok()) return FailUsage(configuration.status());
  if (command_line->check) return Check(*command_line, *configuration);
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(*command_line, *configuration);
  if (!daemon.ok()) {
    // What will be no better the next time is told apart from what may be.
    const bool mistake = absl::IsInvalidArgument(daemon.status()) &&
                         absl::IsInvalidArgument(CheckPlaces(configuration->arguments));
    const int failed = Fail(daemon.status());
    if (absl::IsAlreadyExists(daemon.status())) return kExitServed;
    return mistake ? kExitUsage : failed;
  }
  if (absl::Status result = (*daemon)->Run(); !result.ok()) {
    // Something hangs in the kernel or xenstore is gone: joining threads could wait for ever. The
    // kernel unmaps and closes what is left.
    Fail(result);
    _exit(kExitFailure);
  }
  EndWithinLimit();
  return 0;
}

}  // namespace
}  // namespace vmsg

int main(int argc, char** argv) { return vmsg::RunProgram("vmsgd", argc, argv, vmsg::Main); }
