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
#include "xenstore/toolstack/xl_config.h"

namespace vmsg::xenstore {

// Files of one directory that are looked at; what is beyond is named in a complaint.
inline constexpr size_t kMaxConfigFiles = 4096;

// Reads the disk, and may wait for it as long as it takes. One thread at a time.
class ConfigCatalog {
 public:
  // A directory that is missing is empty; names that begin with a dot are left out.
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
  // What Refresh saw. nullopt: no config of that name speaks of virtio_msg. FailedPrecondition:
  // several do, or one that cannot be parsed mentions the name; the text has the paths.
  absl::StatusOr<std::optional<Found>> Find(const std::string& name) const;

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
    int64_t modified_ns = 0;
    off_t size = 0;
    bool seen = false;
    std::optional<XlConfig> config;  // only when it speaks of virtio_msg
    std::string broken;              // the text of one that speaks of virtio_msg and does not parse
  };
  void ReadDirectory(const std::string& directory, std::vector<std::string>& complaints);
  void ReadFile(File& file, std::vector<std::string>& complaints);

  std::vector<std::string> directories_;
  absl::btree_map<Identity, File> files_;
};

}  // namespace vmsg::xenstore
