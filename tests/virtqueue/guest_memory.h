// SPDX-License-Identifier: Apache-2.0
// A guest's memory for tests: real pages in a Window, without Xen.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>
#include <vector>

#include "grants/grant_mapper.h"
#include "grants/window.h"

namespace vmsg::testing {

// "Maps" fresh zeroed pages; unmapping makes them inaccessible, so that a late access faults.
class PageMapper final : public grants::GrantMapper {
 public:
  ~PageMapper() override {
    for (auto [address, size] : dead_) munmap(address, size);
  }
  grants::GrantMapping MapPages(size_t pages) {
    void* const address = mmap(nullptr, pages * grants::kPageSize, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) std::abort();
    return grants::GrantMapping(
        this, std::span(static_cast<std::byte*>(address), pages * grants::kPageSize));
  }
  absl::StatusOr<grants::GrantMapping> Map(grants::DomainId,
                                           absl::Span<const grants::GrantRef> refs,
                                           grants::Access) override {
    return MapPages(refs.size());
  }

  absl::Status Copy(grants::DomainId, grants::GrantRef,
                    std::span<std::byte, grants::kPageSize>) override {
    return absl::UnimplementedError("no test of queues copies pages");
  }

 private:
  void Unmap(std::span<std::byte> bytes) override {
    mprotect(bytes.data(), bytes.size(), PROT_NONE);
    dead_.emplace_back(bytes.data(), bytes.size());
  }
  std::vector<std::pair<void*, size_t>> dead_;
};

// A window of `segments` segments of `pages` pages each, adjacent in window addresses and apart in
// this process.
class GuestMemory {
 public:
  explicit GuestMemory(size_t pages, size_t segments = 1) {
    for (size_t i = 0; i < segments; ++i) {
      grants::GrantMapping mapping = mapper_.MapPages(pages);
      bases_.push_back(mapping.bytes().data());
      if (!window_.Append(std::move(mapping), pages * segments).ok()) std::abort();
    }
    segment_bytes_ = pages * grants::kPageSize;
  }
  ~GuestMemory() { window_.TakeAll(); }

  grants::Window& window() { return window_; }
  uint64_t size() const { return bases_.size() * segment_bytes_; }
  std::byte* At(uint64_t address) {
    return bases_[address / segment_bytes_] + address % segment_bytes_;
  }

  template <class T>
  T Load(uint64_t address, std::memory_order order = std::memory_order_relaxed) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(At(address))).load(order);
  }
  template <class T>
  void Store(uint64_t address, T value, std::memory_order order = std::memory_order_relaxed) {
    std::atomic_ref<T>(*reinterpret_cast<T*>(At(address))).store(value, order);
  }

 private:
  PageMapper mapper_;
  grants::Window window_;
  std::vector<std::byte*> bases_;
  uint64_t segment_bytes_ = 0;
};

}  // namespace vmsg::testing
