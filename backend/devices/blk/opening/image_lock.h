// SPDX-License-Identifier: Apache-2.0
// Who else may have an image: locks of the kernel's, which go when the last descriptor of the open
// file is closed and the last request on it has ended, so that a killed vmsgd's writes keep the
// next one out.
#pragma once

#include "absl/status/status.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {

// For writing alone, or for reading among readers. QEMU's programs are understood: what they write
// cannot be read here, and what is read here they cannot write. An error is a reason for RefuseKey.
absl::Status LockImage(const UniqueFd& fd, bool read_only);

// Whether anybody holds the image by LockImage, without holding it.
absl::Status CheckUnlocked(const UniqueFd& fd);

}  // namespace vmsg::backend
