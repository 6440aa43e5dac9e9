// SPDX-License-Identifier: Apache-2.0
// What a frontend published becomes mapped memory, or is refused with nothing left mapped.
#include "backend/session/map_bus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "backend/runtime/event_loop.h"
#include "backend/session/worker_pool.h"
#include "backend/session/worker_window_mapper.h"
#include "tests/grants/fake_mapper.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::backend {
namespace {

using grants::FakeMapper;
using ::testing::HasSubstr;

class MapBusTest : public ::testing::Test {
 protected:
  static constexpr grants::GrantRef kRing = 100;
  static constexpr grants::GrantRef kData = 200;

  // The guest's ring of this order; its interface page can be spoiled afterwards.
  void MakeRing(uint32_t order) {
    page_ = mapper_.Grant(kRing);
    Word(offsetof(wire::RingInterface, ring_order)) = order;
    if (order > 9) return;
    data_ = mapper_.GrantRange(kData, size_t{1} << order);
    for (uint32_t i = 0; i < 1u << order; ++i) Ref(i) = kData + i;
  }
  uint32_t& Word(size_t offset) { return *reinterpret_cast<uint32_t*>(page_.data() + offset); }
  uint32_t& Ref(uint32_t i) { return Word(offsetof(wire::RingInterface, ref) + 4 * i); }
  absl::StatusOr<MappedRing> Map() {
    return MapRing(mapper_, FakeMapper::kGuest, kRing, RingLimits::kMaxOrder, budget_);
  }
  void ExpectRefused(const std::string& reason) {
    EXPECT_THAT(Map().status().message(), HasSubstr(reason));
    EXPECT_EQ(mapper_.live_mappings(), 0u);
  }

