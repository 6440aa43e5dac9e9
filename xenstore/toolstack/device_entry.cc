// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/device_entry.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "text/foreign_text.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/discovery.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr char kNumberKey[] = "num";
constexpr char kBusKey[] = "bus";
constexpr size_t kMaxKeyBytes = 32;

absl::Status KeyError(absl::string_view key, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("key ", Quoted(key), ": ", reason));
}

// Keys become names of nodes.
absl::Status CheckKey(absl::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return KeyError(key, absl::StrCat("longer than ", kMaxKeyBytes, " bytes"));
  }
  for (const char c : key) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_') {
      return KeyError(key, "only letters, digits, '-' and '_' may form a key");
    }
  }
  // A node beside the parameters in device/<n>: the key would overwrite it.
  if (key != kType && IsControlNode(key)) {
    return KeyError(key, "the name is reserved for the backend's own use");
  }
  return absl::OkStatus();
}

absl::Status AddPair(absl::string_view key, absl::string_view value, DeviceEntry& entry,
                     bool& bus_given) {
  if (key == kType) {
    if (!entry.type.empty()) return KeyError(key, "given twice");
    entry.type = std::string(value);
  } else if (key == kNumberKey) {
    if (entry.number.has_value()) return KeyError(key, "given twice");
    absl::StatusOr<uint64_t> number = ParseDecimal(value, "the device number", 0, UINT16_MAX);
    if (!number.ok()) return KeyError(key, number.status().message());
    entry.number = static_cast<uint16_t>(*number);
  } else if (key == kBusKey) {
    if (bus_given) return KeyError(key, "given twice");
    bus_given = true;
    absl::StatusOr<uint64_t> bus = ParseDecimal(value, "the bus id", 0, UINT32_MAX);
    if (!bus.ok()) return KeyError(key, bus.status().message());
    entry.bus = static_cast<uint32_t>(*bus);
  } else {
    if (entry.keys.size() >= kMaxKeysPerDevice) {
      return KeyError(key, absl::StrCat("an entry has at most ", kMaxKeysPerDevice, " keys"));
    }
    if (!entry.keys.emplace(key, value).second) return KeyError(key, "given twice");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeviceEntry> ParseDeviceEntry(absl::string_view text) {
  if (text.size() > kMaxEntryBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the entry has ", text.size(), " bytes, more than the limit of ", kMaxEntryBytes));
  }
  if (absl::StripAsciiWhitespace(text).empty()) {
    return absl::InvalidArgumentError(
        "the entry is empty; expected \"type=<type>,<key>=<value>...\"");
  }
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return absl::InvalidArgumentError(
          absl::StrCat("the entry ", Quoted(text), " contains a control character"));
    }
  }
  DeviceEntry entry;
  bool bus_given = false;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    part = absl::StripAsciiWhitespace(part);
    const size_t equals = part.find('=');
    if (part.empty()) {
      return absl::InvalidArgumentError("an empty key=value pair: a comma too many");
    }
    if (equals == absl::string_view::npos)
      return KeyError(part, "has no value; expected key=value");
    const absl::string_view key = absl::StripTrailingAsciiWhitespace(part.substr(0, equals));
    const absl::string_view value = absl::StripLeadingAsciiWhitespace(part.substr(equals + 1));
    if (key.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("the value ", Quoted(value), " has no key"));
    }
    if (value.empty()) return KeyError(key, "the value is empty");
    if (absl::Status status = CheckKey(key); !status.ok()) return status;
    if (absl::Status status = AddPair(key, value, entry, bus_given); !status.ok()) return status;
  }
  if (entry.type.empty()) return KeyError(kType, "missing; every entry needs one");
  return entry;
}

}  // namespace vmsg::xenstore
