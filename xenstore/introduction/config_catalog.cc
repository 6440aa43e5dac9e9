// SPDX-License-Identifier: Apache-2.0
#include "xenstore/introduction/config_catalog.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "text/foreign_text.h"
#include "text/nearest_name.h"

namespace vmsg::xenstore {
namespace {

constexpr absl::string_view kBackupEnds[] = {"~",       ".bak",     ".old",    ".orig",
                                             ".rej",    ".save",    ".swp",    ".tmp",
                                             ".rpmnew", ".rpmsave", ".rpmorig"};
// Of the domains that have a config, as many are named to one that has none.
constexpr size_t kMostNamed = 5;

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

bool Mentions(const std::string& text, const std::string& name) {
  return absl::StrContains(text, absl::StrCat("\"", name, "\"")) ||
         absl::StrContains(text, absl::StrCat("'", name, "'"));
}

bool SayTheSame(const XlConfig& one, const XlConfig& other) {
  return one.texts == other.texts && one.backend == other.backend &&
         one.problem.ok() == other.problem.ok();
}

}  // namespace

bool IsBackupName(absl::string_view name) {
  return absl::StartsWith(name, ".") || absl::StartsWith(name, "#") ||
         absl::StrContains(name, ".dpkg-") || absl::StrContains(name, ".ucf-") ||
         std::any_of(std::begin(kBackupEnds), std::end(kBackupEnds),
                     [name](absl::string_view end) { return absl::EndsWith(name, end); });
}

std::vector<std::string> ConfigCatalog::Refresh() {
  std::vector<std::string> complaints;
  for (auto& [identity, file] : files_) file.seen = false;
  for (size_t i = 0; i < directories_.size(); ++i) ReadDirectory(i, complaints);
  absl::erase_if(files_, [](const auto& entry) { return !entry.second.seen; });
  return complaints;
}

void ConfigCatalog::ReadDirectory(size_t number, std::vector<std::string>& complaints) {
  const std::string& directory = directories_[number];
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) return;
  size_t count = 0;
  while (const dirent* entry = readdir(stream)) {
    if (IsBackupName(entry->d_name)) continue;
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
    file = {.path = path,
            .directory = number,
            .modified_ns = modified,
            .size = info.st_size,
            .seen = true};
    ReadFile(file, complaints);
  }
  closedir(stream);
}

void ConfigCatalog::ReadFile(File& file, std::vector<std::string>& complaints) {
  absl::StatusOr<std::string> content = ReadConfigFile(file.path);
  // Something else that lies there: a file of scripts, a key that root alone may read.
  if (!content.ok() || !MaySpeakOfVirtioMsg(*content)) return;
  absl::StatusOr<XlConfig> config = ParseXlConfig(file.path, *content);
  if (!config.ok()) {
    complaints.push_back(std::string(config.status().message()));
    file.broken = *std::move(content);
  } else if (!config->texts.empty() || !config->problem.ok() || !config->warnings.empty()) {
    file.config = *std::move(config);
  }
}

absl::StatusOr<std::optional<ConfigCatalog::Found>> ConfigCatalog::Find(
    const std::string& name) const {
  std::vector<const File*> found;
  std::vector<std::string> broken;
  for (const auto& [identity, file] : files_) {
    if (file.HasEntriesFor(name)) {
      found.push_back(&file);
    } else if (!file.broken.empty() && Mentions(file.broken, name)) {
      broken.push_back(file.path);
    }
  }
  std::sort(found.begin(), found.end(), [](const File* one, const File* other) {
    return std::tie(one->directory, one->path) < std::tie(other->directory, other->path);
  });
  for (const File* file : found) {
    if (SayTheSame(*file->config, *found[0]->config)) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        found[0]->path, " and ", file->path, " both have virtio_msg entries for a domain ", name,
        ", and not the same: take them out of all but one"));
  }
  if (!found.empty()) return Found{found[0]->path, *found[0]->config};
  if (!broken.empty()) {
    std::sort(broken.begin(), broken.end());
    return absl::FailedPreconditionError(
        absl::StrCat(broken[0], ": speaks of ", name, " and of virtio_msg, and does not parse"));
  }
  return std::optional<Found>();
}

std::vector<std::string> ConfigCatalog::Warnings(const std::string& name) const {
  absl::btree_set<std::string> warnings;
  for (const auto& [identity, file] : files_) {
    if (!file.config.has_value() || file.config->name != name) continue;
    warnings.insert(file.config->warnings.begin(), file.config->warnings.end());
  }
  return {warnings.begin(), warnings.end()};
}

std::string ConfigCatalog::Surroundings(const std::string& name) const {
  absl::btree_set<std::string> names;
  for (const auto& [identity, file] : files_) {
    // Not those that have only a key which is nearly ours.
    if (file.config.has_value() && file.config->name.has_value() &&
        file.HasEntriesFor(*file.config->name)) {
      names.insert(*file.config->name);
    }
  }
  std::string text = absl::StrCat("no config in ", absl::StrJoin(directories_, " or "),
                                  " has virtio_msg and name = ", Quoted(name));
  if (names.empty())
    return absl::StrCat(text, "; none of the ", files_.size(), " files has virtio_msg");
  std::vector<std::string> all(names.begin(), names.end());
  const std::string nearest = DidYouMean(name, all);
  const size_t more = all.size() - std::min(all.size(), kMostNamed);
  all.resize(all.size() - more);
  return absl::StrCat(text, "; there are such for ", absl::StrJoin(all, ", "),
                      more > 0 ? absl::StrCat(" and ", more, " more") : "", nearest);
}

}  // namespace vmsg::xenstore
