// SPDX-License-Identifier: Apache-2.0
// The domains of the emulated machine.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grants/xen_types.h"
#include "tools/xen-emu/domains/grant_table.h"
#include "tools/xen-emu/domains/memory.h"

namespace vmsg::emu {

struct Domain {
  enum class State { kRunning, kShutDown, kDying };

  Domain(grants::DomainId id, std::string name, std::unique_ptr<DomainMemory> memory,
         uint32_t max_grant_frames)
      : id(id),
        name(std::move(name)),
        memory(std::move(memory)),
        grants(this->memory.get(), max_grant_frames) {}

  const grants::DomainId id;
  const std::string name;
  State state = State::kRunning;
  std::unique_ptr<DomainMemory> memory;
  GrantTable grants;
  uint64_t shared_pages = 0;  // granted through handles that are open: gntalloc's count
  uint64_t mapped_pages = 0;  // of other domains: maptrack entries in use
};

struct DomainLimits {
  uint32_t max_grant_frames = 64;       // as Xen's: 64 x 512 references
  uint32_t max_maptrack_frames = 1024;  // as Xen's: 1024 x 256 mappings
  uint64_t gntalloc_limit = 1 << 20;    // pages a domain shares; the real default is 1024
};

class DomainList {
 public:
  static constexpr uint32_t kDefaultMemoryMiB = 256;
  static constexpr uint32_t kMaxMemoryMiB = 1 << 20;
  static constexpr uint32_t kPagesPerMiB = (1 << 20) / grants::kPageSize;

  // Makes Dom0.
  static absl::StatusOr<std::unique_ptr<DomainList>> Create(const DomainLimits& limits);

  // A new domid is the next one up, so that it is not soon used again. `name` empty: "domain<id>".
  // AlreadyExists: a live domain has that name. InvalidArgument: the name or the memory.
  absl::StatusOr<std::shared_ptr<Domain>> Add(absl::string_view name, uint32_t memory_mib);

  // Live domains only (running or shut down).
  std::shared_ptr<Domain> Find(grants::DomainId id) const;
  // Zombies too: as long as one is mapped, its grants can be mapped again.
  std::shared_ptr<Domain> FindWithZombies(grants::DomainId id);
  // By domid or name. NotFound names it.
  absl::StatusOr<std::shared_ptr<Domain>> FindByText(absl::string_view domid_or_name) const;

  // The domain is dying: found no more, and a zombie as long as its pages are mapped.
  void Kill(const std::shared_ptr<Domain>& domain);

  // Live domains by domid, then the zombies.
  std::vector<std::shared_ptr<Domain>> All();

  const DomainLimits& limits() const { return limits_; }

 private:
  explicit DomainList(const DomainLimits& limits) : limits_(limits) {}
  absl::StatusOr<std::shared_ptr<Domain>> Make(grants::DomainId id, std::string name,
                                               uint32_t memory_mib);
  void ForgetUnmapped();

  const DomainLimits limits_;
  std::map<grants::DomainId, std::shared_ptr<Domain>> live_;
  std::vector<std::shared_ptr<Domain>> zombies_;
  grants::DomainId next_ = 1;
  uint64_t next_serial_ = 1;
};

}  // namespace vmsg::emu
