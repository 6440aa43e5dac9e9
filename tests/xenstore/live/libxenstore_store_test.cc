// SPDX-License-Identifier: Apache-2.0
// What Store adds to libxenstore, against a running server; tests/contract/store has what is
// xenstored's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "tests/xenstore/live/live_store.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using LibxenstoreStoreTest = LiveStore;

TEST_F(LibxenstoreStoreTest, FloodIsFolded) {
  ASSERT_TRUE(dom0_->Watch("/w", "token").ok());
  Events(*dom0_);
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(dom0_->Write("/w/a", absl::StrCat(i)).ok());
  // A write's answer follows its event, so all of them are here.
  EXPECT_THAT(*dom0_->TakeWatchEvents(256), testing::SizeIs(1));
  EXPECT_THAT(*dom0_->TakeWatchEvents(256), testing::IsEmpty());
}

TEST_F(LibxenstoreStoreTest, OneCallReturnsNoMoreEventsThanAskedFor) {
  ASSERT_TRUE(dom0_->Watch("/w", "token").ok());
  Events(*dom0_);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(dom0_->Write(absl::StrCat("/w/", i), "").ok());
  size_t total = 0;
  while (true) {
    const size_t taken = dom0_->TakeWatchEvents(7)->size();
    EXPECT_LE(taken, 7u);
    if (taken == 0) break;
    total += taken;
  }
  EXPECT_EQ(total, 100u);
}

TEST_F(LibxenstoreStoreTest, DomainsComeAndGo) {
  EXPECT_TRUE(*dom0_->IsDomainIntroduced(5));
  EXPECT_FALSE(*dom0_->IsDomainIntroduced(77));
  ASSERT_TRUE(dom0_->Watch("@releaseDomain", "r").ok());
  Events(*dom0_);
  server_.Run([](emu::store::StoreServer& store) { EXPECT_TRUE(store.ReleaseDomain(5).ok()); });
  EXPECT_THAT(Events(*dom0_), ElementsAre("r @releaseDomain"));
  EXPECT_FALSE(*dom0_->IsDomainIntroduced(5));
}

TEST(LibxenstoreStore, EndOfTheServerEndsEveryOperation) {
  auto server = std::make_unique<emu::store::RunningStore>();
  absl::StatusOr<std::unique_ptr<Store>> opened = OpenStore(server->Socket(0));
  ASSERT_TRUE(opened.ok()) << opened.status();
  Store& store = **opened;
  ASSERT_TRUE(store.Watch("/w", "token").ok());
  server.reset();
  pollfd ready{.fd = store.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&ready, 1, 60'000), 1);
  // Events that came before the end are still delivered.
  absl::StatusOr<std::vector<WatchEvent>> events = store.TakeWatchEvents();
  while (events.ok() && !events->empty()) events = store.TakeWatchEvents();
  EXPECT_TRUE(absl::IsUnavailable(events.status())) << events.status();
  EXPECT_TRUE(absl::IsUnavailable(store.Read("/w").status()));
  EXPECT_TRUE(absl::IsUnavailable(store.Write("/w", "1")));
  EXPECT_TRUE(absl::IsUnavailable(store.IsDomainIntroduced(0).status()));
  EXPECT_TRUE(absl::IsUnavailable(store.Transaction([](NodeAccess&) { return absl::OkStatus(); })));
}

TEST(LibxenstoreStore, EndOfTheServerIsSeenWithoutAnyWatch) {
  auto server = std::make_unique<emu::store::RunningStore>();
  absl::StatusOr<std::unique_ptr<Store>> store = OpenStore(server->Socket(0));
  ASSERT_TRUE(store.ok()) << store.status();
  server.reset();
  pollfd ready{.fd = (*store)->fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&ready, 1, 60'000), 1);
  EXPECT_TRUE(absl::IsUnavailable((*store)->TakeWatchEvents().status()));
}

TEST_F(LibxenstoreStoreTest, NobodyListeningIsUnavailableAndNamesTheSocket) {
  absl::StatusOr<std::unique_ptr<Store>> store = OpenStore("/nonexistent/xenstored");
  EXPECT_TRUE(absl::IsUnavailable(store.status()));
  EXPECT_THAT(store.status().message(), HasSubstr("/nonexistent/xenstored"));
}

TEST_F(LibxenstoreStoreTest, EnvironmentIsAsItWas) {
  setenv("XENSTORED_PATH", "/somewhere", 1);
  Open(0);
  EXPECT_STREQ(getenv("XENSTORED_PATH"), "/somewhere");
  unsetenv("XENSTORED_PATH");
  Open(0);
  EXPECT_EQ(getenv("XENSTORED_PATH"), nullptr);
}

}  // namespace
}  // namespace vmsg::xenstore
