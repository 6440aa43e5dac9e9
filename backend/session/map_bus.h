// SPDX-License-Identifier: Apache-2.0
// From what a frontend published to mapped memory: the ring and the window.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "backend/bus/bus_endpoint.h"
#include "grants/grant_mapper.h"

namespace vmsg::backend {

// Pages that a guest may have mapped in all its buses together, rings not counted. The backend's
// grant handles are finite (262,144 for all guests on a stock Xen, two a page on a PV Dom0) and are
// shared with every other PV driver there. Thread-safe.
class PageBudget {
 public:
  explicit PageBudget(uint32_t pages) : left_(pages) {}
  bool Take(uint32_t pages) {
    uint32_t left = left_.load(std::memory_order_relaxed);
    do {
      if (pages > left) return false;
    } while (!left_.compare_exchange_weak(left, left - pages, std::memory_order_relaxed));
    return true;
  }
  void Give(uint32_t pages) { left_.fetch_add(pages, std::memory_order_relaxed); }
  uint32_t left() const { return left_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> left_;
};

struct RingLimits {
  // 2^order data pages. The default, 16 pages, holds more than a thousand EVENT_AVAIL each way.
  static constexpr uint32_t kMaxOrder = 4;
};

// A ring as it is mapped: the interface page, then its data pages in one mapping.
struct MappedRing {
  grants::GrantMapping interface;
  grants::GrantMapping data;
  RingMemory memory() const;
};

// Reads ring_order and the data pages' grants once from the interface page. Blocks as Map does.
// InvalidArgument names what is wrong, its value and the limit.
absl::StatusOr<MappedRing> MapRing(grants::GrantMapper& mapper, grants::DomainId frontend,
                                   grants::GrantRef ring_ref, uint32_t max_order);

// The window pages that a directory lists, within the guest's budget. Blocks as Map does.
absl::StatusOr<grants::GrantMapping> MapWindowPages(grants::GrantMapper& mapper,
                                                    grants::DomainId frontend,
                                                    grants::GrantRef directory, uint32_t pages,
                                                    PageBudget& budget);

}  // namespace vmsg::backend
