// SPDX-License-Identifier: Apache-2.0
#include "backend/session/map_bus.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grants/directory.h"
#include "grants/window.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::backend {

RingMemory MappedRing::memory() const {
  const size_t half = data.bytes().size() / 2;
  return {.interface = reinterpret_cast<wire::RingInterface*>(interface.bytes().data()),
          .in = data.bytes().first(half),
          .out = data.bytes().last(half)};
}

namespace {

// Pages that are not counted, mapped unless they are already.
absl::StatusOr<grants::GrantMapping> MapOnce(grants::GrantMapper& mapper, grants::DomainId frontend,
                                             absl::Span<const grants::GrantRef> refs,
                                             const std::shared_ptr<PageBudget>& budget) {
  absl::StatusOr<std::shared_ptr<PageClaim>> claim = PageClaim::Take(budget, 0);
  if (!claim.ok()) return claim.status();
  if (absl::Status added = (*claim)->Add(refs); !added.ok()) return added;
  absl::StatusOr<grants::GrantMapping> mapping =
      mapper.Map(frontend, refs, grants::Access::kReadWrite);
  if (mapping.ok()) mapping->KeepUntilUnmapped(*std::move(claim));
  return mapping;
}

}  // namespace

absl::StatusOr<MappedRing> MapRing(grants::GrantMapper& mapper, grants::DomainId frontend,
                                   grants::GrantRef ring_ref, uint32_t max_order,
                                   const std::shared_ptr<PageBudget>& budget) {
  MappedRing ring;
  absl::StatusOr<grants::GrantMapping> page = MapOnce(mapper, frontend, {ring_ref}, budget);
  if (!page.ok()) {
    return absl::Status(page.status().code(),
                        absl::StrCat("ring-ref ", ring_ref, ": ", page.status().message()));
  }
  ring.interface = *std::move(page);
  const grants::GuestArea area(ring.interface.bytes());
  // Each word is read once; what was checked is what is used.
  const uint32_t order = area.Load<uint32_t>(offsetof(wire::RingInterface, ring_order));
  if (order == 0 || order > max_order) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring_order is ", order, "; 1 to ", max_order, " are served"));
  }
  std::vector<grants::GrantRef> refs(size_t{1} << order);
  for (size_t i = 0; i < refs.size(); ++i) {
    refs[i] = area.Load<uint32_t>(offsetof(wire::RingInterface, ref) + 4 * i);
  }
  std::vector<grants::GrantRef> sorted = refs;
  sorted.push_back(ring_ref);
  std::sort(sorted.begin(), sorted.end());
  if (auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ring lists grant ", *twice, " twice, or as its own interface page"));
  }
  absl::StatusOr<grants::GrantMapping> data = MapOnce(mapper, frontend, refs, budget);
  if (!data.ok()) {
    return absl::Status(
        data.status().code(),
        absl::StrCat("the ring's ", refs.size(), " data pages: ", data.status().message()));
  }
  ring.data = *std::move(data);
  return ring;
}

absl::StatusOr<grants::GrantMapping> MapWindowPages(grants::GrantMapper& mapper,
                                                    grants::DomainId frontend,
                                                    grants::GrantRef directory, uint32_t pages,
                                                    const std::shared_ptr<PageBudget>& budget) {
  absl::StatusOr<std::shared_ptr<PageClaim>> claim = PageClaim::Take(budget, pages);
  if (!claim.ok()) return claim.status();
  absl::StatusOr<grants::GrantMapping> window = grants::MapWindow(
      mapper, frontend, directory, pages, {.max_pages = pages},
      [&](absl::Span<const grants::GrantRef> refs) { return (*claim)->Add(refs); });
  if (window.ok()) window->KeepUntilUnmapped(*std::move(claim));
  return window;
}

}  // namespace vmsg::backend
