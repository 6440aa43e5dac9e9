// SPDX-License-Identifier: Apache-2.0
// --trace: every message of every bus, as a capture that vmsg-decode reads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "backend/bus/bus_interfaces.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// Thread-safe: buses of several threads write to it. Each message is written at once, so that the
// file is whole whenever the service ends. The first write that fails ends the trace.
class TraceFile {
 public:
  static absl::StatusOr<std::shared_ptr<TraceFile>> Create(const std::string& path);

  // The trace goes on in this file: a new one, unless it is the one that is written already. Empty:
  // it ends. When the new file cannot be made, the old one is kept.
  absl::Status Reopen(const std::string& path);

  void Write(uint16_t frontend, uint32_t bus, bool from_driver, std::span<const std::byte> message);

 private:
  explicit TraceFile(UniqueFd fd) : fd_(std::move(fd)) {}
  std::mutex mutex_;
  UniqueFd fd_;  // guarded by mutex_
};

// One bus's tap into it.
std::unique_ptr<MessageTap> NewTraceTap(std::shared_ptr<TraceFile> file, uint16_t frontend,
                                        uint32_t bus);

}  // namespace vmsg::backend
