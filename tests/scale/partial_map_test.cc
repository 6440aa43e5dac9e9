// SPDX-License-Identifier: Apache-2.0
// Connecting copies and maps in several calls of many pages. Whichever entry of whichever call the
// hypervisor refuses, nothing stays mapped (XSA-361 to 367) and the guest's budget is whole.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/session/map_bus.h"
#include "tests/backend/service/hooked_platform.h"
#include "tests/scale/connecting_guest.h"
#include "tests/scale/counts.h"

namespace vmsg::testing {
namespace {

constexpr uint32_t kWindowPages = kSanitized ? 1030 : 1100;  // two directory pages
constexpr uint32_t kRingOrder = backend::RingLimits::kMaxOrder;

TEST(PartialMap, RefusedAtAnyEntryOfAnyCallLeavesNothingMapped) {
  auto started = test::EmulatedXen::Start();
  ASSERT_TRUE(started.ok()) << started.status();
  test::EmulatedXen& xen = **started;
  auto platform = xen.OpenPlatform(0);
  ASSERT_TRUE(platform.ok()) << platform.status();
  const auto hooks = std::make_shared<MapperHooks>();
  HookedMapper mapper(*(*platform)->OpenGrantMapper(), hooks);
  ConnectingGuest guest(xen, kWindowPages, kRingOrder);
  const auto budget = std::make_shared<backend::PageBudget>(kWindowPages);

  const auto connect = [&]() -> absl::Status {
    auto ring = backend::MapRing(mapper, guest.domain(), guest.ring_ref(), kRingOrder, budget);
    if (!ring.ok()) return ring.status();
    auto window = backend::MapWindowPages(mapper, guest.domain(), guest.directory_ref(),
                                          kWindowPages, budget);
    return window.status();
  };

  struct Call {
    uint32_t entries;
    std::string refusal;  // empty: a map, whose refusal names the entry
  };
  const std::vector<Call> calls = {{1, ""},  // the interface page
                                   {1u << kRingOrder, ""},
                                   {1, "directory page 0 of 2"},
                                   {1, "directory page 1 of 2"},
                                   {kWindowPages, ""}};
  for (size_t call = 0; call < calls.size(); ++call) {
    for (uint32_t entry = 0; entry < calls[call].entries; ++entry) {
      SCOPED_TRACE(absl::StrCat("call ", call, ", entry ", entry));
      size_t seen = 0;
      hooks->OnMap([&](grants::DomainId domain) {
        if (seen++ != call) return;
        EXPECT_TRUE(xen.Fault({"map-fail", absl::StrCat(domain), absl::StrCat(entry), "1"}).ok());
      });
      const absl::Status status = connect();
      ASSERT_FALSE(status.ok());
      const std::string refusal = calls[call].refusal.empty()
                                      ? absl::StrCat("entry ", entry, " of ", calls[call].entries)
                                      : calls[call].refusal;
      ASSERT_NE(status.message().find(refusal), absl::string_view::npos) << status;
      ASSERT_EQ(seen, call + 1) << "it went on after the refusal";
      ASSERT_EQ(hooks->MappedPages(), 0u);
      ASSERT_EQ(budget->left(), kWindowPages);
      const auto counts = xen.DomainCounts(guest.domain());
      ASSERT_TRUE(counts.ok()) << counts.status();
      ASSERT_EQ(counts->pinned, 0);
    }
  }
  hooks->OnMap(nullptr);
  EXPECT_TRUE(connect().ok());
  EXPECT_EQ(hooks->MappedPages(), 0u);
}

}  // namespace
}  // namespace vmsg::testing
