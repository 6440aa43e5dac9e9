// SPDX-License-Identifier: Apache-2.0
// A bus from its directory's appearance to its end, in every way there is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>

#include "tests/backend/service/service_rig.h"
#include "tests/scale/connecting_guest.h"

namespace vmsg::testing {
namespace {

using ::testing::HasSubstr;
using xenstore::XenbusState;

class LifeCycleTest : public ServiceRig {};

TEST_F(LifeCycleTest, NewBusIsOfferedAndServed) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0, 3});
  WaitFor(bus, "state", "2");
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_EQ(Read(bus, "state"), "4");
  EXPECT_EQ(platform_->hooks->MappedPages(), 64u + 1 + 4);
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
}

TEST_F(LifeCycleTest, BackendUnmapsBeforeItSaysClosed) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  std::latch unmapping{1}, go_on{1};
  platform_->hooks->OnUnmap([&] {
    if (!unmapping.try_wait()) unmapping.count_down();
    go_on.wait();
  });
  WriteFrontendState(bus, XenbusState::kClosing);
  WriteFrontendState(bus, XenbusState::kClosed);
  unmapping.wait();
  EXPECT_NE(Read(bus, "state"), "6");
  EXPECT_GT(platform_->hooks->MappedPages(), 0u);
  go_on.count_down();
  WaitFor(bus, "state", "6");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
}

TEST_F(LifeCycleTest, EachStateStaysUntilTheFrontendHasMoved) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  WriteFrontendState(bus, XenbusState::kClosing);
  WaitFor(bus, "state", "5");
  AwaitQuiet();
  EXPECT_EQ(Read(bus, "state"), "5");
  EXPECT_GT(platform_->hooks->MappedPages(), 0u);
  WriteFrontendState(bus, XenbusState::kClosed);
  WaitFor(bus, "state", "6");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
  AwaitQuiet();
  EXPECT_EQ(Read(bus, "state"), "6");
  WriteFrontendState(bus, XenbusState::kInitialising);
  WaitFor(bus, "state", "2");
}

TEST_F(LifeCycleTest, FrontendConnectsAgainAfterClosing) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  for (int i = 0; i < 20; ++i) {
    auto connection = Connect(guest);
    ASSERT_TRUE(connection.ok()) << connection.status();
    EXPECT_EQ((*connection)->Close(), absl::OkStatus());
    EXPECT_EQ(platform_->hooks->MappedPages(), 0u) << "the frontend saw 6";
  }
  EXPECT_EQ(Read(bus, "device/0/hotplug-status"), "connected");
}

TEST_F(LifeCycleTest, FrontendThatStartsOverIsTornDownAndOfferedTo) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  // Its kernel was replaced: 1 while we are connected.
  WriteFrontendState(bus, XenbusState::kInitialising);
  WaitFor(bus, "state", "2");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
}

TEST_F(LifeCycleTest, DestroyedGuestIsUnmapped) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(xen_->Destroy(guest).ok());
  // Its zombie goes when the last mapping does, and then our directory.
  WaitFor(bus, "state", "(none)");
  auto counts = xen_->DomainCounts(guest);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->pinned, 0);
}

TEST_F(LifeCycleTest, VanishedDirectoryIsTornDownAndNotWrittenAgain) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  std::latch unmapped{1};
  platform_->hooks->OnUnmap([&] {
    if (!unmapped.try_wait()) unmapped.count_down();
  });
  ASSERT_TRUE(xenstore::RemoveBus(*store_, bus).ok());
  unmapped.wait();
  StopService();
  EXPECT_EQ(Read(bus, "state"), "(none)");
}

TEST_F(LifeCycleTest, RemovedBusEndsAndItsDirectoryGoes) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE(xenstore::RequestBusRemoval(*store_, bus).ok());
  // 5 and 6 pass without the frontend: the administrator's word is enough.
  WaitFor(bus, "state", "(none)");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
}

