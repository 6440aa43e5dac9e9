// SPDX-License-Identifier: Apache-2.0
#include "xenstore/introduction/config_catalog.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace vmsg::xenstore {
namespace {

constexpr char kKey[] = "virtio_msg";

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

bool Mentions(const std::string& text, const std::string& name) {
  return absl::StrContains(text, absl::StrCat("\"", name, "\"")) ||
         absl::StrContains(text, absl::StrCat("'", name, "'"));
}

}  // namespace

std::vector<std::string> ConfigCatalog::Refresh() {
  std::vector<std::string> complaints;
  for (auto& [identity, file] : files_) file.seen = false;
  for (const std::string& directory : directories_) ReadDirectory(directory, complaints);
  absl::erase_if(files_, [](const auto& entry) { return !entry.second.seen; });
  return complaints;
}

void ConfigCatalog::ReadDirectory(const std::string& directory,
                                  std::vector<std::string>& complaints) {
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) return;
  size_t count = 0;
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] == '.') continue;
    if (++count > kMaxConfigFiles) {
      complaints.push_back(absl::StrCat(directory, ": more than ", kMaxConfigFiles,
                                        " files; the others are not looked at"));
      break;
    }
    const std::string path = absl::StrCat(directory, "/", entry->d_name);
    struct stat info;
    if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    auto [known, fresh] = files_.try_emplace({info.st_dev, info.st_ino});
    File& file = known->second;
    if (std::exchange(file.seen, true)) continue;
    const int64_t modified = Nanoseconds(info.st_mtim);
    if (!fresh && file.modified_ns == modified && file.size == info.st_size && file.path == path) {
      continue;
    }
    file = {.path = path, .modified_ns = modified, .size = info.st_size, .seen = true};
    ReadFile(file, complaints);
  }
  closedir(stream);
}

void ConfigCatalog::ReadFile(File& file, std::vector<std::string>& complaints) {
  absl::StatusOr<std::string> content = ReadConfigFile(file.path);
  // Something else that lies there: a file of scripts, a key that root alone may read.
  if (!content.ok() || !absl::StrContains(*content, kKey)) return;
  absl::StatusOr<XlConfig> config = ParseXlConfig(file.path, *content);
  if (!config.ok()) {
    complaints.push_back(std::string(config.status().message()));
    file.broken = *std::move(content);
  } else if (!config->texts.empty() || !config->problem.ok()) {
    file.config = *std::move(config);
  }
}

absl::StatusOr<std::optional<ConfigCatalog::Found>> ConfigCatalog::Find(
    const std::string& name) const {
  std::vector<std::string> paths, broken;
  const File* found = nullptr;
  for (const auto& [identity, file] : files_) {
    if (file.config.has_value() && file.config->name == name) {
      paths.push_back(file.path);
      found = &file;
    } else if (!file.broken.empty() && Mentions(file.broken, name)) {
      broken.push_back(file.path);
    }
  }
  std::sort(paths.begin(), paths.end());
  if (paths.size() > 1) {
    return absl::FailedPreconditionError(absl::StrCat(absl::StrJoin(paths, " and "),
                                                      " both have virtio_msg entries for a domain ",
                                                      name, ": take them out of all but one"));
  }
  if (found != nullptr) return Found{found->path, *found->config};
  if (!broken.empty()) {
    std::sort(broken.begin(), broken.end());
    return absl::FailedPreconditionError(
        absl::StrCat(broken[0], ": speaks of ", name, " and of virtio_msg, and does not parse"));
  }
  return std::optional<Found>();
}

}  // namespace vmsg::xenstore
