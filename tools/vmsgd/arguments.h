// SPDX-License-Identifier: Apache-2.0
// vmsgd's command line.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/supervisor.h"

namespace vmsg {

struct Arguments {
  std::string xen;  // --xen; empty: native, if this is Xen
  backend::ServiceOptions service;
  backend::LogLevel log_level = backend::LogLevel::kInfo;
  bool log_priority = false;  // under systemd
  int ready_fd = -1;
  bool help = false;
};

// InvalidArgument names the option and what it takes.
absl::StatusOr<Arguments> ParseArguments(int argc, char** argv);
const char* HelpText();

}  // namespace vmsg
