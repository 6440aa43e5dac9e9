// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/xl_config.h"

extern "C" {
#include <libxlutil.h>
}
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "xenstore/text_value.h"

namespace vmsg::xenstore {
namespace {

constexpr char kEntriesKey[] = "virtio_msg";
constexpr char kBackendKey[] = "virtio_msg_backend";
constexpr char kNameKey[] = "name";
// xl's parser reads the whole file at once. No domain config comes near.
constexpr off_t kMaxFileBytes = 1 << 20;

absl::Status CheckFile(const std::string& path) {
  struct stat file;
  if (stat(path.c_str(), &file) < 0) {
    const std::string text =
        absl::StrCat(path, ": cannot read the domain config: ", std::strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(text) : absl::NotFoundError(text);
  }
  if (!S_ISREG(file.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if (file.st_size > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", file.st_size,
                                                   " bytes, more than the limit of ", kMaxFileBytes,
                                                   " for a domain config"));
  }
  return absl::OkStatus();
}

// One file in the parser's hands, with what it has to say about it.
class ParsedFile {
 public:
  ~ParsedFile() {
    if (config_ != nullptr) xlu_cfg_destroy(config_);
    if (report_ != nullptr) fclose(report_);
    free(report_text_);
  }

  absl::Status Open(const std::string& path) {
    path_ = path;
    report_ = open_memstream(&report_text_, &report_size_);
    if (report_ == nullptr) return absl::ResourceExhaustedError("no memory for a report");
    config_ = xlu_cfg_init(report_, path.c_str());
    if (config_ == nullptr) return absl::ResourceExhaustedError("no memory for a config");
    if (const int error = xlu_cfg_readfile(config_, path.c_str()); error != 0) {
      const bool unreadable = error == EACCES || error == EPERM;
      const std::string text = absl::StrCat(path, ": not a domain config: ", Report(error));
      return unreadable ? absl::PermissionDeniedError(text) : absl::InvalidArgumentError(text);
    }
    return absl::OkStatus();
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

}  // namespace

absl::StatusOr<XlConfig> ReadXlConfig(const std::string& path) {
  if (absl::Status status = CheckFile(path); !status.ok()) return status;
  ParsedFile file;
  if (absl::Status status = file.Open(path); !status.ok()) return status;
  XlConfig config;
  if (absl::Status status = file.ReadString(kNameKey, config.name); !status.ok()) return status;
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
  return config;
}

}  // namespace vmsg::xenstore
