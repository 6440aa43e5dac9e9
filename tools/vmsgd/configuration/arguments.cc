// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/configuration/arguments.h"

#include <getopt.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "backend/service/trace/capture_file.h"
#include "text/nearest_name.h"

namespace vmsg {
namespace {

enum Option : int {
  kConfig = 256,
  kHelp,
  kCheck,
  kFromTable,  // and one more for each row
};

std::vector<std::string> ValuesOf(const Settings& settings, absl::string_view name) {
  std::vector<std::string> values;
  for (const Setting& setting : settings) {
    if (setting.name == name) values.push_back(setting.value);
  }
  return values;
}

absl::Status WrongOption(absl::string_view word) {
  absl::string_view name = word.substr(0, word.find('='));
  absl::ConsumePrefix(&name, "--");
  std::vector<std::string> names = OptionNames(/*in_file=*/false);
  names.insert(names.end(), {"config", "check-config", "help", "version"});
  const bool known = std::find(names.begin(), names.end(), name) != names.end();
  return absl::InvalidArgumentError(
      absl::StrCat(word, known ? ": needs a value, or takes none" : ": no such option",
                   known ? "" : DidYouMean(name, names)));
}

}  // namespace

const char* HelpText() {
  return "vmsgd: serves virtio devices to Xen guests over virtio-msg\n"
         "\n"
         "usage: vmsgd [options]\n"
         "\n"
         "  --config=FILE          options as lines `name = value`, names as here; the command\n"
         "                         line wins; default /etc/virtio-msg-xen/vmsgd.conf if it is\n"
         "                         there; --config= reads none\n"
         "  --xen=native | --xen=emulated:DIR   which Xen; default: native, if this is Xen\n"
         "  --io-threads=N         threads that serve guests; default: one less than the\n"
         "                         processors, at most 4\n"
         "  --max-window-pages=N   pages of 4 KiB that one guest may have mapped, 512 at least;\n"
         "                         default 65536\n"
         "  --spin-us=auto|N       longest time a thread polls for guests before it sleeps;\n"
         "                         default auto: as long as 500 system calls take, 200 at least\n"
         "                         and 5000 at most; 0: never\n"
         "  --spin-share=PERCENT   of a thread's time that it may poll in all; default 75,\n"
         "                         100: no bound\n"
         "  --bounce=auto|on|off   copy disk requests, so that none at the disk names a guest's\n"
         "                         pages; default auto: in a PV domain\n"
         "  --check-domains=N      seconds between looks at which guests Xen says live; default "
         "30,\n"
         "                         0: only when xenstore says that a domain ended\n"
         "  --config-dir=DIR[:DIR] where xl's domain configs lie, whose virtio_msg entries are\n"
         "                         attached when a domain is introduced; default\n"
         "                         /etc/xen:/etc/xen/auto, empty: none\n"
         "  --claim-standalone-disks=0|1   serve xl's disks with backendtype=standalone,\n"
         "                         specification=virtio; default 0: ioreq backends use them, too\n"
         "  --trace=FILE           write every message to FILE, for vmsg-decode\n"
         "  --trace-size=N         MiB that FILE may have; then it is renamed FILE.1 and begun\n"
         "                         anew; default 256\n"
         "  --log-level=error|warning|info|debug   default info\n"
         "  --sandbox=on|off       give up privileges and system calls after the start; default "
         "on\n"
         "  --ready-fd=FD          write \"ready\" to FD, not to standard output\n"
         "  --check-config[=FILE]  only say what is wrong with the configuration; status 0: "
         "nothing,\n"
         "                         2: something\n"
         "  --help, --version      this text, the program's version\n"
         "\n"
         "Prints \"ready\" when it serves. SIGTERM and SIGINT: closes all buses and ends. SIGHUP:\n"
         "reads the configuration file again. SIGUSR1: logs the counters of each bus. Log lines\n"
         "go to standard error.\n";
}

absl::StatusOr<CommandLine> ParseCommandLine(int argc, char** argv) {
  const std::vector<OptionRow>& table = OptionTable();
  std::vector<option> options = {{"config", required_argument, nullptr, kConfig},
                                 {"help", no_argument, nullptr, kHelp},
                                 {"check-config", optional_argument, nullptr, kCheck}};
  for (size_t i = 0; i < table.size(); ++i) {
    options.push_back(
        {table[i].name, required_argument, nullptr, kFromTable + static_cast<int>(i)});
  }
  options.push_back({});

  CommandLine command_line;
  opterr = 0;
  optind = 0;  // from the start, also when this is not the first command line
  int found;
  while ((found = getopt_long(argc, argv, "", options.data(), nullptr)) != -1) {
    switch (found) {
      case kConfig:
        command_line.config_file = optarg;
        command_line.config_required = !command_line.config_file.empty();
        break;
      case kHelp:
        command_line.help = true;
        break;
      case kCheck:
        command_line.check = true;
        if (optarg == nullptr) break;
        command_line.config_file = optarg;
        command_line.config_required = true;
        break;
      case '?':
        return WrongOption(argv[optind - 1]);
      default: {
        const char* const name = table[static_cast<size_t>(found - kFromTable)].name;
        // Each of them has one.
        const char* const value = optarg == nullptr ? "" : optarg;
        command_line.settings.push_back({name, value, absl::StrCat("--", name, "=", value)});
      }
    }
  }
  if (optind < argc) {
    return absl::InvalidArgumentError(absl::StrCat(argv[optind], ": takes no arguments"));
  }
  return command_line;
}

absl::StatusOr<Configuration> Configure(const CommandLine& command_line) {
  Configuration configuration;
  if (!command_line.config_file.empty()) {
    absl::StatusOr<Settings> file = ReadConfigFile(command_line.config_file);
    if (file.ok()) {
      // Checked even where the command line wins, so that a line is wrong or right by itself.
      if (absl::Status checked = ArgumentsFrom(*file).status(); !checked.ok()) return checked;
      configuration.settings = *std::move(file);
    } else if (!absl::IsNotFound(file.status()) || command_line.config_required) {
      return file.status();
    }
  }
  std::erase_if(configuration.settings, [&](const Setting& setting) {
    return !ValuesOf(command_line.settings, setting.name).empty();
  });
  configuration.settings.insert(configuration.settings.end(), command_line.settings.begin(),
                                command_line.settings.end());
  absl::StatusOr<Arguments> arguments = ArgumentsFrom(configuration.settings);
  if (!arguments.ok()) return arguments.status();
  configuration.arguments = *std::move(arguments);
  return configuration;
}

absl::Status CheckPlaces(const Arguments& arguments) {
  const std::string& trace = arguments.service.trace.path;
  return trace.empty() ? absl::OkStatus() : backend::CheckTracePath(trace);
}

std::vector<const OptionRow*> Changes(const Settings& before, const Settings& after) {
  std::vector<const OptionRow*> changed;
  for (const OptionRow& row : OptionTable()) {
    if (ValuesOf(before, row.name) != ValuesOf(after, row.name)) changed.push_back(&row);
  }
  return changed;
}

}  // namespace vmsg
