// SPDX-License-Identifier: Apache-2.0
// A domain's grant table: which of its page frames it granted to whom, and who maps them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/xen_types.h"
#include "tools/xen-emu/domains/memory.h"

namespace vmsg::emu {

class GrantTable {
 public:
  static constexpr uint32_t kEntriesPerFrame = 512;  // grant table version 1
  // Xen's counters of an entry end at 128, and a mapping of a PV domain counts twice.
  static constexpr uint32_t kMaxMapsOfAPage = 64;

  GrantTable(DomainMemory* memory, uint32_t max_frames)
      : memory_(*memory), capacity_(max_frames * kEntriesPerFrame) {}

  // Grants fresh pages to `with`, the lowest free references first. ResourceExhausted names the
  // limit: grant frames or memory.
  absl::StatusOr<std::vector<grants::GrantRef>> Share(grants::DomainId with, uint32_t pages,
                                                      bool writable);
  // Ends grants made by Share. One that is mapped stays as it is, reference and page, until the
  // last mapping is gone (as a guest kernel defers it).
  void End(const std::vector<grants::GrantRef>& refs);

  // Whether `mapper` may map `ref`; InvalidArgument says why not.
  absl::Status Check(grants::GrantRef ref, grants::DomainId mapper, bool writable) const;
  // After Check. Each Pin needs its Unpin.
  void Pin(grants::GrantRef ref);
  void Unpin(grants::GrantRef ref);

  uint32_t frame(grants::GrantRef ref) const { return entries_[ref].frame; }

  uint32_t active() const { return active_; }      // granted, or ended and still mapped
  uint32_t deferred() const { return deferred_; }  // ended and still mapped
  uint64_t pins() const { return pins_; }          // mappings of pages, by all domains together

 private:
  struct Entry {
    uint32_t frame = 0;
    uint32_t maps = 0;
    grants::DomainId with = 0;
    bool used = false;
    bool writable = false;
    bool ended = false;
  };
  void Free(grants::GrantRef ref);

  DomainMemory& memory_;
  const uint32_t capacity_;
  std::vector<Entry> entries_;
  grants::GrantRef lowest_free_ = grants::kReservedGrantRefs;  // none below is free
  uint32_t active_ = 0;
  uint32_t deferred_ = 0;
  uint64_t pins_ = 0;
};

}  // namespace vmsg::emu
