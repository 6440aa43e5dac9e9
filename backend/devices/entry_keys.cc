// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/entry_keys.h"

#include <limits.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "text/foreign_text.h"

namespace vmsg::backend {
namespace {

// Of a refused value, as much is shown.
constexpr size_t kShownBytes = 128;

bool AllDigits(absl::string_view text) {
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
  }
  return !text.empty();
}

}  // namespace

absl::Status RefuseKey(absl::string_view key, absl::string_view value, absl::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat(key, "=", Quoted(value, kShownBytes), ": ", rule));
}

std::string ErrnoText() { return std::strerror(errno); }

std::string KeyOr(const DeviceEntry& entry, absl::string_view key, absl::string_view otherwise) {
  auto found = entry.keys.find(std::string(key));
  return found == entry.keys.end() ? std::string(otherwise) : found->second;
}

absl::StatusOr<bool> FlagOr(const DeviceEntry& entry, absl::string_view key, bool otherwise) {
  const std::string value = KeyOr(entry, key, otherwise ? "1" : "0");
  if (value == "0") return false;
  if (value == "1") return true;
  return RefuseKey(key, value, "must be 0 or 1");
}

absl::StatusOr<uint32_t> NumberOr(const DeviceEntry& entry, absl::string_view key,
                                  uint32_t otherwise, uint32_t least, uint32_t most) {
  const std::string value = KeyOr(entry, key, absl::StrCat(otherwise));
  uint32_t number = 0;
  if (!AllDigits(value) || !absl::SimpleAtoi(value, &number) || number < least || number > most) {
    return RefuseKey(key, value, absl::StrCat("must be a number from ", least, " to ", most));
  }
  return number;
}

absl::StatusOr<std::string> AbsolutePath(const DeviceEntry& entry, absl::string_view key) {
  std::string value = KeyOr(entry, key, "");
  if (value.empty()) return RefuseKey(key, value, "is required: an absolute path");
  if (value.find('\0') != std::string::npos) return RefuseKey(key, value, "has a NUL in it");
  if (value[0] != '/') return RefuseKey(key, value, "must be an absolute path");
  if (value.size() >= PATH_MAX) {
    return RefuseKey(key, value, absl::StrCat("is longer than ", PATH_MAX - 1, " bytes"));
  }
  return value;
}

absl::StatusOr<std::string> Option(const OpenedDevice& opened, absl::string_view name) {
  auto found = opened.options.find(std::string(name));
  if (found == opened.options.end()) {
    return absl::InternalError(
        absl::StrCat("device ", opened.number, " was opened without the option ", name));
  }
  return found->second;
}

absl::StatusOr<uint64_t> OptionNumber(const OpenedDevice& opened, absl::string_view name) {
  absl::StatusOr<std::string> text = Option(opened, name);
  if (!text.ok()) return text.status();
  uint64_t number = 0;
  if (!AllDigits(*text) || !absl::SimpleAtoi(*text, &number)) {
    return absl::InternalError(absl::StrCat("device ", opened.number,
                                            " was opened with the option ", name, "=\"", *text,
                                            "\", which is no number"));
  }
  return number;
}

}  // namespace vmsg::backend
