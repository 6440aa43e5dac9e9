// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/xl_config.h"

extern "C" {
#include <libxlutil.h>
}
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "text/foreign_text.h"
#include "text/nearest_name.h"

namespace vmsg::xenstore {
namespace {

constexpr char kEntriesKey[] = "virtio_msg";
constexpr char kBackendKey[] = "virtio_msg_backend";
constexpr char kNameKey[] = "name";
// More than that in a key's name, and something else is meant.
constexpr size_t kMostMistakes = 2;
constexpr size_t kMostWarnings = 8;

// One file in the parser's hands, with what it has to say about it.
class ParsedFile {
 public:
  ~ParsedFile() {
    if (config_ != nullptr) xlu_cfg_destroy(config_);
    if (report_ != nullptr) fclose(report_);
    free(report_text_);
  }

  absl::Status Open(const std::string& path, const std::string& content) {
    path_ = path;
    report_ = open_memstream(&report_text_, &report_size_);
    if (report_ == nullptr) return absl::ResourceExhaustedError("no memory for a report");
    config_ = xlu_cfg_init(report_, path.c_str());
    if (config_ == nullptr) return absl::ResourceExhaustedError("no memory for a config");
    const int error = xlu_cfg_readdata(config_, content.data(), static_cast<int>(content.size()));
    if (error == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a domain config: ", Report(error)));
  }

  absl::Status ReadString(const char* key, std::optional<std::string>& value) {
    const char* text = nullptr;
    const int error = xlu_cfg_get_string(config_, key, &text, /*dont_warn=*/0);
    if (error == ESRCH) return absl::OkStatus();
    if (error != 0) return KeyError(key, error);
    value = text;
    return absl::OkStatus();
  }

  absl::Status ReadList(const char* key, std::vector<std::string>& values) {
    XLU_ConfigList* list = nullptr;
    int count = 0;
    const int error = xlu_cfg_get_list(config_, key, &list, &count, /*dont_warn=*/0);
    if (error == ESRCH) return absl::OkStatus();
    if (error != 0) return KeyError(key, error);
    if (count > kMaxConfigEntries) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": ", key, " has ", count,
                                                     " entries, more than the limit of ",
                                                     kMaxConfigEntries));
    }
    for (int i = 0; i < count; ++i) {
      const char* text = xlu_cfg_get_listitem(list, i);
      if (text == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat(path_, ": ", key, "[", i, "]: not a string"));
      }
      values.push_back(text);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status KeyError(const char* key, int error) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", key, ": ", Report(error)));
  }

  // What the parser wrote, as one line.
  std::string Report(int error) {
    fflush(report_);
    std::string text(report_text_, report_size_);
    absl::StripAsciiWhitespace(&text);
    if (text.empty()) return std::strerror(error);
    return absl::StrReplaceAll(text, {{"\n", "; "}});
  }

  std::string path_;
  char* report_text_ = nullptr;
  size_t report_size_ = 0;
  FILE* report_ = nullptr;
  XLU_Config* config_ = nullptr;
};

absl::Status TooLarge(const std::string& path, uint64_t bytes) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", bytes,
                                                 " bytes, more than the limit of ", kMaxConfigBytes,
                                                 " for a domain config"));
}

// xl's parser asserts at a NUL, and takes the square of a run of them.
absl::Status CheckText(const std::string& path, absl::string_view content) {
  if (content.size() > kMaxConfigBytes) return TooLarge(path, content.size());
  size_t line = 1;
  for (const char c : content) {
    if (c == '\n') ++line;
    if (c == '\n' || c == '\t' || c == '\r' ||
        !absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      continue;
    }
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", line, ": not a domain config: it has the control character ",
                     Quoted(absl::string_view(&c, 1))));
  }
  return absl::OkStatus();
}

// Calls `visit` with each line's number and the name at its beginning that something is assigned
// to.
void ForEachKey(absl::string_view content,
                absl::FunctionRef<void(size_t line, absl::string_view key)> visit) {
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(content, '\n')) {
    ++number;
    const size_t equals = line.find('=');
    if (equals == absl::string_view::npos) continue;
    const absl::string_view key = absl::StripAsciiWhitespace(line.substr(0, equals));
    const bool name = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    });
    if (name) visit(number, key);
  }
}

