// SPDX-License-Identifier: Apache-2.0
// The file that a trace is written to: a capture that vmsg-decode reads, of bounded size.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

struct TraceSettings {
  std::string path;  // empty: no trace
  // The file has no more. What does not fit any more begins a new one, and the full one is kept as
  // <path>.1.
  uint64_t max_bytes = uint64_t{256} << 20;
  friend bool operator==(const TraceSettings&, const TraceSettings&) = default;
};

// Whether a trace may be written to this path: nothing is there, or a capture of this user's, which
// becomes <path>.1. Anything else (a link, a pipe, somebody else's file, a file that is no capture,
// no directory) is refused with InvalidArgument and left alone. Other errors are the system's.
// Looks only; may wait for the disk.
absl::Status CheckTracePath(const std::string& path);

// Waits for the disk. One thread at a time.
class CaptureFile {
 public:
  // A new file that only this user reads; what CheckTracePath allows is moved aside.
  static absl::StatusOr<CaptureFile> Begin(TraceSettings settings);

  // Whole packets one after the other, as wire::CapturePacketHeader begins each. When it fails the
  // file ends behind the last packet that is in it whole, and is not to be written again.
  absl::Status Append(std::span<const std::byte> packets);

  // Whether the path still leads to this file.
  bool InPlace() const;
  void set_max_bytes(uint64_t bytes) { settings_.max_bytes = bytes; }
  const std::string& path() const { return settings_.path; }
  uint64_t packets() const { return packets_; }  // in all

 private:
  CaptureFile(TraceSettings settings, UniqueFd fd)
      : settings_(std::move(settings)), fd_(std::move(fd)) {}
  absl::Status WriteWhole(std::span<const std::byte> packets);

  TraceSettings settings_;
  UniqueFd fd_;
  uint64_t bytes_ = 0;
  uint64_t packets_ = 0;
};

}  // namespace vmsg::backend
