// SPDX-License-Identifier: Apache-2.0
// What the service does in the toolstack's place, where xl does not know of virtio-msg.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backend/service/toolstack/store_thread.h"
#include "grants/platform.h"

namespace vmsg::backend {

struct ToolstackOptions {
  // Where xl domain configs lie; empty: none are followed.
  std::vector<std::string> config_directories;
  // Serve xl's disks with backendtype=standalone,specification=virtio. ioreq backends use the same
  // nodes.
  bool claim_standalone_disks = false;
};

// A thread for each part that is wanted. They end with the result; the platform outlives Start
// only. `self`: the own domain.
absl::StatusOr<std::vector<std::unique_ptr<StoreThread>>> StartToolstackThreads(
    grants::Platform& platform, const ToolstackOptions& options, uint16_t self);

}  // namespace vmsg::backend
