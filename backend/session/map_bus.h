// SPDX-License-Identifier: Apache-2.0
// From what a frontend published to mapped memory: the ring and the window.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "backend/bus/bus_endpoint.h"
#include "backend/session/page_budget.h"
#include "grants/grant_mapper.h"

namespace vmsg::backend {

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
// InvalidArgument names what is wrong, its value and the limit; a page that is mapped already, for
// whichever bus of the guest, is wrong.
absl::StatusOr<MappedRing> MapRing(grants::GrantMapper& mapper, grants::DomainId frontend,
                                   grants::GrantRef ring_ref, uint32_t max_order,
                                   const std::shared_ptr<PageBudget>& budget);

// The window pages that a directory lists, within the guest's budget and none of them mapped
// already. Blocks as Map does. InvalidArgument: the directory or a page of it is refused;
// OutOfRange: over the budget; else: mapping failed.
absl::StatusOr<grants::GrantMapping> MapWindowPages(grants::GrantMapper& mapper,
                                                    grants::DomainId frontend,
                                                    grants::GrantRef directory, uint32_t pages,
                                                    const std::shared_ptr<PageBudget>& budget);

}  // namespace vmsg::backend