TEST_F(LifeCycleTest, OrderlyStopClosesAllBusesUnmapped) {
  std::vector<xenstore::BusAddress> buses;
  std::vector<std::unique_ptr<frontend::BusConnection>> connections;
  for (int i = 0; i < 3; ++i) {
    const grants::DomainId guest = NewGuest();
    buses.push_back(Attach(guest, {0}));
    auto connection = Connect(guest);
    ASSERT_TRUE(connection.ok()) << connection.status();
    connections.push_back(*std::move(connection));
  }
  StopService();
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
  for (const auto& bus : buses) EXPECT_EQ(Read(bus, "state"), "6");
}

TEST_F(LifeCycleTest, ServiceThatIsStartedAgainServesTheSameGuests) {
  const grants::DomainId guest = NewGuest();
  Attach(guest, {0});
  {
    auto connection = Connect(guest);
    ASSERT_TRUE(connection.ok()) << connection.status();
    StopService();
  }
  StartService();
  auto again = Connect(guest);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE((*again)->Close().ok());
}

TEST_F(LifeCycleTest, GuestWhoseMappingHangsDoesNotHoldTheOthers) {
  const grants::DomainId slow = NewGuest();
  const grants::DomainId quick = NewGuest();
  Attach(slow, {0});
  Attach(quick, {0});
  std::latch held{1}, release{1};
  platform_->hooks->OnMap([&](grants::DomainId domain) {
    if (domain != slow) return;
    if (!held.try_wait()) held.count_down();
    release.wait();
  });
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> first;
  std::thread connecting([&] { first = Connect(slow); });
  held.wait();
  auto second = Connect(quick);
  EXPECT_TRUE(second.ok()) << second.status();
  release.count_down();
  connecting.join();
  EXPECT_TRUE(first.ok()) << first.status();
}

TEST_F(LifeCycleTest, RefusalSaysWhatWasWrongAndLeavesNothingMapped) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  WaitFor(bus, "state", "2");
  xenstore::FrontendRequest request{.version = 1,
                                    .message_size = 264,
                                    .ring_ref = 5000,  // granted to nobody
                                    .event_channel = 1,
                                    .directory_ref = 5001,
                                    .directory_pages = 10};
  ASSERT_TRUE(xenstore::WriteRequest(*store_, bus, request).ok());
  WaitFor(bus, "state", "6");
  EXPECT_THAT(Read(bus, "hotplug-error"), HasSubstr("ring-ref 5000"));
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
  // It may try again, from the beginning.
  WriteFrontendState(bus, XenbusState::kInitialising);
  WaitFor(bus, "state", "2");
  auto connection = Connect(guest);
  EXPECT_TRUE(connection.ok()) << connection.status();
}

TEST_F(LifeCycleTest, ReasonThatIsOverIsRemoved) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  WaitFor(bus, "state", "2");
  const xenstore::FrontendRequest request{.version = 7,
                                          .message_size = 264,
                                          .ring_ref = 5000,
                                          .event_channel = 1,
                                          .directory_ref = 5001,
                                          .directory_pages = 10};
  ASSERT_TRUE(xenstore::WriteRequest(*store_, bus, request).ok());
  WaitFor(bus, "state", "6");
  EXPECT_THAT(Read(bus, "hotplug-error"), HasSubstr("version"));
  EXPECT_TRUE(store_->Read(xenstore::BackendErrorPath(bus)).ok());
  auto connection = Connect(guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  WaitFor(bus, "hotplug-error", "");
  StopService();  // what it still does is done
  EXPECT_TRUE(absl::IsNotFound(store_->Read(xenstore::BackendErrorPath(bus)).status()));
}

TEST_F(LifeCycleTest, WhatIsNoStateIsRefusedByName) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  for (const std::string text : {"03", "", "9", "Connected"}) {
    WaitFor(bus, "state", "2");
    ASSERT_TRUE(store_->Write(absl::StrCat(bus.FrontendPath(), "/state"), text).ok());
    WaitFor(bus, "state", "6");
    EXPECT_THAT(Read(bus, "hotplug-error"), HasSubstr(absl::StrCat("\"", text, "\"")));
    WriteFrontendState(bus, XenbusState::kInitialising);
  }
}

