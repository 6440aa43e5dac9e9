// SPDX-License-Identifier: Apache-2.0
// A console's sockets, with every refusal an administrator can meet. The directory may be a user's,
// who can exchange what is in it at any time: nothing is done to a name there that would be done to
// what somebody else put in its place, but for removing it from that directory.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/console/terminal/size_filter.h"
#include "backend/devices/console/terminal/terminal_place.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {
namespace {

constexpr absl::string_view kSizeSuffix = ".size";
constexpr int kBacklog = 4;

// Where one socket is to be: its address goes by the directory's descriptor.
struct SocketName {
  std::string shown;  // the key's value
  std::string path;
  std::string name;
  sockaddr_un address = {};

  const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&address); }
};

absl::StatusOr<SocketName> NameSocket(const std::string& path, const TerminalPlace& place,
                                      absl::string_view suffix) {
  SocketName name{path, absl::StrCat(path, suffix), absl::StrCat(place.name, suffix)};
  name.address.sun_family = AF_UNIX;
  const std::string by_descriptor =
      absl::StrCat("/proc/self/fd/", place.directory.get(), "/", name.name);
  // Clients use the path.
  for (const std::string& address : {name.path, by_descriptor}) {
    if (address.size() < sizeof name.address.sun_path) continue;
    return RefuseKey("socket", path,
                     absl::StrCat("is too long: ", address, " has more than ",
                                  sizeof name.address.sun_path - 1, " bytes"));
  }
  std::memcpy(name.address.sun_path, by_descriptor.data(), by_descriptor.size());
  return name;
}

// Whether there is room: nothing is there, or a socket that nobody serves.
absl::Status CheckOldSocket(const SocketName& name, const TerminalPlace& place, int type) {
  struct stat file = {};
  if (!LookAt(place.directory, name.name, &file)) {
    if (errno == ENOENT) return absl::OkStatus();
    return RefuseKey("socket", name.shown, ErrnoText());
  }
  if (!S_ISSOCK(file.st_mode)) {
    return RefuseKey("socket", name.shown, absl::StrCat(name.path, " exists and is no socket"));
  }
  UniqueFd probe(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), name.generic(), sizeof name.address) == 0 || errno != ECONNREFUSED) {
    return RefuseKey("socket", name.shown,
                     absl::StrCat(name.path, " is in use by a running program"));
  }
  return absl::OkStatus();
}

// A bound socket that only this user can reach, and how to tell its name from another's later.
absl::StatusOr<UniqueFd> BindSocket(const SocketName& name, const TerminalPlace& place, int type,
                                    std::string* identity) {
  UniqueFd fd(socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  // The name gets the mode of the socket: to change the name's would change what is there by then.
  if (!fd || fchmod(fd.get(), 0600) != 0) return RefuseKey("socket", name.shown, ErrnoText());
  if (type == SOCK_DGRAM) DropSizes(fd.get());
  if (bind(fd.get(), name.generic(), sizeof name.address) != 0) {
    if (errno != EADDRINUSE) {
      return RefuseKey("socket", name.shown, absl::StrCat("cannot be bound: ", ErrnoText()));
    }
    if (absl::Status old = CheckOldSocket(name, place, type); !old.ok()) return old;
    if (unlinkat(place.directory.get(), name.name.c_str(), 0) != 0 ||
        bind(fd.get(), name.generic(), sizeof name.address) != 0) {
      return RefuseKey("socket", name.shown,
                       absl::StrCat("an old socket there cannot be replaced: ", ErrnoText()));
    }
  }
  struct stat made = {};
  if (!LookAt(place.directory, name.name, &made) || !S_ISSOCK(made.st_mode)) {
    return RefuseKey("socket", name.shown,
                     absl::StrCat(name.path, " was removed while it was made"));
  }
  *identity = FileIdentity(made);
  if (type == SOCK_STREAM && listen(fd.get(), kBacklog) != 0) {
    const std::string why = ErrnoText();
    unlinkat(place.directory.get(), name.name.c_str(), 0);
    return RefuseKey("socket", name.shown, why);
  }
  return fd;
}

void RemoveIfOurs(const UniqueFd& directory, const std::string& name, const std::string& identity) {
  struct stat now = {};
  if (LookAt(directory, name, &now) && FileIdentity(now) == identity) {
    unlinkat(directory.get(), name.c_str(), 0);
  }
}

}  // namespace

absl::StatusOr<OpenedDevice> MakeSockets(const std::string& path) {
  absl::StatusOr<TerminalPlace> place = FindTerminalPlace("socket", path);
  if (!place.ok()) return place.status();
  absl::StatusOr<SocketName> name = NameSocket(path, *place, "");
  if (!name.ok()) return name.status();
  absl::StatusOr<SocketName> size_name = NameSocket(path, *place, kSizeSuffix);
  if (!size_name.ok()) return size_name.status();
  std::string identity;
  std::string size_identity;
  absl::StatusOr<UniqueFd> stream = BindSocket(*name, *place, SOCK_STREAM, &identity);
  if (!stream.ok()) return stream.status();
  absl::StatusOr<UniqueFd> sizes = BindSocket(*size_name, *place, SOCK_DGRAM, &size_identity);
  if (!sizes.ok()) {
    RemoveIfOurs(place->directory, name->name, identity);
    return sizes.status();
  }
  OpenedDevice opened;
  opened.options["kind"] = "socket";
  opened.options["name"] = name->name;
  opened.options["identity"] = identity;
  opened.options["size-identity"] = size_identity;
  opened.fds.push_back(*std::move(stream));
  opened.fds.push_back(std::move(place->directory));
  opened.fds.push_back(*std::move(sizes));
  return opened;
}

void RemoveSockets(const OpenedDevice& opened) {
  absl::StatusOr<std::string> name = Option(opened, "name");
  absl::StatusOr<std::string> identity = Option(opened, "identity");
  absl::StatusOr<std::string> size_identity = Option(opened, "size-identity");
  if (!name.ok() || !identity.ok() || !size_identity.ok()) return;
  const UniqueFd& directory = opened.fds[kDirectoryFd];
  RemoveIfOurs(directory, *name, *identity);
  RemoveIfOurs(directory, absl::StrCat(*name, kSizeSuffix), *size_identity);
}

}  // namespace vmsg::backend
