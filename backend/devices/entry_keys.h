// SPDX-License-Identifier: Apache-2.0
// Reading the keys of a device entry: one wording for every refusal, key, value and rule.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/devices/device.h"

namespace vmsg::backend {

// InvalidArgument: `key="value": rule`.
absl::Status RefuseKey(absl::string_view key, absl::string_view value, absl::string_view rule);

// What errno says, as a rule for RefuseKey.
std::string ErrnoText();

// The key's value, or `otherwise` when the entry has none.
std::string KeyOr(const DeviceEntry& entry, absl::string_view key, absl::string_view otherwise);

// 0 or 1.
absl::StatusOr<bool> FlagOr(const DeviceEntry& entry, absl::string_view key, bool otherwise);

// Decimal digits, least..most.
absl::StatusOr<uint32_t> NumberOr(const DeviceEntry& entry, absl::string_view key,
                                  uint32_t otherwise, uint32_t least, uint32_t most);

// A path that a program may open or create: absolute and of at most PATH_MAX - 1 bytes, no NUL.
absl::StatusOr<std::string> AbsolutePath(const DeviceEntry& entry, absl::string_view key);

// An option of an OpenedDevice as a number. Internal: open wrote it where it is not a number.
absl::StatusOr<uint64_t> OptionNumber(const OpenedDevice& opened, absl::string_view name);
absl::StatusOr<std::string> Option(const OpenedDevice& opened, absl::string_view name);

}  // namespace vmsg::backend
