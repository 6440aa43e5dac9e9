// SPDX-License-Identifier: Apache-2.0
// Memory of our own that a guest's transfers go through: page aligned, of a fixed size in address
// space, and of as much memory as was in use since it was last idle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace vmsg::backend {

class BounceMemory {
 public:
  static constexpr size_t kPage = 4096;

  // ResourceExhausted: the system gives no address space.
  static absl::StatusOr<BounceMemory> Reserve(size_t bytes);
  BounceMemory(BounceMemory&& other) noexcept;
  BounceMemory& operator=(BounceMemory&&) = delete;
  ~BounceMemory();

  // Adjacent bytes, from a page's start; null: there are not as many. The lowest, so that little
  // memory serves a guest that has little at work.
  std::byte* Take(size_t bytes);
  void Give(std::byte* start, size_t bytes);
  bool idle() const { return free_pages_ == pages_; }
  // Gives the memory back to the system; the addresses stay. Only while idle.
  void Trim();

 private:
  BounceMemory(std::byte* base, size_t pages);
  // The first page from `from` on that is (not) in use, or pages_.
  size_t Find(size_t from, bool used) const;
  void Mark(size_t first, size_t count, bool used);

  std::byte* base_;
  size_t pages_;
  size_t free_pages_;
  std::vector<uint64_t> used_;  // a bit for each page
};

}  // namespace vmsg::backend
