// SPDX-License-Identifier: Apache-2.0
// vmsgd's command line, and its configuration file below it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/vmsgd/configuration/config_file.h"
#include "tools/vmsgd/configuration/options.h"

namespace vmsg {

struct CommandLine {
  Settings settings;  // in the order given
  std::string config_file = kDefaultConfigFile;
  bool config_required = false;  // it was named, so it has to be there
  bool help = false;
  bool check = false;  // only look at what is configured
};

// InvalidArgument names the option and what it takes.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, char** argv);
const char* HelpText();

// What is in force: the file's settings, and over them the command line's.
struct Configuration {
  Settings settings;
  Arguments arguments;
};
// Reads the file. The error names the place.
absl::StatusOr<Configuration> Configure(const CommandLine& command_line);

// What a start would refuse although each value by itself is one: InvalidArgument, and nothing is
// changed. May wait for a disk.
absl::Status CheckPlaces(const Arguments& arguments);

// The names of options whose values differ between the two, in the table's order.
std::vector<const OptionRow*> Changes(const Settings& before, const Settings& after);

}  // namespace vmsg
