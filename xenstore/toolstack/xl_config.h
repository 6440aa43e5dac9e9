// SPDX-License-Identifier: Apache-2.0
// Reads virtio-msg devices from an xl domain config, with the parser that xl itself uses. xl
// ignores the key virtio_msg, and keeps it nowhere: the file is the only place to read it from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "xenstore/toolstack/device_entry.h"

namespace vmsg::xenstore {

// A config with more is a mistake.
inline constexpr int kMaxConfigEntries = 256;
// xl's parser takes the whole file at once. No domain config comes near.
inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;

struct XlConfig {
  std::optional<std::string> name;     // name = "g1"
  std::optional<std::string> backend;  // virtio_msg_backend = "driver-domain": name or id
  // virtio_msg = [ "type=blk,path=/srv/g1.img", "type=rng" ]; empty: the key is absent.
  std::vector<std::string> texts;
  std::vector<DeviceEntry> entries;  // parsed from texts, in the same order
  // Keys that xl ignores as well and that are nearly one of ours: "<path>:<line>: ...".
  std::vector<std::string> warnings;
  // What is wrong with the keys of ours, as ReadXlConfig would report it; `entries` is not to be
  // used then.
  absl::Status problem;
};

// The bytes of a file that may be a config. NotFound or PermissionDenied: it cannot be read.
// InvalidArgument: it is no regular file, or larger than any config. Never waits for a pipe's
// writer.
absl::StatusOr<std::string> ReadConfigFile(const std::string& path);

// Whether a file's text may name a key of ours, perhaps mistyped. Most files need no parser.
bool MaySpeakOfVirtioMsg(absl::string_view content);

// `content` was read from `path`, which is for messages only. InvalidArgument: it is not a config.
// Any bytes are fit for it: xl's parser, which ends the program at some, sees text only.
// A config whose name can be told although its entries are malformed is returned, with `problem`.
absl::StatusOr<XlConfig> ParseXlConfig(const std::string& path, const std::string& content);

// NotFound or PermissionDenied: the file cannot be read. InvalidArgument: it is not a config (the
// text holds the parser's own report), or an entry is malformed: the text names the file, the
// entry's index (from 0), its key and the reason.
absl::StatusOr<XlConfig> ReadXlConfig(const std::string& path);

}  // namespace vmsg::xenstore
