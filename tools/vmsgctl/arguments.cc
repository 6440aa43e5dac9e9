// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/arguments.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "text/foreign_text.h"
#include "text/nearest_name.h"
#include "xenstore/text_value.h"

namespace vmsg::ctl {
namespace {

constexpr uint64_t kMaxTimeoutSeconds = 3600;
constexpr const char* kOptions[] = {"--json",   "--force", "--xen",     "--backend",
                                    "--config", "--bus",   "--timeout", "--help"};

// Options and plain words of a command line, in any order; "--" ends the options.
class Words {
 public:
  explicit Words(const std::vector<std::string>& words) : words_(words) {}

  bool done() const { return next_ == words_.size(); }

  // The next word. `option`: whether it is one, without its value.
  std::string Take(bool& option) {
    std::string word = words_[next_++];
    if (word == "--" && !plain_only_ && !done()) {
      plain_only_ = true;
      word = words_[next_++];
    }
    option = !plain_only_ && word.size() > 1 && word[0] == '-';
    value_.reset();
    if (const size_t equals = word.find('='); option && equals != std::string::npos) {
      value_ = word.substr(equals + 1);
      word.resize(equals);
    }
    return word;
  }

  absl::StatusOr<std::string> Value(const std::string& option) {
    if (value_.has_value()) return *value_;
    if (done()) return absl::InvalidArgumentError(absl::StrCat(option, " needs a value"));
    return words_[next_++];
  }
  bool has_value() const { return value_.has_value(); }

