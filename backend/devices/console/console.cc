// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/console.h"

#include <utility>

#include "backend/devices/console/console_device.h"
#include "backend/devices/console/terminal/terminal.h"
#include "backend/devices/console/terminal/terminal_place.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {
namespace {

struct TerminalKey {
  bool is_pty;
  std::string path;
};

absl::StatusOr<TerminalKey> ReadTerminalKey(const DeviceEntry& entry) {
  const bool pty = entry.keys.contains("pty");
  const bool socket = entry.keys.contains("socket");
  if (pty && socket) {
    return RefuseKey("socket", KeyOr(entry, "socket", ""),
                     "cannot be given together with pty: a console has one terminal");
  }
  if (!pty && !socket) {
    return RefuseKey("pty", "", "is required (or socket): where the console's terminal is");
  }
  absl::StatusOr<std::string> path = AbsolutePath(entry, pty ? "pty" : "socket");
  if (!path.ok()) return path.status();
  return TerminalKey{pty, *std::move(path)};
}

bool IsPty(const OpenedDevice& opened) {
  absl::StatusOr<std::string> kind = Option(opened, "kind");
  return kind.ok() && *kind == "pty";
}

}  // namespace

absl::StatusOr<OpenedDevice> OpenConsole(const DeviceEntry& entry) {
  absl::StatusOr<TerminalKey> key = ReadTerminalKey(entry);
  if (!key.ok()) return key.status();
  return key->is_pty ? MakePty(key->path) : MakeSockets(key->path);
}

void RemoveConsoleNames(const OpenedDevice& opened) {
  if (opened.fds.size() <= kDirectoryFd) return;
  IsPty(opened) ? RemovePtyLink(opened) : RemoveSockets(opened);
}

absl::StatusOr<std::unique_ptr<Device>> CreateConsole(OpenedDevice opened,
                                                      const DeviceEnvironment& environment) {
  absl::StatusOr<std::string> kind = Option(opened, "kind");
  if (!kind.ok()) return kind.status();
  absl::StatusOr<std::unique_ptr<Terminal>> terminal =
      *kind == "pty" ? NewPtyTerminal(std::move(opened), environment.loop)
                     : NewSocketTerminal(std::move(opened), environment.loop);
  if (!terminal.ok()) return terminal.status();
  return std::make_unique<ConsoleDevice>(*std::move(terminal), environment.loop);
}

}  // namespace vmsg::backend