std::optional<std::string> KeyMeantBy(absl::string_view key) {
  if (key == kEntriesKey || key == kBackendKey) return std::nullopt;
  return NearestName(key, {kEntriesKey, kBackendKey}, kMostMistakes);
}

std::vector<std::string> MistypedKeys(const std::string& path, absl::string_view content) {
  std::vector<std::string> warnings;
  ForEachKey(content, [&](size_t line, absl::string_view key) {
    const std::optional<std::string> meant = KeyMeantBy(key);
    if (!meant.has_value() || warnings.size() >= kMostWarnings) return;
    warnings.push_back(absl::StrCat(path, ":", line, ": ", key,
                                    " means nothing to anybody; did you mean ", *meant, "?"));
  });
  return warnings;
}

absl::Status ReadEntries(ParsedFile& file, const std::string& path, XlConfig& config) {
  if (absl::Status status = file.ReadString(kBackendKey, config.backend); !status.ok()) {
    return status;
  }
  if (absl::Status status = file.ReadList(kEntriesKey, config.texts); !status.ok()) return status;
  for (size_t i = 0; i < config.texts.size(); ++i) {
    absl::StatusOr<DeviceEntry> entry = ParseDeviceEntry(config.texts[i]);
    if (!entry.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", kEntriesKey, "[", i, "] ",
                                                     Quoted(config.texts[i]), ": ",
                                                     entry.status().message()));
    }
    config.entries.push_back(*std::move(entry));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const std::string text =
        absl::StrCat(path, ": cannot read the domain config: ", std::strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(text) : absl::NotFoundError(text);
  }
  std::string content;
  struct stat file;
  absl::Status status;
  if (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  } else if (file.st_size > static_cast<off_t>(kMaxConfigBytes)) {
    status = TooLarge(path, static_cast<uint64_t>(file.st_size));
  } else {
    // One that grows or shrinks meanwhile is read as far as it was and is there.
    content.resize(static_cast<size_t>(file.st_size));
    size_t got = 0;
    while (got < content.size()) {
      const ssize_t more = read(fd, content.data() + got, content.size() - got);
      if (more < 0 && errno == EINTR) continue;
      if (more < 0) {
        status = absl::NotFoundError(
            absl::StrCat(path, ": cannot read the domain config: ", std::strerror(errno)));
      }
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    content.resize(got);
  }
  close(fd);
  if (!status.ok()) return status;
  return content;
}

bool MaySpeakOfVirtioMsg(absl::string_view content) {
  bool found = absl::StrContains(content, kEntriesKey);
  if (!found) {
    ForEachKey(content, [&found](size_t, absl::string_view key) {
      found = found || KeyMeantBy(key).has_value();
    });
  }
  return found;
}

absl::StatusOr<XlConfig> ParseXlConfig(const std::string& path, const std::string& content) {
  if (absl::Status text = CheckText(path, content); !text.ok()) return text;
  // A comment that no line end follows takes xl's parser the square of its length.
  const bool ended = absl::EndsWith(content, "\n");
  ParsedFile file;
  if (absl::Status status = file.Open(path, ended ? content : content + "\n"); !status.ok())
    return status;
  XlConfig config;
  if (absl::Status status = file.ReadString(kNameKey, config.name); !status.ok()) return status;
  config.problem = ReadEntries(file, path, config);
  config.warnings = MistypedKeys(path, content);
  return config;
}

absl::StatusOr<XlConfig> ReadXlConfig(const std::string& path) {
  absl::StatusOr<std::string> content = ReadConfigFile(path);
  if (!content.ok()) return content.status();
  absl::StatusOr<XlConfig> config = ParseXlConfig(path, *content);
  if (config.ok() && !config->problem.ok()) return config->problem;
  return config;
}

}  // namespace vmsg::xenstore
