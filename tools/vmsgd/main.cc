// SPDX-License-Identifier: Apache-2.0
// vmsgd: the backend service.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "tools/program/program.h"
#include "tools/vmsgd/configuration/arguments.h"
#include "tools/vmsgd/daemon.h"

namespace vmsg {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int FailUsage(const absl::Status& status) {
  fprintf(stderr, "vmsgd: %s\nTry vmsgd --help.\n", std::string(status.message()).c_str());
  return kExitUsage;
}

int Fail(const absl::Status& status) {
  backend::Log(backend::LogLevel::kError, absl::StrCat("vmsgd: ", status.message()));
  return kExitFailure;
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
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Start(*command_line, *configuration);
  if (!daemon.ok()) return Fail(daemon.status());
  if (absl::Status result = (*daemon)->Run(); !result.ok()) {
    // Something hangs in the kernel or xenstore is gone: joining threads could wait for ever. The
    // kernel unmaps and closes what is left.
    Fail(result);
    _exit(kExitFailure);
  }
  return 0;
}

}  // namespace
}  // namespace vmsg

int main(int argc, char** argv) { return vmsg::RunProgram("vmsgd", argc, argv, vmsg::Main); }
