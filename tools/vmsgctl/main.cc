// SPDX-License-Identifier: Apache-2.0
// vmsgctl: the administrator's tool.
#include <iostream>
#include <memory>
#include <optional>

#include "backend/server-lock/server_lock.h"
#include "backend/service/toolstack/entry_check.h"
#include "grants/platform.h"
#include "tools/program/program.h"
#include "tools/vmsgctl/arguments.h"
#include "tools/vmsgctl/commands.h"
#include "xenstore/store.h"

namespace vmsg::ctl {
namespace {

Liveness LivenessOf(const grants::Platform& platform) {
  absl::StatusOr<std::optional<backend::LivingServer>> server =
      backend::FindServer(platform.lock_path());
  if (!server.ok()) {
    return {.answer = Liveness::Answer::kCannotTell, .why = std::string(server.status().message())};
  }
  if (!server->has_value()) return {.answer = Liveness::Answer::kNone};
  return {.answer = (*server)->ending ? Liveness::Answer::kEnding : Liveness::Answer::kLives,
          .pid = (*server)->pid};
}

int Main(int argc, char** argv) {
  const Console console{std::cout, std::cerr};
  absl::StatusOr<Arguments> arguments =
      ParseArguments(std::vector<std::string>(argv + 1, argv + argc));
  if (!arguments.ok()) {
    console.Complain(arguments.status().message());
    std::cerr << "vmsgctl --help says more.\n";
    return kExitUsage;
  }
  if (arguments->command == Command::kHelp) {
    std::cout << kHelpText;
    return kExitDone;
  }
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform(arguments->xen);
  if (!platform.ok()) {
    console.Complain(platform.status().message());
    return absl::IsInvalidArgument(platform.status()) ? kExitUsage : kExitRefused;
  }
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore((*platform)->store_socket());
  if (!store.ok()) {
    console.Complain(store.status().message());
    return kExitRefused;
  }
  const auto ask = [&xen = **platform] { return LivenessOf(xen); };
  switch (arguments->command) {
    case Command::kList:
      return List(*arguments, **store, console, ask);
    case Command::kAttach:
      return Attach(*arguments, **store, console, ask, backend::CheckItems);
    case Command::kDetach:
      return Detach(*arguments, **store, console, ask);
    case Command::kHelp:
      break;
  }
  return kExitUsage;
}

}  // namespace
}  // namespace vmsg::ctl

int main(int argc, char** argv) { return vmsg::RunProgram("vmsgctl", argc, argv, vmsg::ctl::Main); }
