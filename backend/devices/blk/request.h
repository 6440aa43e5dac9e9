// SPDX-License-Identifier: Apache-2.0
// Reading a block request out of a descriptor chain (virtio 1.4, "Block Device", "Device
// Operation"), whatever its framing: only the order of bytes counts, not how they are split over
// descriptors. The header is the first 16 readable bytes, the status the last writable byte, and
// the data lies between. Nothing is executed here.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "backend/virtqueue/split_queue.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::backend {

struct BlkRequest {
  uint32_t type = 0;      // wire::kBlkRequest...
  uint64_t sector = 0;    // of 512 bytes
  grants::IoVector data;  // to be written to the disk (type OUT) or filled (any other type)
  uint64_t data_bytes = 0;
  std::byte* status = nullptr;  // in guest memory: write only
};

enum class BlkParse {
  kOk,
  kNoStatus,  // no writable byte: nothing can be reported
  kNoHeader,  // fewer than 16 readable bytes; `status` is set
};

// Reuses the memory of `request`.
BlkParse ParseBlkRequest(const DescriptorChain& chain, BlkRequest* request);

// OutOfRange, with what was asked for, unless sector and data_bytes describe whole sectors inside a
// disk of `disk_bytes`.
absl::Status CheckInsideDisk(const BlkRequest& request, uint64_t disk_bytes);

}  // namespace vmsg::backend
