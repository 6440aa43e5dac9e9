// SPDX-License-Identifier: Apache-2.0
// Making a console's terminal, with every refusal an administrator can meet.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/console/console.h"
#include "backend/devices/console/console_device.h"
#include "backend/devices/console/terminal.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {
namespace {

constexpr absl::string_view kSizeSuffix = ".size";
constexpr int kBacklog = 4;
// Place of the directory among a console's descriptors; the terminal is first, what else there is
// follows.
constexpr size_t kDirectoryFd = 1;

std::string Errno() { return std::strerror(errno); }

// The directory of a path, so that what was made there can be removed without the path.
struct Place {
  UniqueFd directory;
  std::string name;
};

absl::StatusOr<Place> FindPlace(absl::string_view key, const std::string& path) {
  const size_t slash = path.rfind('/');
  Place place;
  place.name = path.substr(slash + 1);
  if (place.name.empty() || place.name == "." || place.name == "..") {
    return RefuseKey(key, path, "does not end in a name");
  }
  const std::string directory = slash == 0 ? "/" : path.substr(0, slash);
  place.directory = UniqueFd(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place.directory) {
    return RefuseKey(key, path, absl::StrCat("its directory: ", Errno()));
  }
  return place;
}

absl::Status MakeLink(const std::string& path, const Place& place, const std::string& target) {
  if (symlinkat(target.c_str(), place.directory.get(), place.name.c_str()) == 0) {
    return absl::OkStatus();
  }
  if (errno != EEXIST) return RefuseKey("pty", path, absl::StrCat("no link there: ", Errno()));
  char old[64] = {};
  const ssize_t length = readlinkat(place.directory.get(), place.name.c_str(), old, sizeof old - 1);
  if (length < 0 || !absl::StartsWith(absl::string_view(old), "/dev/pts/")) {
    return RefuseKey("pty", path, "exists and is no link to a pseudo terminal");
  }
  if (absl::string_view(old) != target && access(old, F_OK) == 0) {
    return RefuseKey("pty", path,
                     absl::StrCat("is a link to ", old,
                                  ", which is in use; remove the link if it "
                                  "belongs to no console"));
  }
  if (unlinkat(place.directory.get(), place.name.c_str(), 0) != 0 ||
      symlinkat(target.c_str(), place.directory.get(), place.name.c_str()) != 0) {
    return RefuseKey("pty", path, absl::StrCat("an old link there cannot be replaced: ", Errno()));
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedDevice> OpenPty(const DeviceEntry& entry) {
  absl::StatusOr<std::string> path = AbsolutePath(entry, "pty");
  if (!path.ok()) return path.status();
  absl::StatusOr<Place> place = FindPlace("pty", *path);
  if (!place.ok()) return place.status();

  UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  char slave_name[64] = {};
  if (!master || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0 ||
      ptsname_r(master.get(), slave_name, sizeof slave_name) != 0) {
    return RefuseKey("pty", *path, absl::StrCat("no pseudo terminal to be had: ", Errno()));
  }
  {
    // Opened and closed once: only then the master shows that nobody has it open.
    UniqueFd slave(open(slave_name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!slave) return RefuseKey("pty", *path, absl::StrCat(slave_name, ": ", Errno()));
  }
  UniqueFd opens(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (opens && inotify_add_watch(opens.get(), slave_name, IN_OPEN) < 0) opens = UniqueFd();
  if (absl::Status linked = MakeLink(*path, *place, slave_name); !linked.ok()) return linked;

  OpenedDevice opened;
  opened.options["kind"] = "pty";
  opened.options["link"] = place->name;
  opened.options["target"] = slave_name;
  opened.fds.push_back(std::move(master));
  opened.fds.push_back(std::move(place->directory));
  if (opens) opened.fds.push_back(std::move(opens));
  return opened;
}

// A bound socket that only this user can reach. A socket file that nobody serves is replaced.
absl::StatusOr<UniqueFd> BindSocket(const std::string& key_path, const std::string& path,
                                    int type) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return RefuseKey("socket", key_path,
                     absl::StrCat("is too long: ", path, " has more than ",
                                  sizeof address.sun_path - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  UniqueFd fd(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return RefuseKey("socket", key_path, Errno());
  if (bind(fd.get(), generic, sizeof address) != 0) {
    struct stat file = {};
    if (errno != EADDRINUSE || lstat(path.c_str(), &file) != 0) {
      return RefuseKey("socket", key_path, absl::StrCat("cannot be bound: ", Errno()));
    }
    if (!S_ISSOCK(file.st_mode)) {
      return RefuseKey("socket", key_path, absl::StrCat(path, " exists and is no socket"));
    }
    UniqueFd probe(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (connect(probe.get(), generic, sizeof address) == 0 || errno != ECONNREFUSED) {
      return RefuseKey("socket", key_path, absl::StrCat(path, " is in use by a running program"));
    }
    if (unlink(path.c_str()) != 0 || bind(fd.get(), generic, sizeof address) != 0) {
      return RefuseKey("socket", key_path,
                       absl::StrCat("an old socket there cannot be replaced: ", Errno()));
    }
  }
  if (chmod(path.c_str(), 0600) != 0 || (type == SOCK_STREAM && listen(fd.get(), kBacklog) != 0)) {
    const std::string why = Errno();
    unlink(path.c_str());
    return RefuseKey("socket", key_path, why);
  }
  return fd;
}

absl::StatusOr<OpenedDevice> OpenSocket(const DeviceEntry& entry) {
  absl::StatusOr<std::string> path = AbsolutePath(entry, "socket");
  if (!path.ok()) return path.status();
  absl::StatusOr<Place> place = FindPlace("socket", *path);
  if (!place.ok()) return place.status();
  absl::StatusOr<UniqueFd> stream = BindSocket(*path, *path, SOCK_STREAM);
  if (!stream.ok()) return stream.status();
  absl::StatusOr<UniqueFd> sizes = BindSocket(*path, absl::StrCat(*path, kSizeSuffix), SOCK_DGRAM);
  if (!sizes.ok()) {
    unlink(path->c_str());
    return sizes.status();
  }
  OpenedDevice opened;
  opened.options["kind"] = "socket";
  opened.options["name"] = place->name;
  opened.fds.push_back(*std::move(stream));
  opened.fds.push_back(std::move(place->directory));
  opened.fds.push_back(*std::move(sizes));
  return opened;
}

}  // namespace

absl::StatusOr<OpenedDevice> OpenConsole(const DeviceEntry& entry) {
  const bool pty = entry.keys.contains("pty");
  const bool socket = entry.keys.contains("socket");
  if (pty && socket) {
    return RefuseKey("socket", KeyOr(entry, "socket", ""),
                     "cannot be given together with pty: a console has one terminal");
  }
  if (pty) return OpenPty(entry);
  if (socket) return OpenSocket(entry);
  return RefuseKey("pty", "", "is required (or socket): where the console's terminal is");
}

void RemoveConsoleNames(const OpenedDevice& opened) {
  if (opened.fds.size() <= kDirectoryFd) return;
  const int directory = opened.fds[kDirectoryFd].get();
  if (absl::StatusOr<std::string> name = Option(opened, "name"); name.ok()) {
    unlinkat(directory, name->c_str(), 0);
    unlinkat(directory, absl::StrCat(*name, kSizeSuffix).c_str(), 0);
    return;
  }
  absl::StatusOr<std::string> link = Option(opened, "link");
  absl::StatusOr<std::string> target = Option(opened, "target");
  if (!link.ok() || !target.ok()) return;
  // The link is ours as long as it names our terminal.
  char now[64];
  const ssize_t length = readlinkat(directory, link->c_str(), now, sizeof now);
  if (length > 0 && std::string(now, static_cast<size_t>(length)) == *target) {
    unlinkat(directory, link->c_str(), 0);
  }
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
