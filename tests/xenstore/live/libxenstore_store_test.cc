// SPDX-License-Identifier: Apache-2.0
// Store on libxenstore against a running server, with the permissions, quotas and transactions of
// the real one.
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

TEST_F(LibxenstoreStoreTest, ValuesAreBytes) {
  const std::string value("a\0b\n\xff", 5);
  ASSERT_TRUE(guest_->Write("data/x", value).ok());
  EXPECT_EQ(*guest_->Read("data/x"), value);
  EXPECT_EQ(*dom0_->Read("/local/domain/5/data/x"), value);
  ASSERT_TRUE(guest_->Write("data/x", "").ok());
  EXPECT_EQ(*guest_->Read("data/x"), "");
}

TEST_F(LibxenstoreStoreTest, MissingNodeIsNotFoundAndNamed) {
  absl::StatusOr<std::string> value = dom0_->Read("/local/domain/5/nothing");
  EXPECT_TRUE(absl::IsNotFound(value.status()));
  EXPECT_THAT(value.status().message(), HasSubstr("/local/domain/5/nothing"));
  EXPECT_TRUE(absl::IsNotFound(dom0_->List("/nothing").status()));
  EXPECT_TRUE(absl::IsNotFound(dom0_->Remove("/nothing/at/all")));
}

TEST_F(LibxenstoreStoreTest, ForeignNodeIsDenied) {
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Write("/local/domain/3/data/x", "1")));
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Read("/local/domain/3/data").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(
      guest_->SetPermissions("/local/domain/3/data", {{5, Access::kBoth}})));
}

TEST_F(LibxenstoreStoreTest, MalformedPathsAreInvalidAndTheConnectionStays) {
  for (const std::string& path :
       {std::string(), std::string("/a//b"), std::string("/a/"), std::string("/a b"),
        std::string("/a\0b", 4), "/" + std::string(3072, 'x'), std::string(2049, 'x')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(dom0_->Read(path).status())) << path.substr(0, 20);
    EXPECT_TRUE(absl::IsInvalidArgument(dom0_->Write(path, "1"))) << path.substr(0, 20);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(dom0_->Watch(std::string("/a\0b", 4), "t")));
  EXPECT_TRUE(absl::IsInvalidArgument(dom0_->Watch("/a", absl::string_view("t\0u", 3))));
  EXPECT_TRUE(dom0_->Read("/local/domain/5/domid").ok());
}

TEST_F(LibxenstoreStoreTest, ValueOverThePayloadIsRefusedAndTheConnectionStays) {
  EXPECT_TRUE(absl::IsInvalidArgument(dom0_->Write("/x", std::string(4094, 'v'))));
  EXPECT_TRUE(dom0_->Write("/x", std::string(4093, 'v')).ok());
  EXPECT_EQ(dom0_->Read("/x")->size(), 4093u);
}

TEST_F(LibxenstoreStoreTest, QuotaIsResourceExhausted) {
  absl::Status status;
  for (int i = 0; i < 2000 && status.ok(); ++i) {
    status = guest_->Write(absl::StrCat("data/", i), "");
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(absl::IsResourceExhausted(guest_->Write("data/0", std::string(3000, 'v'))));
}

TEST_F(LibxenstoreStoreTest, ListOfAThousandNames) {
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(dom0_->Write(absl::StrCat("/long/name-of-an-entry-", i), "").ok());
  }
  EXPECT_EQ(dom0_->List("/long")->size(), 1000u);
  EXPECT_TRUE(dom0_->List("/long/name-of-an-entry-1")->empty());
}

TEST_F(LibxenstoreStoreTest, PermissionsRoundTrip) {
  const std::vector<Permission> permissions = {
      {5, Access::kNone}, {3, Access::kRead}, {7, Access::kBoth}, {8, Access::kWrite}};
  ASSERT_TRUE(dom0_->MakeDirectory("/p").ok());
  ASSERT_TRUE(dom0_->SetPermissions("/p", permissions).ok());
  EXPECT_EQ(*dom0_->GetPermissions("/p"), permissions);
  EXPECT_TRUE(absl::IsInvalidArgument(dom0_->SetPermissions("/p", {})));
}

