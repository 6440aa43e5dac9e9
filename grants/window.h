// SPDX-License-Identifier: Apache-2.0
// The window: a guest's shared memory as one address space that starts at 0. This is the only place
// where an address that a guest chose becomes a pointer.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/base/optimization.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/grant_mapper.h"

namespace vmsg::grants {

static_assert(std::endian::native == std::endian::little,
              "guest words are loaded and stored without byte swapping");

// A checked, contiguous piece of guest memory that the guest may change at any moment. Offsets are
// computed by us (never taken from the guest unchecked). Each Load is one access of that width:
// read once, keep the value.
class GuestArea {
 public:
  GuestArea() = default;
  explicit GuestArea(std::span<std::byte> bytes) : bytes_(bytes) {}

  size_t size() const { return bytes_.size(); }
  explicit operator bool() const { return bytes_.data() != nullptr; }

  // T: an unsigned integer, naturally aligned in the window. Little-endian on the wire; this code
  // runs on little-endian machines only (asserted at build time).
  template <class T>
  T Load(size_t offset, std::memory_order order = std::memory_order_relaxed) const {
    return std::atomic_ref<T>(At<T>(offset)).load(order);
  }
  template <class T>
  void Store(size_t offset, T value, std::memory_order order = std::memory_order_relaxed) const {
    std::atomic_ref<T>(At<T>(offset)).store(value, order);
  }

 private:
  template <class T>
  T& At(size_t offset) const {
    static_assert(std::is_unsigned_v<T>);
    assert(offset % sizeof(T) == 0 && offset <= size() && sizeof(T) <= size() - offset);
    return *reinterpret_cast<T*>(bytes_.data() + offset);
  }
  std::span<std::byte> bytes_;
};

// I/O pieces of a buffer, in order. Usually one: pages are contiguous unless a buffer crosses an
// extension.
using IoVector = absl::InlinedVector<iovec, 8>;

// Most segments a window may have at once. A segment costs the process a mapping of its own
// (vm.max_map_count is 65,530 for all guests together), so a guest that extends its window page by
// page is stopped long before it takes the mappings of others.
inline constexpr size_t kMaxWindowSegments = 256;

// Single-threaded: belongs to the session's thread. Not movable: chains and queues point at it.
// The window is made of segments, each one grant mapping: the initial directory and the extensions.
// A segment is withdrawn whole or not at all, because unmapping a part of a mapping is not
// possible.
class Window {
 public:
  Window() = default;
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  // Whether a segment of so many pages may be added. ResourceExhausted: mapped_pages() would pass
  // max_pages, there are kMaxWindowSegments already, or page numbers would pass 2^32. Ask before
  // mapping: the unmapping of what is refused takes this thread's time.
  absl::Status CheckAppend(uint64_t pages, uint32_t max_pages) const;

  // Adds pages after the highest page that was ever part of the window; returns the first page's
  // number. InvalidArgument: an empty mapping; ResourceExhausted: as CheckAppend. On refusal the
  // mapping is unmapped (it was moved in).
  absl::StatusOr<uint32_t> Append(GrantMapping mapping, uint32_t max_pages);

  // One past the highest byte that was ever part of the window.
  uint64_t size_bytes() const { return end_; }

  // Pages this window holds mapped, those of segments that wait for their last pin included.
  uint32_t mapped_pages() const;

  // A piece of exactly `size` bytes at `address`, aligned to `alignment` (a power of two, at most a
  // page), inside one segment: for queue areas. Pins the segment until Unpin with the same address
  // and size. InvalidArgument names address, size and limit; size 0 is refused.
  absl::StatusOr<GuestArea> PinArea(uint64_t address, uint64_t size, uint64_t alignment);

// GCC 12 believes that an InlinedVector's heap pointer is read while its elements are inline.
#ifndef __clang__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
  // Appends the pieces of [address, address + size) to `out` and pins every segment they touch
  // (Unpin(address, size) undoes it). size 0 is refused. On refusal nothing is appended and nothing
  // pinned. Allocates only on refusal or past 8 pieces.
  absl::Status PinSpans(uint64_t address, uint64_t size, IoVector* out) {
    // The difference wraps for an address below the segment, size - 1 wraps for size 0: both are
    // then too large for what is left of the segment.
    if (ABSL_PREDICT_TRUE(hot_ != nullptr)) {
      const uint64_t offset = address - hot_->first_byte;
      if (ABSL_PREDICT_TRUE(offset < hot_->open_bytes && size - 1 < hot_->open_bytes - offset)) {
        ++hot_->pins;
        out->push_back(iovec{hot_->mapping.bytes().data() + offset, size});
        return absl::OkStatus();
      }
    }
    return PinSpansSlow(address, size, out);
  }
#ifndef __clang__
#pragma GCC diagnostic pop
#endif

  void Unpin(uint64_t address, uint64_t size) {
    if (ABSL_PREDICT_TRUE(hot_ != nullptr)) {
      const uint64_t offset = address - hot_->first_byte;
      if (ABSL_PREDICT_TRUE(offset < hot_->open_bytes && size - 1 < hot_->open_bytes - offset)) {
        assert(hot_->pins > 0);
        --hot_->pins;
        return;
      }
    }
    UnpinSlow(address, size);
  }

  // Withdraws the segment that is exactly [first_page, first_page + pages). From now on addresses
  // in it are refused. Returns the mapping if nothing is pinned; otherwise an empty one, and
  // TakeDrained returns it once the last pin is gone. NotFound: there is no such segment, or it is
  // withdrawn already.
  absl::StatusOr<GrantMapping> Withdraw(uint32_t first_page, uint32_t pages);

  // Closing segments whose last pin went away since the last call: their first pages and mappings.
  struct Drained {
    uint32_t first_page;
    GrantMapping mapping;
  };
  std::vector<Drained> TakeDrained();
  bool has_drained() const { return drained_ > 0; }

  // Everything, for the end of the session, also what Withdraw or TakeDrained have not handed out.
  // Nothing may be pinned. Afterwards every address is refused.
  std::vector<GrantMapping> TakeAll();

 private:
  struct Segment {
    uint64_t first_byte;  // window address of its first byte
    uint64_t open_bytes;  // the mapping's size; 0 once withdrawn: no new translation
    uint64_t pins;        // buffers in flight and queue areas that point into it
    GrantMapping mapping;

    uint64_t size() const { return mapping.bytes().size(); }
    bool closing() const { return open_bytes == 0; }
  };

  // The segment that holds `address`, closing or not; segments_.end() when none does.
  std::vector<Segment>::iterator Find(uint64_t address);
  absl::Status Refuse(uint64_t address, uint64_t size) const;
  absl::Status PinSpansSlow(uint64_t address, uint64_t size, IoVector* out);
  void UnpinSlow(uint64_t address, uint64_t size);
  GrantMapping Remove(std::vector<Segment>::iterator segment);

  std::vector<Segment> segments_;  // by first_byte, not overlapping, none empty; few
  Segment* hot_ = nullptr;         // the open segment used last; follows every change of segments_
  uint64_t end_ = 0;
  uint32_t drained_ = 0;  // closing segments without pins
};

}  // namespace vmsg::grants
