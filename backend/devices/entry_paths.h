// SPDX-License-Identifier: Apache-2.0
// What can be said of the paths in an entry without opening or making anything. May wait for a
// disk.
#pragma once

#include "backend/devices/device.h"

namespace vmsg::backend {

// InvalidArgument, as OpenDevice would say it. A disk: `path` leads to a file or a block device.
absl::Status CheckImagePath(const DeviceEntry& entry);
// A console: the directory of `pty` or `socket` is there.
absl::Status CheckTerminalPath(const DeviceEntry& entry);

}  // namespace vmsg::backend
