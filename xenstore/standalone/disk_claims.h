// SPDX-License-Identifier: Apache-2.0
// xl's own hook for a disk whose backend is somebody else: disk = [ "vdev=xvdb,backendtype=
// standalone,specification=virtio,target=/srv/x.img" ] makes backend/virtio_disk/<F>/<devid> (libxl
// 4.17) and waits for that backend. Such a disk becomes a blk device on bus 0 of F.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/entries/entry_id.h"
#include "xenstore/store.h"

namespace vmsg::xenstore {

// More than any guest has; what is beyond is refused.
inline constexpr size_t kMaxStandaloneDisks = 4096;

// libxl waits 10 s for state 2, and when the disk goes 10 s for 6. A disk that cannot be served
// gets its reason as hotplug-error and loses its state node, which libxl takes for a failure at
// once. All is read from nodes that the toolstack owns; the guest's directory is not looked at.
// In a control domain, for its own backend directory. One thread.
class DiskClaims {
 public:
  using Log = std::function<void(bool error, const std::string& text)>;
  // `store` outlives it. `self`: the domain of the connection. PermissionDenied: it is not a
  // control domain, and could not make a guest's bus.
  static absl::StatusOr<std::unique_ptr<DiskClaims>> Start(Store* store, uint16_t self, Log log);
  DiskClaims(const DiskClaims&) = delete;
  DiskClaims& operator=(const DiskClaims&) = delete;
  ~DiskClaims();

  // As BusDiscovery::Process.
  absl::StatusOr<bool> Process();

 private:
  struct Key {
    uint16_t frontend = 0;
    uint32_t id = 0;  // libxl's devid
    // As in xenstore/bus_nodes.h. NOLINTNEXTLINE(modernize-use-nullptr)
    auto operator<=>(const Key&) const = default;
  };
  struct Disk {
    bool ready = false;    // state 2 was written
    bool leaving = false;  // its device was asked to go
    EntryAddress entry;    // its device
  };

  DiskClaims(Store* store, uint16_t self, Log log)
      : store_(store), self_(self), log_(std::move(log)) {}

  void Mark(const WatchEvent& event);
  absl::Status Scan();
  absl::Status Look(const Key& key);
  absl::Status Claim(const Key& key);
  absl::Status Follow(const Key& key, Disk& disk);
  absl::Status Leave(const Key& key, Disk& disk);
  absl::Status Refuse(const Key& key, const absl::Status& reason);
  absl::StatusOr<std::string> ReadOrEmpty(const std::string& path);
  // Outside a transaction nothing keeps a directory from going: a write must not bring it back.
  // `refused`: its state goes.
  using Values = std::vector<std::pair<std::string, std::string>>;
  absl::Status WriteIfThere(const Key& key, const Values& values, bool refused = false);
  BusAddress bus(const Key& key) const { return {key.frontend, self_, 0}; }

  Store* const store_;
  const uint16_t self_;
  const Log log_;
  bool scan_ = true;
  absl::btree_map<Key, Disk> disks_;
  absl::btree_set<Key> look_;
};

}  // namespace vmsg::xenstore
