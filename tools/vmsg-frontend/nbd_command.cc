// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend nbd: nbdkit with the plugin of tools/nbdkit-vmsg.
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/vmsg-frontend/commands.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::frontend_tool {
namespace {

// Beside this program, or else by its short name, which nbdkit looks for where it is installed.
std::string PluginPath() {
  std::string self(4096, '\0');
  const ssize_t size = ::readlink("/proc/self/exe", self.data(), self.size());
  if (size > 0) {
    self.resize(static_cast<size_t>(size));
    std::string beside = self.substr(0, self.rfind('/') + 1) + VMSG_NBD_PLUGIN;
    if (::access(beside.c_str(), R_OK) == 0) return beside;
  }
  return VMSG_NBD_PLUGIN_NAME;
}

}  // namespace

// nbdkit's own default is a port on every address of this machine, for everybody, with writing.
absl::Status CheckNbdArguments(const Arguments& arguments) {
  if (arguments.Has("socket") || arguments.Has("run")) return absl::OkStatus();
  return UsageError(
      "nbd: where? --socket PATH offers the disk at a Unix socket, --run COMMAND to one command");
}

absl::Status FindDisk(frontend::BusConnection& connection, const Arguments& arguments) {
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> disk =
      OpenDevice(connection, arguments, wire::kDeviceIdBlock, "blk");
  if (!disk.ok()) return disk.status();
  if ((*disk)->info().device_id == wire::kDeviceIdBlock) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("device ", (*disk)->dev_num(), " is of type ",
                                                 DeviceTypeName((*disk)->info().device_id),
                                                 ", not a disk"));
}

absl::Status RunNbd(const Arguments& arguments) {
  std::vector<std::string> command = {"nbdkit", "--foreground"};
  if (arguments.Has("readonly")) command.push_back("--readonly");
  if (arguments.Has("socket")) {
    command.push_back(absl::StrCat("--unix=", arguments.Text("socket", "")));
  } else {
    command.push_back("--unix=-");  // in a directory of its own, removed at the end
  }
  if (arguments.Has("run")) {
    command.push_back("--run");
    command.push_back(arguments.Text("run", ""));
  }
  // The device works in sectors; the filter turns other requests into reads, changes and writes.
  command.push_back("--filter=blocksize");
  command.push_back(arguments.Text("plugin", PluginPath()));
  for (const char* key : {"xen", "bus", "dev", "pages", "wait"}) {
    if (arguments.Has(key)) command.push_back(absl::StrCat(key, "=", arguments.Text(key, "")));
  }
  command.push_back("minblock=512");
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return absl::ErrnoToStatus(errno, "start nbdkit (Debian package nbdkit)");
}

}  // namespace vmsg::frontend_tool
