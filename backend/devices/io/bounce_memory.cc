// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/io/bounce_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

constexpr size_t kBits = 64;

size_t PagesOf(size_t bytes) {
  return std::max<size_t>(1, (bytes + BounceMemory::kPage - 1) / BounceMemory::kPage);
}

}  // namespace

absl::StatusOr<BounceMemory> BounceMemory::Reserve(size_t bytes) {
  const size_t pages = PagesOf(bytes);
  void* const base = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        pages * kPage, " bytes that a guest's transfers go through: ", std::strerror(errno)));
  }
  return BounceMemory(static_cast<std::byte*>(base), pages);
}

BounceMemory::BounceMemory(std::byte* base, size_t pages)
    : base_(base), pages_(pages), free_pages_(pages), used_((pages + kBits - 1) / kBits) {}

BounceMemory::BounceMemory(BounceMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      pages_(other.pages_),
      free_pages_(other.free_pages_),
      used_(std::move(other.used_)) {}

BounceMemory::~BounceMemory() {
  if (base_ != nullptr) munmap(base_, pages_ * kPage);
}

std::byte* BounceMemory::Take(size_t bytes) {
  const size_t count = PagesOf(bytes);
  if (count > free_pages_) return nullptr;
  for (size_t first = Find(0, false); first + count <= pages_;) {
    const size_t end = Find(first, true);
    if (end - first >= count) {
      Mark(first, count, true);
      free_pages_ -= count;
      return base_ + first * kPage;
    }
    first = Find(end, false);
  }
  return nullptr;
}

void BounceMemory::Give(std::byte* start, size_t bytes) {
  const size_t count = PagesOf(bytes);
  Mark(static_cast<size_t>(start - base_) / kPage, count, false);
  free_pages_ += count;
}

void BounceMemory::Trim() {
  assert(idle());
  (void)madvise(base_, pages_ * kPage, MADV_DONTNEED);
}

size_t BounceMemory::Find(size_t from, bool used) const {
  while (from < pages_) {
    const uint64_t word = (used ? used_[from / kBits] : ~used_[from / kBits]) >> (from % kBits);
    if (word != 0) return std::min(pages_, from + static_cast<size_t>(std::countr_zero(word)));
    from = (from / kBits + 1) * kBits;
  }
  return pages_;
}

void BounceMemory::Mark(size_t first, size_t count, bool used) {
  while (count > 0) {
    const size_t bit = first % kBits;
    const size_t here = std::min(count, kBits - bit);
    const uint64_t mask = (here == kBits ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << bit;
    assert(((used_[first / kBits] & mask) == 0) == used);
    if (used) {
      used_[first / kBits] |= mask;
    } else {
      used_[first / kBits] &= ~mask;
    }
    first += here;
    count -= here;
  }
}

}  // namespace vmsg::backend