  FakeMapper mapper_;
  const std::shared_ptr<PageBudget> budget_ = std::make_shared<PageBudget>(64);
  std::span<std::byte> page_;
  std::span<std::byte> data_;
};

TEST_F(MapBusTest, FirstHalfCarriesInAndSecondHalfCarriesOut) {
  MakeRing(2);
  auto ring = Map();
  ASSERT_TRUE(ring.ok()) << ring.status();
  const RingMemory memory = ring->memory();
  ASSERT_EQ(memory.in.size(), 8192u);
  ASSERT_EQ(memory.out.size(), 8192u);
  memory.in[0] = std::byte{1};
  EXPECT_EQ(data_[0], std::byte{1});
  data_[8192] = std::byte{2};
  EXPECT_EQ(memory.out[0], std::byte{2});
  memory.interface->in.prod = 8;
  EXPECT_EQ(Word(4), 8u);
}

TEST_F(MapBusTest, OrderZeroIsRefused) {
  MakeRing(0);
  ExpectRefused("ring_order is 0");
}

TEST_F(MapBusTest, OrderOverTheLimitIsRefusedBeforeItsGrantsAreRead) {
  for (uint32_t order : {RingLimits::kMaxOrder + 1, 10u, 32u, 0xffffffffu}) {
    mapper_.Grant(kRing);
    MakeRing(order);
    ExpectRefused("ring_order is " + std::to_string(order));
  }
}

TEST_F(MapBusTest, DataPageTwiceIsRefused) {
  MakeRing(2);
  Ref(3) = Ref(0);
  ExpectRefused("twice");
}

TEST_F(MapBusTest, InterfacePageAsDataIsRefused) {
  MakeRing(2);
  Ref(3) = kRing;
  ExpectRefused("grant 100 twice");
}

TEST_F(MapBusTest, UngrantedInterfacePageIsRefusedByName) { ExpectRefused("ring-ref 100"); }

TEST_F(MapBusTest, UngrantedDataPageIsRefusedAndNothingStaysMapped) {
  MakeRing(2);
  Ref(2) = 999;
  ExpectRefused("data pages");
}

TEST_F(MapBusTest, ReservedDataPageIsRefused) {
  MakeRing(1);
  Ref(1) = 0;
  ExpectRefused("data pages");
}

class WindowBudgetTest : public MapBusTest {
 protected:
  absl::StatusOr<grants::GrantMapping> MapWindow(uint32_t pages) {
    return MapWindowPages(mapper_, FakeMapper::kGuest, 50, pages, budget_);
  }
  void PutWindow(size_t pages) {
    mapper_.GrantRange(1000, pages);
    const std::vector<grants::GrantRef> directory = {50};
    grants::PutDirectory(mapper_, directory, grants::Sequence(1000, pages));
  }
};

TEST_F(WindowBudgetTest, PagesComeOutOfTheGuestsBudget) {
  PutWindow(40);
  auto window = MapWindow(40);
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_EQ(window->pages(), 40u);
  EXPECT_EQ(budget_->left(), 24u);
}

TEST_F(WindowBudgetTest, WindowOverTheBudgetIsRefusedBeforeAnythingIsMapped) {
  PutWindow(40);
  for (uint32_t pages : {65u, 0xffffffffu}) {
    EXPECT_TRUE(absl::IsOutOfRange(MapWindow(pages).status()));
  }
  EXPECT_TRUE(mapper_.calls().empty());
  EXPECT_EQ(budget_->left(), 64u);
}

TEST_F(WindowBudgetTest, BudgetIsGivenBackWhenMappingFails) {
  PutWindow(40);
  for (size_t call : {0, 1}) {
    mapper_.fail_call = call;
    EXPECT_FALSE(MapWindow(40).ok());
    EXPECT_EQ(budget_->left(), 64u);
    EXPECT_EQ(mapper_.live_mappings(), 0u);
  }
}

// Else a guest that extends and withdraws its window has none left one day.
TEST_F(WindowBudgetTest, AnExtensionThatIsUnmappedGivesItsPagesBack) {
  PutWindow(40);
  const std::unique_ptr<ThreadLoop> loop = NewEpollLoop({absl::ZeroDuration()});
  WorkerPool workers;
  const std::unique_ptr<WindowMapper> extensions =
      NewWorkerWindowMapper({.workers = workers,
                             .lane = 1,
                             .mapper = mapper_,
                             .frontend = FakeMapper::kGuest,
                             .budget = budget_,
                             .loop = *loop});
  for (int round = 0; round < 3; ++round) {
    extensions->Map(50, 40, [&](absl::StatusOr<grants::GrantMapping> mapping) {
      EXPECT_TRUE(mapping.ok()) << round << ": " << mapping.status();
      if (!mapping.ok()) return loop->Stop();
      EXPECT_EQ(budget_->left(), 24u);
      extensions->Unmap(*std::move(mapping), [&] { loop->Stop(); });
    });
    loop->Run();
    EXPECT_EQ(budget_->left(), 64u);
    EXPECT_EQ(mapper_.live_mappings(), 0u);
  }
}

// A grant is mapped once: a guest does not take as many of the backend's handles as it may have
// pages with a few pages of its own.
class GrantOnceTest : public WindowBudgetTest {
 protected:
  // Window pages that this directory lists.
  absl::StatusOr<grants::GrantMapping> MapListed(grants::GrantRef directory,
                                                 const std::vector<grants::GrantRef>& refs) {
    const std::vector<grants::GrantRef> pages = {directory};
    grants::PutDirectory(mapper_, pages, refs);
    return MapWindowPages(mapper_, FakeMapper::kGuest, directory,
                          static_cast<uint32_t>(refs.size()), budget_);
  }
};

TEST_F(GrantOnceTest, PageOfALivingWindowIsRefusedBeforeAnythingIsMapped) {
  PutWindow(16);
  auto first = MapWindow(16);
  ASSERT_TRUE(first.ok()) << first.status();
  mapper_.GrantRange(2000, 4);
  const auto again = MapListed(51, {2000, 2001, 1015, 2003});
  EXPECT_TRUE(absl::IsInvalidArgument(again.status())) << "result 1 on the wire";
  EXPECT_THAT(again.status().message(), HasSubstr("window page 2: grant 1015 is mapped already"));
  EXPECT_EQ(mapper_.live_pages(), 16u);
  EXPECT_EQ(budget_->left(), 48u);
  // What was refused claims nothing.
  EXPECT_TRUE(MapListed(52, {2000, 2001, 2003}).ok());
}

TEST_F(GrantOnceTest, SameDirectoryAgainAndAgainTakesNothingMore) {
  PutWindow(16);
  auto first = MapWindow(16);
  ASSERT_TRUE(first.ok()) << first.status();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(MapWindow(16).ok());
  EXPECT_EQ(budget_->left(), 48u);
}

TEST_F(GrantOnceTest, PageCanBeListedAgainWhenItIsUnmapped) {
  PutWindow(16);
  for (int i = 0; i < 3; ++i) {
    auto window = MapWindow(16);
    EXPECT_TRUE(window.ok()) << i << ": " << window.status();
  }
}

TEST_F(GrantOnceTest, PageWhoseMappingFailedCanBeListedAgain) {
  PutWindow(16);
  mapper_.fail_call = 1;
  EXPECT_FALSE(MapWindow(16).ok());
  EXPECT_TRUE(MapWindow(16).ok());
}

TEST_F(GrantOnceTest, RingPageIsNotAWindowPageAndNotAnotherRings) {
  MakeRing(2);
  auto ring = Map();
  ASSERT_TRUE(ring.ok()) << ring.status();
  EXPECT_EQ(budget_->left(), 64u) << "rings are not counted";
  EXPECT_THAT(MapListed(51, {kData + 3}).status().message(), HasSubstr("grant 203 is mapped"));
  EXPECT_THAT(MapListed(52, {kRing}).status().message(), HasSubstr("grant 100 is mapped"));
  EXPECT_THAT(Map().status().message(), HasSubstr("ring-ref 100"));
  *ring = MappedRing();
  EXPECT_TRUE(MapListed(53, {kRing}).ok());
}

TEST_F(GrantOnceTest, WindowPageIsNotARingPage) {
  MakeRing(1);
  auto window = MapListed(51, {kData + 1});
  ASSERT_TRUE(window.ok()) << window.status();
  EXPECT_THAT(Map().status().message(), HasSubstr("page 1: grant 201 is mapped already"));
}

// A withdrawal that is under way still holds its pages; the one that finds them free is the one
// that comes after.
TEST_F(GrantOnceTest, PageIsFreeWhenItsUnmappingIsAnsweredAndNotBefore) {
  PutWindow(16);
  const std::unique_ptr<ThreadLoop> loop = NewEpollLoop({absl::ZeroDuration()});
  WorkerPool workers;
  const std::unique_ptr<WindowMapper> extensions =
      NewWorkerWindowMapper({.workers = workers,
                             .lane = 1,
                             .mapper = mapper_,
                             .frontend = FakeMapper::kGuest,
                             .budget = budget_,
                             .loop = *loop});
  grants::GrantMapping mapped;
  extensions->Map(50, 16, [&](absl::StatusOr<grants::GrantMapping> mapping) {
    EXPECT_TRUE(mapping.ok()) << mapping.status();
    if (mapping.ok()) mapped = *std::move(mapping);
    loop->Stop();
  });
  loop->Run();
  EXPECT_FALSE(MapWindow(16).ok());
  extensions->Unmap(std::move(mapped), [&] { loop->Stop(); });
  loop->Run();
  EXPECT_TRUE(MapWindow(16).ok());
}

TEST(PageBudget, CountsExactlyUnderContention) {
  const auto budget = std::make_shared<PageBudget>(1000);
  std::vector<std::vector<std::shared_ptr<PageClaim>>> claims(4);
  std::vector<std::thread> threads;
  for (auto& mine : claims) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) {
        if (auto claim = PageClaim::Take(budget, 3); claim.ok()) mine.push_back(*claim);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  size_t taken = 0;
  for (const auto& mine : claims) taken += mine.size();
  EXPECT_EQ(taken, 333u);
  EXPECT_EQ(budget->left(), 1u);
  claims.clear();
  EXPECT_EQ(budget->left(), 1000u);
}

// Whatever number a guest gives its grants.
TEST(PageBudget, GrantsOfAnyNumberAreClaimedOnce) {
  const auto budget = std::make_shared<PageBudget>(10);
  for (const grants::GrantRef ref :
       {8u, 63u, 64u, 79u, 80u, 81u, 4096u, 0x7fffffffu, 0xfffffffeu, 0xffffffffu}) {
    for (int round = 0; round < 2; ++round) {
      auto first = *PageClaim::Take(budget, 1);
      EXPECT_TRUE(first->Add({ref}).ok()) << ref;
      auto second = *PageClaim::Take(budget, 1);
      EXPECT_TRUE(absl::IsInvalidArgument(second->Add({ref}))) << ref;
      EXPECT_TRUE(second->Add({ref ^ 1}).ok()) << "its neighbour, and nothing was left behind";
    }
  }
}

// Two buses of a guest that connect at once with the same pages.
TEST(PageBudget, OneOfManyGetsAGrant) {
  const auto budget = std::make_shared<PageBudget>(1000);
  const std::vector<grants::GrantRef> refs = grants::Sequence(8, 100);
  std::atomic<int> got = 0;
  std::vector<std::shared_ptr<PageClaim>> kept(4);
  std::vector<std::thread> threads;
  for (auto& claim : kept) {
    threads.emplace_back([&] {
      claim = *PageClaim::Take(budget, 100);
      if (claim->Add(refs).ok()) ++got;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(got, 1);
}

}  // namespace
}  // namespace vmsg::backend
