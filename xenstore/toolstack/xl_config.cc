// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/xl_config.h"

extern "C" {
#include <libxlutil.h>
}
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "text/foreign_text.h"

namespace vmsg::xenstore {
namespace {

constexpr char kEntriesKey[] = "virtio_msg";
constexpr char kBackendKey[] = "virtio_msg_backend";
constexpr char kNameKey[] = "name";
// xl's parser takes the whole file at once. No domain config comes near.
constexpr off_t kMaxFileBytes = 1 << 20;

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
  } else if (file.st_size > kMaxFileBytes) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": ", file.st_size,
                                                     " bytes, more than the limit of ",
                                                     kMaxFileBytes, " for a domain config"));
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

absl::StatusOr<XlConfig> ParseXlConfig(const std::string& path, const std::string& content) {
  ParsedFile file;
  if (absl::Status status = file.Open(path, content); !status.ok()) return status;
  XlConfig config;
  if (absl::Status status = file.ReadString(kNameKey, config.name); !status.ok()) return status;
  config.problem = ReadEntries(file, path, config);
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
