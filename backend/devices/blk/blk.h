// SPDX-License-Identifier: Apache-2.0
// type=blk: a disk on a raw file or a block device.
//   path=/abs        required
//   format=raw       attaches the image as it is, whatever its bytes look like; without it an image
//                    that looks like a container of a disk (qcow2, ...) is refused
//   readonly=0|1     default 0
//   cache=writeback|writethrough   default writeback: a write is on stable storage after the next
//                    flush; writethrough: when it completes. There is no mode that ignores flushes.
//   direct=0|1       O_DIRECT; default 1 where the file allows it, else 0
//   serial=text      up to 20 printable characters, for GET_ID; default empty
//   queues=1..16     default 1
#pragma once

#include "backend/devices/device.h"

namespace vmsg::backend {

inline constexpr absl::string_view kBlkKeys[] = {"cache",  "direct",   "format", "path",
                                                 "queues", "readonly", "serial"};

absl::StatusOr<OpenedDevice> OpenBlk(const DeviceEntry& entry);
absl::StatusOr<std::unique_ptr<Device>> CreateBlk(OpenedDevice opened,
                                                  const DeviceEnvironment& environment);

}  // namespace vmsg::backend
