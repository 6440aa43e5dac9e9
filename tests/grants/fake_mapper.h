// SPDX-License-Identifier: Apache-2.0
// A GrantMapper over pages of this process, for tests of what uses one. A granted page is a page of
// a memfd, so that a mapping and the guest's own view are two views of the same memory, and pages
// granted in any order map contiguously, as on Xen.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "grants/grant_mapper.h"

namespace vmsg::grants {

// Threading: Map and Unmap from one thread; the guest's pages from any.
class FakeMapper final : public GrantMapper {
 public:
  static constexpr DomainId kGuest = 7;
  static constexpr size_t kMaxPages = 8192;

  FakeMapper();
  ~FakeMapper() override;

  // Grants a fresh zeroed page as `ref`; returns the guest's view of it.
  std::span<std::byte> Grant(GrantRef ref);
  // Grants `count` fresh pages, contiguous in the guest's view, as first, first + 1, ...
  std::span<std::byte> GrantRange(GrantRef first, size_t count);
  // A mapping of `count` fresh pages, for tests of the window.
  GrantMapping MapFresh(size_t count);

  absl::StatusOr<GrantMapping> Map(DomainId domain, absl::Span<const GrantRef> refs,
                                   Access access) override;
  absl::Status Copy(DomainId domain, GrantRef ref, std::span<std::byte, kPageSize> to) override;

  // Faults and hooks.
  std::optional<size_t> fail_call;           // this call of Map or Copy (0 = the first one) fails
  std::function<void(GrantRef)> after_copy;  // runs when ref has been copied

  struct Call {
    std::vector<GrantRef> refs;
    Access access;
    bool copy = false;
  };
  const std::vector<Call>& calls() const { return calls_; }
  size_t live_mappings() const { return live_.size(); }
  size_t live_pages() const;
  // Unmaps whose start and count were not those of one live mapping.
  size_t wrong_unmaps() const { return wrong_unmaps_; }

 private:
  void Unmap(std::span<std::byte> bytes) override;

  int memory_ = -1;
  std::byte* view_ = nullptr;  // all of memory_, as the guest sees it
  size_t used_ = 0;            // pages of memory_
  std::map<GrantRef, size_t> grants_;
  GrantRef next_fresh_ = 1u << 20;
  std::vector<Call> calls_;
  std::map<std::byte*, size_t> live_;  // pages, by first byte
  size_t wrong_unmaps_ = 0;
};

// A guest's directory in `mapper`: pages granted as `directory`, listing `window`. Returns the
// guest's view of the directory pages.
std::span<std::byte> PutDirectory(FakeMapper& mapper, std::span<const GrantRef> directory,
                                  std::span<const GrantRef> window);

// Word `index` of directory page `page` in the guest's view: 0 is the next page, 1.. the entries.
uint32_t& DirectoryWord(std::span<std::byte> directory, size_t page, size_t index);

// first, first + 1, ..., `count` of them.
std::vector<GrantRef> Sequence(GrantRef first, size_t count);

}  // namespace vmsg::grants
