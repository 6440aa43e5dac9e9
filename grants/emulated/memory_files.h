// SPDX-License-Identifier: Apache-2.0
// The memory of the emulated domains as files, and pages of them as one contiguous range here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/protocol.h"

namespace vmsg::emu {

// Maps the runs, in order, of a memory file into one fresh contiguous range of `pages` pages,
// populated, and not inherited by fork (as gntdev's VM_DONTCOPY). A file that is open read-only
// gives a mapping that cannot be made writable. InvalidArgument: the runs are not `pages` pages.
// ResourceExhausted: the kernel refused the mapping.
absl::StatusOr<std::span<std::byte>> MapRuns(int file, std::span<const FrameRun> runs, size_t pages,
                                             bool writable);
void UnmapRange(std::span<std::byte> bytes);

// The memory files this handle was sent, so that each is sent once. Not thread-safe. Bounded: the
// file used longest ago is dropped, and sent again when it is needed.
class MemoryFiles {
 public:
  static constexpr size_t kKept = 16;

  // The serial of the memory known for (domain, writable), 0 when there is none.
  uint64_t Known(grants::DomainId domain, bool writable) const;
  // The file to map: the one just received when there is one, else the known one, which must be of
  // `memory`; null when there is neither. The caller's share keeps it open when it is dropped here.
  std::shared_ptr<const OwnedFd> Take(grants::DomainId domain, bool writable, uint64_t memory,
                                      OwnedFd received);

 private:
  struct Entry {
    grants::DomainId domain;
    bool writable;
    uint64_t memory;
    std::shared_ptr<const OwnedFd> file;
  };
  std::deque<Entry> entries_;  // newest last
};

}  // namespace vmsg::emu
