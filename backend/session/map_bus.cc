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

absl::StatusOr<MappedRing> MapRing(grants::GrantMapper& mapper, grants::DomainId frontend,
                                   grants::GrantRef ring_ref, uint32_t max_order) {
  MappedRing ring;
  absl::StatusOr<grants::GrantMapping> page =
      mapper.Map(frontend, {ring_ref}, grants::Access::kReadWrite);
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
  absl::StatusOr<grants::GrantMapping> data =
      mapper.Map(frontend, refs, grants::Access::kReadWrite);
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
                                                    PageBudget& budget) {
  if (!budget.Take(pages)) {
    return absl::ResourceExhaustedError(absl::StrCat("a window of ", pages,
                                                     " pages refused: this guest may map ",
                                                     budget.left(), " more, over all its buses"));
  }
  absl::StatusOr<grants::GrantMapping> window =
      grants::MapWindow(mapper, frontend, directory, pages, {.max_pages = pages});
  if (!window.ok()) budget.Give(pages);
  return window;
}

}  // namespace vmsg::backend
