// SPDX-License-Identifier: Apache-2.0
// The command line of vmsgctl.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace vmsg::ctl {

inline constexpr int kExitDone = 0;
inline constexpr int kExitRefused = 1;  // what was asked for did not happen
inline constexpr int kExitUsage = 2;    // the command line is wrong; nothing was tried

enum class Command { kHelp, kList, kAttach, kDetach };

struct Arguments {
  Command command = Command::kHelp;
  std::string xen;                     // --xen
  bool json = false;                   // list --json
  std::optional<std::string> domain;   // name or id
  std::optional<std::string> backend;  // --backend: name or id
  std::vector<std::string> entries;    // attach: as given
  std::optional<std::string> config;   // attach --config
  std::optional<uint16_t> device;      // detach: nullopt is "all"
  std::optional<uint32_t> bus;         // detach --bus
  bool force = false;                  // detach --force
  absl::Duration timeout = absl::Seconds(10);
  bool timeout_given = false;  // --timeout: for everything that detach waits for
};

// InvalidArgument: the text says what is wrong.
absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& words);

extern const char kHelpText[];

}  // namespace vmsg::ctl
