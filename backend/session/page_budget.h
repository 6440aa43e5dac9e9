// SPDX-License-Identifier: Apache-2.0
// Which pages of one guest are mapped here, and how many more may be.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grants/xen_types.h"

namespace vmsg::backend {

// What a guest has mapped in all its buses together. The backend's grant handles are finite
// (262,144 for all guests on a stock Xen, two a page on a PV Dom0) and are shared with every other
// PV driver there: so window pages are counted, rings not, and a grant is mapped once at a time.
// Else a guest takes as many handles as it may have pages with a few pages of its own. Thread-safe.
class PageBudget {
 public:
  explicit PageBudget(uint32_t pages)
      : low_refs_(kLowRefsPerPage * uint64_t{pages}), left_(pages) {}
  uint32_t left() const;

 private:
  friend class PageClaim;
  // Guests number their grants from 0 on, so a bit for each is the least time and memory; what a
  // guest claims beyond that many for each of its pages costs a hash table's entry.
  static constexpr uint64_t kLowRefsPerPage = 8;

  // With mutex_ held. False: it is claimed.
  bool Insert(grants::GrantRef ref);
  void Erase(grants::GrantRef ref);

  const uint64_t low_refs_;
  mutable std::mutex mutex_;  // of all that follows
  uint32_t left_;
  // Of all claims: bounded by the budget and by the rings of the buses that a guest may have.
  std::vector<uint64_t> low_;  // a bit for each; grows to the highest seen
  absl::flat_hash_set<grants::GrantRef> high_;
};

// Pages taken out of a budget, and the grants that they turned out to be; given back at its end.
// What is mapped keeps it until it is unmapped (GrantMapping::KeepUntilUnmapped).
class PageClaim {
 public:
  // For `pages` window pages, before their directory is read; 0 for pages that are not counted.
  // OutOfRange: the guest may not map so many more.
  static absl::StatusOr<std::shared_ptr<PageClaim>> Take(std::shared_ptr<PageBudget> budget,
                                                         uint32_t pages);
  ~PageClaim();
  PageClaim(const PageClaim&) = delete;
  PageClaim& operator=(const PageClaim&) = delete;

  // Claims these grants, each of them listed once; called once. InvalidArgument, and nothing
  // claimed: one belongs to a living claim. The text names its position and value.
  absl::Status Add(absl::Span<const grants::GrantRef> refs);

 private:
  PageClaim(std::shared_ptr<PageBudget> budget, uint32_t pages)
      : budget_(std::move(budget)), pages_(pages) {}

  const std::shared_ptr<PageBudget> budget_;
  const uint32_t pages_;
  std::vector<grants::GrantRef> refs_;
};

}  // namespace vmsg::backend