TEST_F(LibxenstoreStoreTest, TransactionIsAllOrNothing) {
  EXPECT_TRUE(absl::IsInternal(dom0_->Transaction([](NodeAccess& nodes) -> absl::Status {
    EXPECT_TRUE(nodes.Write("/t/a", "1").ok());
    EXPECT_EQ(*nodes.Read("/t/a"), "1");
    return absl::InternalError("no");
  })));
  EXPECT_TRUE(absl::IsNotFound(dom0_->Read("/t/a").status()));
}

TEST_F(LibxenstoreStoreTest, TransactionRunsAgainAfterAConflict) {
  std::unique_ptr<Store> other = Open(0);
  ASSERT_TRUE(dom0_->Write("/t/counter", "0").ok());
  int runs = 0;
  ASSERT_TRUE(dom0_
                  ->Transaction([&](NodeAccess& nodes) -> absl::Status {
                    absl::StatusOr<std::string> value = nodes.Read("/t/counter");
                    if (++runs <= 3) {
                      EXPECT_TRUE(other->Write("/t/counter", absl::StrCat(runs)).ok());
                    }
                    return nodes.Write("/t/counter", *value + "+");
                  })
                  .ok());
  EXPECT_EQ(runs, 4);
  EXPECT_EQ(*dom0_->Read("/t/counter"), "3+");
}

TEST_F(LibxenstoreStoreTest, RivalThatNeverRestsEndsTheTransactionWithAborted) {
  std::unique_ptr<Store> other = Open(0);
  ASSERT_TRUE(dom0_->Write("/t/counter", "0").ok());
  int runs = 0;
  EXPECT_TRUE(absl::IsAborted(dom0_->Transaction([&](NodeAccess& nodes) -> absl::Status {
    absl::StatusOr<std::string> value = nodes.Read("/t/counter");
    EXPECT_TRUE(other->Write("/t/counter", absl::StrCat(++runs)).ok());
    return nodes.Write("/t/counter", "mine");
  })));
  EXPECT_EQ(runs, 64);
  EXPECT_EQ(*dom0_->Read("/t/counter"), "64");
}

TEST_F(LibxenstoreStoreTest, WatchFiresAtOnceThenForChangesBelow) {
  ASSERT_TRUE(dom0_->Watch("/w", "token").ok());
  EXPECT_THAT(Events(*dom0_), ElementsAre("token /w"));
  ASSERT_TRUE(dom0_->Write("/w/a/b", "1").ok());
  EXPECT_THAT(Events(*dom0_), ElementsAre("token /w/a/b"));
}

TEST_F(LibxenstoreStoreTest, RelativeWatchGivesRelativePaths) {
  ASSERT_TRUE(guest_->Watch("data", "token").ok());
  EXPECT_THAT(Events(*guest_), ElementsAre("token data"));
  ASSERT_TRUE(dom0_->Write("/local/domain/5/data/x", "1").ok());
  EXPECT_THAT(Events(*guest_), ElementsAre("token data/x"));
}

TEST_F(LibxenstoreStoreTest, NoEventAfterUnwatch) {
  ASSERT_TRUE(dom0_->Watch("/w", "1").ok());
  ASSERT_TRUE(dom0_->Watch("/v", "2").ok());
  ASSERT_TRUE(dom0_->Unwatch("/w", "1").ok());
  EXPECT_TRUE(absl::IsNotFound(dom0_->Unwatch("/w", "1")));
  while (!dom0_->TakeWatchEvents()->empty()) {
  }
  ASSERT_TRUE(dom0_->Write("/w", "1").ok());
  ASSERT_TRUE(dom0_->Write("/v", "1").ok());
  EXPECT_THAT(Events(*dom0_), ElementsAre("2 /v"));
}

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
