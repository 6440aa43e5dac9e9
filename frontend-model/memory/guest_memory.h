// SPDX-License-Identifier: Apache-2.0
// The driver's side of the window: pages granted to the backend, handed out in blocks by window
// address (docs/binding.md, section 4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "grants/grant_sharer.h"

namespace vmsg::frontend {

class GuestMemory;

// A piece of the window that belongs to its holder until destruction. Move-only; the memory must
// outlive it. One block never spans two segments, so bytes() is contiguous here and in the window.
class GuestBlock {
 public:
  GuestBlock() = default;
  GuestBlock(GuestBlock&& other) noexcept { *this = std::move(other); }
  GuestBlock& operator=(GuestBlock&& other) noexcept;
  ~GuestBlock() { Reset(); }

  uint64_t address() const { return address_; }  // window offset
  std::span<std::byte> bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  explicit operator bool() const { return memory_ != nullptr; }
  void Reset();

 private:
  friend class GuestMemory;
  GuestBlock(GuestMemory* memory, uint64_t address, std::span<std::byte> bytes)
      : memory_(memory), address_(address), bytes_(bytes) {}
  GuestMemory* memory_ = nullptr;
  uint64_t address_ = 0;
  std::span<std::byte> bytes_;
};

// Not thread-safe.
class GuestMemory {
 public:
  // Every block starts and ends on a multiple of this.
  static constexpr uint64_t kGranule = 16;

  GuestMemory() = default;
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // Pages and the directory that lists them, granted to `backend`. The window may come from them
  // only after the backend has taken them up (AddSegment).
  struct Grant {
    grants::SharedPages window;
    grants::SharedPages directory;
    grants::GrantRef directory_ref() const { return directory.refs().front(); }
    uint32_t pages() const { return static_cast<uint32_t>(window.refs().size()); }
  };
  static absl::StatusOr<Grant> Share(grants::GrantSharer& sharer, grants::DomainId backend,
                                     uint32_t pages);

  // The grant's pages are now the window's pages from first_page on. Its directory is given up: the
  // backend does not read it again. InvalidArgument: it overlaps a segment.
  absl::Status AddSegment(uint32_t first_page, Grant grant);
  // As AddSegment, over memory of the caller's: for tests.
  absl::Status AddMemory(uint32_t first_page, std::span<std::byte> bytes);

  // Takes a segment out of the allocator before the backend is asked to unmap it. NotFound: no such
  // segment. FailedPrecondition: blocks of it are still held.
  absl::Status RetireSegment(uint32_t first_page, uint32_t pages);
  // The backend has unmapped it: ends its grants.
  void DropSegment(uint32_t first_page);
  // The backend has not: makes it usable again.
  void ReviveSegment(uint32_t first_page);

  // What a backend that comes after the last one maps: the directory for the segment at first_page,
  // over the grants that it has. NotFound: there is none, or it is over memory of the caller's.
  absl::StatusOr<grants::SharedPages> ListAgain(grants::GrantSharer& sharer,
                                                grants::DomainId backend,
                                                uint32_t first_page) const;
  struct SegmentRange {
    uint32_t first_page;
    uint32_t pages;
  };
  std::vector<SegmentRange> segments() const;  // ascending

  // A device was not seen to let go of its buffers: from here on, blocks that are given back are
  // handed out to nobody until the backend has unmapped the window (Thaw). A block is a piece of
  // the window, so this keeps what the device still writes apart from what comes after.
  void Freeze() { frozen_ = true; }
  bool frozen() const { return frozen_; }
  // Nothing is mapped any more: what was given back meanwhile is free, and segments that were being
  // withdrawn are gone.
  void Thaw();

  // `alignment`: a power of two. The block's address is at least `lowest`: virtqueue areas ask for
  // 1, because address 0 means "not set". ResourceExhausted: no free range is large enough.
  absl::StatusOr<GuestBlock> Allocate(uint64_t size, uint64_t alignment = kGranule,
                                      uint64_t lowest = 0);

  // Our pointer to [address, address + size), or nullptr when that is not within one segment.
  std::byte* At(uint64_t address, uint64_t size) const;

  uint32_t pages() const;
  uint64_t free_bytes() const;

 private:
  friend class GuestBlock;
  struct Segment {
    grants::SharedPages owned;  // empty over AddMemory
    std::span<std::byte> bytes;
    bool retired = false;
  };
  absl::Status Add(uint32_t first_page, grants::SharedPages owned, std::span<std::byte> bytes);
  void Release(uint64_t address, uint64_t size);
  void Free(uint64_t address, uint64_t size);

  std::map<uint64_t, Segment> segments_;  // by first byte
  std::map<uint64_t, uint64_t> free_;     // first byte -> size, no two adjacent in one segment
  bool frozen_ = false;
  std::vector<std::pair<uint64_t, uint64_t>> limbo_;  // given back while frozen: first byte, size
};

}  // namespace vmsg::frontend
