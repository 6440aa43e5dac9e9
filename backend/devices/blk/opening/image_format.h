// SPDX-License-Identifier: Apache-2.0
// Images that are not the disk itself but a container of one. None is interpreted here: they are
// told from raw disks, so that a guest does not get the container's bytes as its disk.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

struct ImageFormat {
  const char* name;
  // What there is to do about it.
  const char* advice;
};

// What the image's first and last bytes say; null: nothing, as those of a raw disk. What a guest
// writes to its raw disk can say anything.
absl::StatusOr<const ImageFormat*> RecognizeFormat(const UniqueFd& fd, uint64_t bytes);

}  // namespace vmsg::backend
