// SPDX-License-Identifier: Apache-2.0
// An opened disk image: what the block device runs on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backend/devices/device.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// Two descriptors of one file. Requests whose buffers and range suit O_DIRECT take `direct`, others
// go through the page cache. The kernel keeps the two views coherent as long as they do not overlap
// in time: a direct transfer first writes back and drops the cached pages of its range. What it
// does not order is a cached access next to a direct write at the same time, as both may touch one
// page; WriteGate keeps those apart.
struct BlkImage {
  UniqueFd buffered;
  UniqueFd direct;  // none: everything is buffered
  // Of a loop device: its file, only held for its lock. None: the disk is something else.
  UniqueFd loop_file;
  uint64_t bytes = 0;
  uint32_t logical_block = 512;
  uint32_t physical_block = 512;
  uint32_t memory_alignment = 512;  // of a buffer, for `direct`
  uint32_t offset_alignment = 512;  // of offset and length, for `direct`
  bool read_only = false;
  bool writethrough = false;
  uint32_t queues = 1;
  std::string serial;
  std::shared_ptr<DeviceHealth> health = std::make_shared<DeviceHealth>();
};

// As plain values and descriptors, and back.
OpenedDevice PackImage(BlkImage image);
absl::StatusOr<BlkImage> UnpackImage(OpenedDevice opened);

}  // namespace vmsg::backend
