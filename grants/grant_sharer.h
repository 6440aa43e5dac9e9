// SPDX-License-Identifier: Apache-2.0
// Granting this domain's pages to another. Follows xengnttab.h (xengntshr_share_pages).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "grants/xen_types.h"

namespace vmsg::grants {

class GrantSharer;

// Fresh zeroed pages of this domain, contiguous in this process, granted to one other domain;
// refs()[i] is the grant of page i. The grants end on destruction: a peer that still maps them
// keeps what it mapped. Move-only; the sharer must outlive it.
class SharedPages {
 public:
  SharedPages() = default;
  SharedPages(GrantSharer* sharer, std::span<std::byte> bytes, std::vector<GrantRef> refs)
      : sharer_(sharer), bytes_(bytes), refs_(std::move(refs)) {}
  SharedPages(SharedPages&& other) noexcept { *this = std::move(other); }
  SharedPages& operator=(SharedPages&& other) noexcept {
    if (this != &other) {
      Reset();
      sharer_ = std::exchange(other.sharer_, nullptr);
      bytes_ = std::exchange(other.bytes_, {});
      refs_ = std::exchange(other.refs_, {});
    }
    return *this;
  }
  ~SharedPages() { Reset(); }

  std::span<std::byte> bytes() const { return bytes_; }
  const std::vector<GrantRef>& refs() const { return refs_; }
  void Reset();

 private:
  GrantSharer* sharer_ = nullptr;
  std::span<std::byte> bytes_;
  std::vector<GrantRef> refs_;
};

// Thread-safe.
class GrantSharer {
 public:
  virtual ~GrantSharer() = default;

  // InvalidArgument: no pages or a domid that is none. ResourceExhausted: over a limit, named in
  // the message (gntalloc's module parameter `limit`, or the domain's grant frames).
  virtual absl::StatusOr<SharedPages> Share(DomainId with, size_t pages, Access access) = 0;

 private:
  friend class SharedPages;
  virtual void Unshare(std::span<std::byte> bytes) = 0;
};

inline void SharedPages::Reset() {
  if (sharer_ != nullptr) std::exchange(sharer_, nullptr)->Unshare(std::exchange(bytes_, {}));
}

}  // namespace vmsg::grants
