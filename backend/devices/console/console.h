// SPDX-License-Identifier: Apache-2.0
// type=console: port 0 of a virtio console on a terminal of this machine. One of:
//   pty=/abs         a pseudo terminal is made, and a symbolic link to it at this path; a link to a
//                    pseudo terminal that is there already is replaced
//   socket=/abs      a Unix stream socket listens at this path, one client at a time; a datagram
//                    "COLS ROWS" to <path>.size sets the window size while the guest's bus is
//                    connected. Sockets that nobody listens on any more are replaced
// Both are removed with the entry; a guest that connects again meets the same terminal.
#pragma once

#include "backend/devices/device.h"

namespace vmsg::backend {

inline constexpr absl::string_view kConsoleKeys[] = {"pty", "socket"};

absl::StatusOr<OpenedDevice> OpenConsole(const DeviceEntry& entry);
absl::StatusOr<std::unique_ptr<Device>> CreateConsole(OpenedDevice opened,
                                                      const DeviceEnvironment& environment);

// The link or the sockets.
void RemoveConsoleNames(const OpenedDevice& opened);

}  // namespace vmsg::backend
