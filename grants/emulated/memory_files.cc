// SPDX-License-Identifier: Apache-2.0
#include "grants/emulated/memory_files.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace vmsg::emu {
namespace {

constexpr size_t kPageSize = grants::kPageSize;

absl::Status MapFailed(size_t pages, size_t runs, int error) {
  return absl::ResourceExhaustedError(absl::StrCat("emulated Xen: cannot map ", pages, " pages in ",
                                                   runs, " runs: ", strerror(error),
                                                   " (memory, or the sysctl vm.max_map_count)"));
}

}  // namespace

absl::StatusOr<std::span<std::byte>> MapRuns(int file, std::span<const FrameRun> runs, size_t pages,
                                             bool writable) {
  uint64_t total = 0;
  for (const FrameRun& run : runs) total += run.pages;
  if (total != pages || pages == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("emulated Xen: runs of ", total, " pages for a request of ", pages));
  }
  const size_t size = pages * kPageSize;
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const auto map = [&](void* where, const FrameRun& run, int flags) {
    return mmap(where, size_t{run.pages} * kPageSize, protection, MAP_SHARED | MAP_POPULATE | flags,
                file, static_cast<off_t>(run.first * kPageSize));
  };
  void* base;
  if (runs.size() == 1) {
    base = map(nullptr, runs[0], 0);
    if (base == MAP_FAILED) return MapFailed(pages, 1, errno);
  } else {
    base = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return MapFailed(pages, runs.size(), errno);
    std::byte* next = static_cast<std::byte*>(base);
    for (const FrameRun& run : runs) {
      if (map(next, run, MAP_FIXED) == MAP_FAILED) {
        const int error = errno;
        munmap(base, size);
        return MapFailed(pages, runs.size(), error);
      }
      next += size_t{run.pages} * kPageSize;
    }
  }
  madvise(base, size, MADV_DONTFORK);
  return std::span(static_cast<std::byte*>(base), size);
}

void UnmapRange(std::span<std::byte> bytes) { munmap(bytes.data(), bytes.size()); }

uint64_t MemoryFiles::Known(grants::DomainId domain, bool writable) const {
  for (const Entry& entry : entries_) {
    if (entry.domain == domain && entry.writable == writable) return entry.memory;
  }
  return 0;
}

std::shared_ptr<const OwnedFd> MemoryFiles::Take(grants::DomainId domain, bool writable,
                                                 uint64_t memory, OwnedFd received) {
  auto known = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.domain == domain && entry.writable == writable;
  });
  if (!received) {
    return known != entries_.end() && known->memory == memory ? known->file : nullptr;
  }
  if (known != entries_.end()) {
    entries_.erase(known);
  } else if (entries_.size() == kKept) {
    entries_.pop_front();
  }
  entries_.push_back(
      {domain, writable, memory, std::make_shared<const OwnedFd>(std::move(received))});
  return entries_.back().file;
}

}  // namespace vmsg::emu