 private:
  const std::vector<std::string>& words_;
  size_t next_ = 0;
  bool plain_only_ = false;
  std::optional<std::string> value_;
};

absl::Status Misplaced(absl::string_view option, absl::string_view command) {
  return absl::InvalidArgumentError(absl::StrCat(option, " is an option of ", command, " only"));
}

absl::StatusOr<Command> ParseCommand(const std::string& word) {
  if (word == "list") return Command::kList;
  if (word == "attach") return Command::kAttach;
  if (word == "detach") return Command::kDetach;
  if (word == "help") return Command::kHelp;
  return absl::InvalidArgumentError(absl::StrCat("unknown command ", Quoted(word),
                                                 "; there are list, attach and detach",
                                                 DidYouMean(word, {"list", "attach", "detach"})));
}

absl::Status TakeOption(const std::string& option, Words& words, Arguments& arguments) {
  const auto flag = [&](bool& target) {
    if (words.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(option, " takes no value"));
    }
    target = true;
    return absl::OkStatus();
  };
  if (option == "--json") return flag(arguments.json);
  if (option == "--force") return flag(arguments.force);
  // Before its value is asked for, which it may not take.
  if (std::find(std::begin(kOptions), std::end(kOptions), option) == std::end(kOptions)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown option ", option, DidYouMean(option, {std::begin(kOptions), std::end(kOptions)})));
  }
  absl::StatusOr<std::string> value = words.Value(option);
  if (!value.ok()) return value.status();
  if (option == "--xen") {
    arguments.xen = *value;
  } else if (option == "--backend") {
    arguments.backend = *value;
  } else if (option == "--config") {
    arguments.config = *value;
  } else if (option == "--bus") {
    absl::StatusOr<uint64_t> bus = xenstore::ParseDecimal(*value, "--bus", 0, UINT32_MAX);
    if (!bus.ok()) return bus.status();
    arguments.bus = static_cast<uint32_t>(*bus);
  } else if (option == "--timeout") {
    absl::StatusOr<uint64_t> seconds =
        xenstore::ParseDecimal(*value, "--timeout (seconds)", 0, kMaxTimeoutSeconds);
    if (!seconds.ok()) return seconds.status();
    arguments.timeout = absl::Seconds(*seconds);
    arguments.timeout_given = true;
  }
  return absl::OkStatus();
}

absl::Status AssignPlainWords(const std::vector<std::string>& plain, Arguments& arguments) {
  switch (arguments.command) {
    case Command::kHelp:
      return absl::OkStatus();
    case Command::kList:
      if (plain.size() > 1) return absl::InvalidArgumentError("list takes one domain, or none");
      if (!plain.empty()) arguments.domain = plain[0];
      return absl::OkStatus();
    case Command::kAttach:
      if (!plain.empty()) arguments.domain = plain[0];
      if (arguments.config.has_value()) {
        if (plain.size() > 1) {
          return absl::InvalidArgumentError("attach takes entries or --config, not both");
        }
        return absl::OkStatus();
      }
      if (plain.size() < 2) {
        return absl::InvalidArgumentError(
            "attach needs a domain and at least one entry, or --config <file>");
      }
      arguments.entries.assign(plain.begin() + 1, plain.end());
      return absl::OkStatus();
    case Command::kDetach: {
      if (plain.size() != 2) {
        return absl::InvalidArgumentError("detach needs a domain, and a device number or \"all\"");
      }
      arguments.domain = plain[0];
      if (plain[1] == "all") return absl::OkStatus();
      absl::StatusOr<uint64_t> number =
          xenstore::ParseDecimal(plain[1], "the device number", 0, UINT16_MAX);
      if (!number.ok()) return number.status();
      arguments.device = static_cast<uint16_t>(*number);
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Arguments> ParseArguments(const std::vector<std::string>& command_line) {
  Arguments arguments;
  Words words(command_line);
  std::optional<Command> command;
  std::vector<std::string> plain;
  while (!words.done()) {
    bool is_option = false;
    const std::string word = words.Take(is_option);
    if (!is_option) {
      if (command.has_value()) {
        plain.push_back(word);
        continue;
      }
      absl::StatusOr<Command> parsed = ParseCommand(word);
      if (!parsed.ok()) return parsed.status();
      command = *parsed;
    } else if (word == "--help" || word == "-h") {
      return Arguments{};
    } else if (absl::Status status = TakeOption(word, words, arguments); !status.ok()) {
      return status;
    }
  }
  if (!command.has_value()) {
    return absl::InvalidArgumentError("no command; there are list, attach and detach");
  }
  arguments.command = *command;
  if (arguments.json && *command != Command::kList) return Misplaced("--json", "list");
  if (arguments.config.has_value() && *command != Command::kAttach) {
    return Misplaced("--config", "attach");
  }
  if (arguments.bus.has_value() && *command != Command::kDetach) {
    return Misplaced("--bus", "detach (an entry names its bus with the key bus)");
  }
  if (arguments.force && *command != Command::kDetach) return Misplaced("--force", "detach");
  if (absl::Status status = AssignPlainWords(plain, arguments); !status.ok()) return status;
  return arguments;
}

const char kHelpText[] =
    R"(vmsgctl: attaches virtio-msg devices to Xen guests and detaches them.

  vmsgctl [options] list [--json] [<domain>]
  vmsgctl [options] attach <domain> <entry>...
  vmsgctl [options] attach --config <xl domain config> [<domain>]
  vmsgctl [options] detach <domain> <num>|all [--bus <id>] [--force]

<domain> is a name or an id. <entry> is like "type=blk,path=/srv/g1.img": type, the type's own
keys, and optionally num=<device number> (default: the lowest free one) and bus=<id> (default 0).
A config's entries are virtio_msg = [ "type=blk,path=/srv/g1.img", "type=rng" ]; its domain is
`name` unless one is given, its backend virtio_msg_backend unless --backend is given.

attach waits until vmsgd has taken every entry or said why not; what was refused is removed again.
detach asks the driver to let go of the device and waits until it is gone, however long the driver
needs, or --timeout; interrupted, the request stands. With --force the driver is not asked. "all"
removes the whole bus with all of its devices, or every bus of the domain unless --bus names one.

Options:
  --xen native|emulated:<dir>  which Xen (default: this machine's)
  --backend <domain>           where vmsgd runs (default: this domain)
  --timeout <seconds>          how long to wait (default: 10 for vmsgd, without limit for a driver
                               that was asked to let go of a device)
  --help, --version            this text, the program's version

Exit status: 0 done; 1 refused or not answered, with the reason on stderr; 2 wrong command line.
)";

}  // namespace vmsg::ctl
