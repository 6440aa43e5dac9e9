// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgd/configuration/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "backend/devices/unique_fd.h"
#include "text/nearest_name.h"

namespace vmsg {
namespace {

bool Printable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte != 0x7f;
  });
}

}  // namespace

absl::StatusOr<Settings> ParseConfig(absl::string_view path, absl::string_view text) {
  Settings settings;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view content = absl::StripAsciiWhitespace(line);
    if (content.empty() || content.front() == '#') continue;
    const std::string place = absl::StrCat(path, ":", number, ": ");
    if (!Printable(content)) {
      return absl::InvalidArgumentError(absl::StrCat(place, "has characters that are not text"));
    }
    const size_t equals = content.find('=');
    if (equals == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, "'", content, "' is not of the form `option = value`"));
    }
    const std::string name(absl::StripAsciiWhitespace(content.substr(0, equals)));
    const std::string value(absl::StripAsciiWhitespace(content.substr(equals + 1)));
    const OptionRow* row = FindOption(name);
    if (row == nullptr || !row->in_file) {
      const std::vector<std::string> names = OptionNames(/*in_file=*/true);
      return absl::InvalidArgumentError(
          absl::StrCat(place, "'", name, "' is no option of this file; there are ",
                       absl::StrJoin(names, ", "), DidYouMean(name, names)));
    }
    if (std::any_of(settings.begin(), settings.end(),
                    [&](const Setting& earlier) { return earlier.name == name; })) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, "'", name, "' is given a second time; one of the two is not meant"));
    }
    // A service's directory is not the one that whoever writes the file is in.
    if (name == "trace" && !value.empty() && value.front() != '/') {
      return absl::InvalidArgumentError(
          absl::StrCat(place, name, " = ", value, ": an absolute path is needed"));
    }
    settings.push_back({name, value, absl::StrCat(place, name, " = ", value)});
  }
  return settings;
}

absl::StatusOr<Settings> ReadConfigFile(const std::string& path) {
  const backend::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  struct stat file = {};
  if (fstat(fd.get(), &file) != 0) return absl::ErrnoToStatus(errno, path);
  if (!S_ISREG(file.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  std::string text(kMaxConfigFileBytes + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, path);
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length > kMaxConfigFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is longer than ", kMaxConfigFileBytes, " bytes"));
  }
  text.resize(length);
  return ParseConfig(path, text);
}

}  // namespace vmsg
