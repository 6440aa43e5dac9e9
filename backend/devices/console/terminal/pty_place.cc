// SPDX-License-Identifier: Apache-2.0
// A pseudo terminal and the link to it, with every refusal an administrator can meet.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/console/terminal/terminal_place.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {
namespace {

// Whether there is room for a link to `target`: nothing is there, or a link to a pseudo terminal
// that is not there any more.
absl::Status CheckOldLink(const std::string& path, const TerminalPlace& place,
                          absl::string_view target) {
  struct stat file = {};
  if (!LookAt(place.directory, place.name, &file)) {
    if (errno == ENOENT) return absl::OkStatus();
    return RefuseKey("pty", path, ErrnoText());
  }
  char old[64] = {};
  const ssize_t length = readlinkat(place.directory.get(), place.name.c_str(), old, sizeof old - 1);
  if (length < 0 || !absl::StartsWith(absl::string_view(old), "/dev/pts/")) {
    return RefuseKey("pty", path, "exists and is no link to a pseudo terminal");
  }
  if (absl::string_view(old) != target && access(old, F_OK) == 0) {
    return RefuseKey("pty", path,
                     absl::StrCat("is a link to ", old,
                                  ", which is in use; remove the link if it belongs to no "
                                  "console"));
  }
  return absl::OkStatus();
}

absl::Status MakeLink(const std::string& path, const TerminalPlace& place,
                      const std::string& target) {
  const auto make = [&] {
    return symlinkat(target.c_str(), place.directory.get(), place.name.c_str()) == 0;
  };
  if (make()) return absl::OkStatus();
  if (errno != EEXIST) return RefuseKey("pty", path, absl::StrCat("no link there: ", ErrnoText()));
  if (absl::Status old = CheckOldLink(path, place, target); !old.ok()) return old;
  if (unlinkat(place.directory.get(), place.name.c_str(), 0) != 0 || !make()) {
    return RefuseKey("pty", path,
                     absl::StrCat("an old link there cannot be replaced: ", ErrnoText()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OpenedDevice> MakePty(const std::string& path) {
  absl::StatusOr<TerminalPlace> place = FindTerminalPlace("pty", path);
  if (!place.ok()) return place.status();
  UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  char slave_name[64] = {};
  if (!master || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0 ||
      ptsname_r(master.get(), slave_name, sizeof slave_name) != 0) {
    return RefuseKey("pty", path, absl::StrCat("no pseudo terminal to be had: ", ErrnoText()));
  }
  {
    // Opened and closed once: only then the master shows that nobody has it open.
    UniqueFd slave(open(slave_name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!slave) return RefuseKey("pty", path, absl::StrCat(slave_name, ": ", ErrnoText()));
  }
  UniqueFd opens(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (opens && inotify_add_watch(opens.get(), slave_name, IN_OPEN) < 0) opens = UniqueFd();
  if (absl::Status linked = MakeLink(path, *place, slave_name); !linked.ok()) return linked;

  OpenedDevice opened;
  opened.options["kind"] = "pty";
  opened.options["link"] = place->name;
  opened.options["target"] = slave_name;
  opened.fds.push_back(std::move(master));
  opened.fds.push_back(std::move(place->directory));
  if (opens) opened.fds.push_back(std::move(opens));
  return opened;
}

void RemovePtyLink(const OpenedDevice& opened) {
  absl::StatusOr<std::string> link = Option(opened, "link");
  absl::StatusOr<std::string> target = Option(opened, "target");
  if (!link.ok() || !target.ok()) return;
  const int directory = opened.fds[kDirectoryFd].get();
  // The link is ours as long as it names our terminal.
  char now[64];
  const ssize_t length = readlinkat(directory, link->c_str(), now, sizeof now);
  if (length > 0 && std::string(now, static_cast<size_t>(length)) == *target) {
    unlinkat(directory, link->c_str(), 0);
  }
}

}  // namespace vmsg::backend
