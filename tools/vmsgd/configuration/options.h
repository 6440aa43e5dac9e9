// SPDX-License-Identifier: Apache-2.0
// vmsgd's options: what each takes, wherever it was written.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/supervisor.h"

namespace vmsg {

// One option as it was written.
struct Setting {
  std::string name;   // without dashes
  std::string value;  // not checked yet
  std::string place;  // "--spin-us=5" or "/etc/vmsgd.conf:3: spin-us = 5", for messages
};
using Settings = std::vector<Setting>;

// All options, checked.
struct Arguments {
  std::string xen;  // empty: native, if this is Xen
  backend::ServiceOptions service;
  backend::LogLevel log_level = backend::LogLevel::kInfo;
  int ready_fd = -1;
  bool sandbox = true;
};

enum class WhenChanged { kAtRestart, kAtReload };

struct OptionRow {
  const char* name;
  bool in_file;  // may be set in the configuration file, too
  WhenChanged changed;
  // What is wrong with the value, without naming option and value.
  absl::Status (*set)(const std::string& value, Arguments& arguments);
};

const std::vector<OptionRow>& OptionTable();
// Those that the file may set, or all.
std::vector<std::string> OptionNames(bool in_file);
// Null: there is no such option.
const OptionRow* FindOption(absl::string_view name);

// Defaults, and over them the settings in their order. InvalidArgument names the place, the value
// and what is allowed.
absl::StatusOr<Arguments> ArgumentsFrom(const Settings& settings);

}  // namespace vmsg
