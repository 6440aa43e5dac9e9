// SPDX-License-Identifier: Apache-2.0
// The xl domain configs of a machine, by the name of the domain that each is for. Only those that
// speak of virtio_msg are looked into.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "xenstore/toolstack/xl_config.h"

namespace vmsg::xenstore {

// Files of one directory that are looked at; what is beyond is named in a complaint.
inline constexpr size_t kMaxConfigFiles = 4096;

// What editors, packages and people leave beside a config. Begins with '.' or '#'; ends in '~',
// ".bak",
// ".old", ".orig", ".rej", ".save", ".swp" or ".tmp", ".rpmnew", ".rpmsave" or ".rpmorig"; or has
// ".dpkg-" or ".ucf-" in it.
bool IsBackupName(absl::string_view name);

// Reads the disk, and may wait for it as long as it takes. One thread at a time.
class ConfigCatalog {
 public:
  // A directory that is missing is empty; names of backups (IsBackupName) are left out.
  explicit ConfigCatalog(std::vector<std::string> directories)
      : directories_(std::move(directories)) {}

  // Looks which files there are and reads those that are new or changed (by inode, size and time).
  // Any content is fit for it. Returns what an administrator should know: files that speak of
  // virtio_msg and are no config, each version once.
  std::vector<std::string> Refresh();

  struct Found {
    std::string path;
    XlConfig config;  // with entries, or with a problem
  };
  // What Refresh saw. nullopt: no config of that name has virtio_msg. Of several that say the same
  // about a domain, the one in the first directory is taken. FailedPrecondition: they differ, or
  // one that cannot be parsed mentions the name; the text has the paths.
  absl::StatusOr<std::optional<Found>> Find(const std::string& name) const;

  // Keys in configs of that name that are nearly ours.
  std::vector<std::string> Warnings(const std::string& name) const;
  // Where a config of that name was looked for, and which there are: for whoever expected one.
  std::string Surroundings(const std::string& name) const;

 private:
  // A file under two names (a link from auto/) is one file.
  struct Identity {
    dev_t device;
    ino_t inode;
    // As in xenstore/bus_nodes.h. NOLINTNEXTLINE(modernize-use-nullptr)
    auto operator<=>(const Identity&) const = default;
  };
  struct File {
    std::string path;
    size_t directory = 0;  // its place among directories_
    int64_t modified_ns = 0;
    off_t size = 0;
    bool seen = false;
    std::optional<XlConfig> config;  // only when it has virtio_msg, or a key that is nearly that
    bool HasEntriesFor(const std::string& name) const {
      return config.has_value() && config->name == name &&
             (!config->texts.empty() || !config->problem.ok());
    }
    std::string broken;  // the text of one that speaks of virtio_msg and does not parse
  };
  void ReadDirectory(size_t directory, std::vector<std::string>& complaints);
  void ReadFile(File& file, std::vector<std::string>& complaints);

  std::vector<std::string> directories_;
  absl::btree_map<Identity, File> files_;
};

}  // namespace vmsg::xenstore