// The first one is killed between its 3 and our 4, and its successor asks at once.
TEST_F(LifeCycleTest, AnswerIsForTheFrontendThatAsksNow) {
  const ConnectingGuest killed(*xen_);  // its grants and nodes are what is left of it
  const auto bus = Attach(killed.domain(), {0});
  WaitFor(bus, "state", "2");
  std::latch held{1}, release{1};
  platform_->hooks->OnMap([&](grants::DomainId) {
    if (!held.try_wait()) held.count_down();
    release.wait();
  });
  const xenstore::FrontendRequest request{.version = 1,
                                          .message_size = wire::kMaxMessageSize,
                                          .ring_ref = killed.ring_ref(),
                                          .event_channel = killed.port(),
                                          .directory_ref = killed.directory_ref(),
                                          .directory_pages = ConnectingGuest::kWindowPages};
  ASSERT_TRUE(xenstore::WriteRequest(*store_, bus, request).ok());
  held.wait();
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection;
  std::thread successor([&] { connection = Connect(killed.domain()); });
  EXPECT_NE(AwaitOther(bus, "ring-ref", absl::StrCat(killed.ring_ref())), "");
  release.count_down();
  successor.join();
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto ping = (*connection)->bus().Ping(3, frontend::After(std::chrono::seconds(20)));
  EXPECT_TRUE(ping.ok()) << ping.status() << ": it looks connected and is dead";
}

TEST_F(LifeCycleTest, FrontendWhoseNodesChangeAllTheTimeIsRefused) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  WaitFor(bus, "state", "2");
  auto other = xenstore::OpenStore(xen_->StoreSocket(0));
  ASSERT_TRUE(other.ok()) << other.status();
  int changes = 0;
  platform_->hooks->OnMap([&](grants::DomainId) {
    ASSERT_TRUE(
        (*other)->Write(bus.FrontendPath() + "/message-size", std::to_string(64 + ++changes)).ok());
  });
  const auto connection = Connect(guest);
  EXPECT_FALSE(connection.ok());
  EXPECT_THAT(connection.status().message(), HasSubstr("changes none of them"));
  WaitFor(bus, "state", "6");
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
}

TEST_F(LifeCycleTest, PortThatIsNotOursIsRefusedByName) {
  const grants::DomainId guest = NewGuest();
  const auto bus = Attach(guest, {0});
  WaitFor(bus, "state", "2");
  // Everything right but the port.
  ASSERT_TRUE(xen_->Fault({"bind-fail", "0", "1"}).ok());
  auto connection = Connect(guest, 0, 1500);
  EXPECT_THAT(connection.status().message(), HasSubstr("event-channel"));
  EXPECT_EQ(platform_->hooks->MappedPages(), 0u);
  // Most of the guest's budget, and it is whole again.
  auto again = Connect(guest, 0, 1500);
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST_F(LifeCycleTest, MapThatFailsAtAnyCallLeavesNothingMapped) {
  const grants::DomainId guest = NewGuest();
  Attach(guest, {0});
  // Ring page, ring data, directory page, window.
  for (int call = 0; call < 4; ++call) {
    auto count = std::make_shared<std::atomic<int>>(0);
    platform_->hooks->OnMap([&, count, call](grants::DomainId domain) {
      if ((*count)++ == call) {
        (void)xen_->Fault({"map-fail", std::to_string(domain), "0", "1"});
      }
    });
    auto connection = Connect(guest);
    EXPECT_FALSE(connection.ok()) << call;
    EXPECT_EQ(platform_->hooks->MappedPages(), 0u) << call;
    platform_->hooks->OnMap(nullptr);
  }
  auto connection = Connect(guest);
  EXPECT_TRUE(connection.ok()) << connection.status();
}

TEST_F(LifeCycleTest, WindowsOfAllBusesOfAGuestShareItsBudget) {
  const grants::DomainId guest = NewGuest();
  Attach(guest, {0}, 0);
  Attach(guest, {0}, 1);
  auto first = Connect(guest, 0, 1500);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = Connect(guest, 1, 1000);
  EXPECT_THAT(second.status().message(), HasSubstr("may map 548 more"));
  EXPECT_TRUE((*first)->Close().ok());
  second = Connect(guest, 1, 1000);
  EXPECT_TRUE(second.ok()) << second.status();
}

}  // namespace
}  // namespace vmsg::testing
