// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/configuration/options.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace vmsg {
namespace {

absl::StatusOr<uint32_t> Number(const std::string& text, uint32_t least, uint32_t most) {
  uint32_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < least || value > most) {
    return absl::InvalidArgumentError(absl::StrCat("a number from ", least, " to ", most));
  }
  return value;
}

absl::Status SetXen(const std::string& value, Arguments& arguments) {
  // Whether there is one is asked by OpenPlatform.
  absl::string_view directory = value;
  const bool emulated = absl::ConsumePrefix(&directory, "emulated:") && !directory.empty();
  if (!value.empty() && value != "native" && !emulated) {
    return absl::InvalidArgumentError("native or emulated:DIR");
  }
  arguments.xen = value;
  return absl::OkStatus();
}

absl::Status SetIoThreads(const std::string& value, Arguments& arguments) {
  absl::StatusOr<uint32_t> number = Number(value, 1, 64);
  if (number.ok()) arguments.service.io_threads = *number;
  return number.status();
}

absl::Status SetMaxWindowPages(const std::string& value, Arguments& arguments) {
  // A guest whose disk has less than 2 MiB of window finds no room for its largest requests, and
  // some wait for it for ever (docs/binding.md, section 4). Past 65,536 in one window, gntdev's own
  // limit has to be raised, too.
  absl::StatusOr<uint32_t> number = Number(value, 512, 1u << 20);
  if (number.ok()) arguments.service.max_window_pages = *number;
  return number.status();
}

absl::Status SetSpin(const std::string& value, Arguments& arguments) {
  if (value == "auto") {
    arguments.service.spin.longest = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  absl::StatusOr<uint32_t> number = Number(value, 0, 10'000);
  if (!number.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("auto, or ", number.status().message()));
  }
  arguments.service.spin.longest = absl::Microseconds(*number);
  return absl::OkStatus();
}

absl::Status SetSpinShare(const std::string& value, Arguments& arguments) {
  absl::StatusOr<uint32_t> number = Number(value, 1, 100);
  if (number.ok()) arguments.service.spin.share_percent = *number;
  return number.status();
}

absl::Status SetCheckDomains(const std::string& value, Arguments& arguments) {
  absl::StatusOr<uint32_t> number = Number(value, 0, 86'400);
  if (number.ok()) arguments.service.domain_check_interval = absl::Seconds(*number);
  return number.status();
}

absl::Status SetConfigDir(const std::string& value, Arguments& arguments) {
  std::vector<std::string> directories = absl::StrSplit(value, ':', absl::SkipEmpty());
  for (const std::string& directory : directories) {
    if (directory[0] != '/') return absl::InvalidArgumentError("absolute paths, ':' between them");
  }
  arguments.service.toolstack.config_directories = std::move(directories);
  return absl::OkStatus();
}

absl::Status SetClaimStandaloneDisks(const std::string& value, Arguments& arguments) {
  if (value != "0" && value != "1") return absl::InvalidArgumentError("0 or 1");
  arguments.service.toolstack.claim_standalone_disks = value == "1";
  return absl::OkStatus();
}

absl::Status SetBounce(const std::string& value, Arguments& arguments) {
  using Bounce = backend::ServiceOptions::Bounce;
  constexpr std::pair<const char*, Bounce> kChoices[] = {
      {"auto", Bounce::kAuto}, {"on", Bounce::kOn}, {"off", Bounce::kOff}};
  for (const auto& [name, bounce] : kChoices) {
    if (value != name) continue;
    arguments.service.bounce = bounce;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("auto, on or off");
}

absl::Status SetTrace(const std::string& value, Arguments& arguments) {
  // What lies there is looked at when it is begun, and by CheckPlaces.
  arguments.service.trace.path = value;
  return absl::OkStatus();
}

absl::Status SetTraceSize(const std::string& value, Arguments& arguments) {
  absl::StatusOr<uint32_t> number = Number(value, 1, 1u << 20);
  if (number.ok()) arguments.service.trace.max_bytes = uint64_t{*number} << 20;
  return number.status();
}

absl::Status SetLogLevel(const std::string& value, Arguments& arguments) {
  constexpr std::pair<const char*, backend::LogLevel> kLevels[] = {
      {"error", backend::LogLevel::kError},
      {"warning", backend::LogLevel::kWarning},
      {"info", backend::LogLevel::kInfo},
      {"debug", backend::LogLevel::kDebug}};
  for (const auto& [name, level] : kLevels) {
    if (value != name) continue;
    arguments.log_level = level;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("error, warning, info or debug");
}

absl::Status SetReadyFd(const std::string& value, Arguments& arguments) {
  absl::StatusOr<uint32_t> number = Number(value, 0, std::numeric_limits<int>::max());
  if (number.ok()) arguments.ready_fd = static_cast<int>(*number);
  return number.status();
}

absl::Status SetSandbox(const std::string& value, Arguments& arguments) {
  if (value != "on" && value != "off") return absl::InvalidArgumentError("on or off");
  arguments.sandbox = value == "on";
  return absl::OkStatus();
}

}  // namespace

const std::vector<OptionRow>& OptionTable() {
  static const auto* const table = new std::vector<OptionRow>{
      {"xen", true, WhenChanged::kAtRestart, SetXen},
      {"io-threads", true, WhenChanged::kAtRestart, SetIoThreads},
      {"max-window-pages", true, WhenChanged::kAtReload, SetMaxWindowPages},
      {"spin-us", true, WhenChanged::kAtReload, SetSpin},
      {"spin-share", true, WhenChanged::kAtReload, SetSpinShare},
      {"bounce", true, WhenChanged::kAtRestart, SetBounce},
      {"check-domains", true, WhenChanged::kAtRestart, SetCheckDomains},
      {"config-dir", true, WhenChanged::kAtRestart, SetConfigDir},
      {"claim-standalone-disks", true, WhenChanged::kAtRestart, SetClaimStandaloneDisks},
      {"trace", true, WhenChanged::kAtReload, SetTrace},
      {"trace-size", true, WhenChanged::kAtReload, SetTraceSize},
      {"log-level", true, WhenChanged::kAtReload, SetLogLevel},
      {"sandbox", true, WhenChanged::kAtRestart, SetSandbox},
      {"ready-fd", false, WhenChanged::kAtRestart, SetReadyFd},
  };
  return *table;
}

std::vector<std::string> OptionNames(bool in_file) {
  std::vector<std::string> names;
  for (const OptionRow& row : OptionTable()) {
    if (row.in_file || !in_file) names.push_back(row.name);
  }
  return names;
}

const OptionRow* FindOption(absl::string_view name) {
  for (const OptionRow& row : OptionTable()) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

absl::StatusOr<Arguments> ArgumentsFrom(const Settings& settings) {
  Arguments arguments;
  // The control thread sleeps most of the time.
  const unsigned processors = std::thread::hardware_concurrency();
  arguments.service.io_threads = std::clamp(processors, 2u, 5u) - 1;
  arguments.service.toolstack.config_directories = {"/etc/xen", "/etc/xen/auto"};
  for (const Setting& setting : settings) {
    const OptionRow* row = FindOption(setting.name);
    if (row == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(setting.place, ": no such option"));
    }
    if (absl::Status set = row->set(setting.value, arguments); !set.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(setting.place, ": ", set.message()));
    }
  }
  return arguments;
}

}  // namespace vmsg
