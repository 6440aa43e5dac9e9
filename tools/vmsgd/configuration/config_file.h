// SPDX-License-Identifier: Apache-2.0
// vmsgd's configuration file: lines `option = value` with the names of the long options, blank
// lines, and comments from a `#` at the start of a line.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/vmsgd/configuration/options.h"

namespace vmsg {

inline constexpr char kDefaultConfigFile[] = "/etc/virtio-msg-xen/vmsgd.conf";
// A larger file is no configuration file.
inline constexpr size_t kMaxConfigFileBytes = size_t{64} * 1024;

// InvalidArgument: `path:line:`, what is there, and what is allowed. Values are not checked.
absl::StatusOr<Settings> ParseConfig(absl::string_view path, absl::string_view text);

// NotFound when there is no such file; other errors name the file and why it cannot be read.
absl::StatusOr<Settings> ReadConfigFile(const std::string& path);

}  // namespace vmsg
