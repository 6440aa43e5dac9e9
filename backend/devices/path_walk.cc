// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/path_walk.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

// As the kernel's.
constexpr size_t kMaxLinks = 40;

struct Link {
  std::string name;
  uid_t owner;
};

// The next component of what is left, and what is left behind it: with a slash in front as long as
// the component must be a directory.
std::string TakeComponent(std::string* rest) {
  const size_t begin = rest->find_first_not_of('/');
  if (begin == std::string::npos) {
    rest->clear();
    return "";
  }
  const size_t end = std::min(rest->find('/', begin), rest->size());
  std::string component = rest->substr(begin, end - begin);
  rest->erase(0, end);
  return component;
}

UniqueFd OpenComponent(const UniqueFd& directory, const std::string& name, bool must_be_directory) {
  constexpr int kFlags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  if (must_be_directory) {
    // O_DIRECTORY mounts what is mounted on demand.
    UniqueFd fd(openat(directory.get(), name.c_str(), kFlags | O_DIRECTORY));
    if (fd || (errno != ENOTDIR && errno != ELOOP)) return fd;
  }
  return UniqueFd(openat(directory.get(), name.c_str(), kFlags));
}

}  // namespace

absl::StatusOr<UniqueFd> WalkPath(const std::string& path) {
  const auto refuse = [](absl::string_view component, int why) {
    return absl::InvalidArgumentError(
        component.empty() ? std::string(std::strerror(why))
                          : absl::StrCat(absl::CHexEscape(component), ": ", std::strerror(why)));
  };
  std::vector<Link> links;
  std::string rest = path;
  UniqueFd at(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat file = {};
  if (!at || fstat(at.get(), &file) != 0) return refuse("/", errno);
  while (!rest.empty()) {
    const std::string name = TakeComponent(&rest);
    if (name.empty()) break;
    UniqueFd next = OpenComponent(at, name, !rest.empty());
    if (!next || fstat(next.get(), &file) != 0) {
      const int why = errno;
      // Of the last component the path alone says everything.
      return refuse(rest.empty() && links.empty() ? "" : name, why);
    }
    if (!S_ISLNK(file.st_mode)) {
      if (!rest.empty() && !S_ISDIR(file.st_mode)) return refuse(name, ENOTDIR);
      at = std::move(next);
      continue;
    }
    char target[PATH_MAX];
    const ssize_t length = readlinkat(next.get(), "", target, sizeof target);
    if (length < 0) return refuse(name, errno);
    links.push_back({name, file.st_uid});
    if (links.size() > kMaxLinks || length + rest.size() >= PATH_MAX) return refuse(name, ELOOP);
    rest.insert(0, target, static_cast<size_t>(length));
    if (rest[0] != '/') continue;
    at = UniqueFd(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!at) return refuse(name, errno);
  }
  if (fstat(at.get(), &file) != 0) return refuse("", errno);
  for (const Link& link : links) {
    if (link.owner == 0 || link.owner == geteuid() || link.owner == file.st_uid) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("\"", absl::CHexEscape(link.name), "\" is a symbolic link of user ",
                     link.owner, " to what belongs to user ", file.st_uid,
                     "; name the file itself, or let root make the link"));
  }
  return at;
}

}  // namespace vmsg::backend
