// SPDX-License-Identifier: Apache-2.0
// Stands in while grants/emulated/ is not part of the build.
#include "grants/platform.h"

namespace vmsg::grants {

absl::StatusOr<std::unique_ptr<Platform>> OpenEmulatedPlatform(absl::string_view) {
  return absl::UnimplementedError("this program was built without the emulated Xen");
}

}  // namespace vmsg::grants
