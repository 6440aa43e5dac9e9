// SPDX-License-Identifier: Apache-2.0
// Whether an image is in use where locks do not show it: mounted, swapped to, part of a mapping,
// behind a loop device, a partition's disk. Asked under the image's lock and claim, so that of two
// that are attached at once at least one sees the other. Errors are reasons for RefuseKey.
#pragma once

#include <sys/stat.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend/devices/blk/opening/kernel_view.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// Opens what `place` (O_PATH) stands for, so that it is the file that was looked at.
UniqueFd Reopen(const UniqueFd& place, int flags);

// Why a disk cannot be claimed (EBUSY).
absl::Status RefuseBusyDisk(const KernelView& kernel, dev_t disk);

// A disk that is opened, for writing with O_EXCL, and locked.
absl::Status CheckDiskUses(const KernelView& kernel, const UniqueFd& place, dev_t disk,
                           bool read_only);

// A file that is opened and locked. `loop`: the loop device by which it was found, if any.
absl::Status CheckFileUses(const KernelView& kernel, const struct stat& file, bool read_only,
                           const std::string& loop = "");

// Of a loop device: its file, locked like the disk and looked at like a file of its own. None: it
// is no loop device, or its file is nowhere that anybody else could name it.
absl::StatusOr<UniqueFd> HoldLoopFile(const KernelView& kernel, const UniqueFd& loop, dev_t disk,
                                      bool read_only);

}  // namespace vmsg::backend
