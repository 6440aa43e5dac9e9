// SPDX-License-Identifier: Apache-2.0
// The parts of xenstore/ that share a store: a bus, its permissions and its discovery, against a
// running server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>

#include "tests/xenstore/live/live_store.h"
#include "tests/xenstore/recording_listener.h"
#include "xenstore/bus_offer.h"
#include "xenstore/discovery.h"
#include "xenstore/reports/device_reports.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::xenstore {
namespace {

using ::testing::ElementsAre;

using BusOnStoreTest = LiveStore;

constexpr BusAddress kBus{5, 3, 2};

TEST_F(BusOnStoreTest, BusPermissionsHold) {
  std::unique_ptr<Store> backend = Open(3);
  ASSERT_TRUE(AddDevices(*dom0_, kBus, {{7, "blk", {{"path", "/srv/g1.img"}}}}).ok());
  const std::string back = kBus.BackendPath();
  const std::string front = kBus.FrontendPath();
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Read(back + "/device/7/path").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->List(back + "/device").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Write(back + "/state", "6")));
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Write(back + "/device/8/type", "blk")));
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Remove(back)));
  EXPECT_TRUE(absl::IsPermissionDenied(backend->Write(front + "/state", "6")));
  EXPECT_EQ(*backend->Read("backend/virtio-msg/5/2/device/7/path"), "/srv/g1.img");
  // What the backend writes below `device` is as little the guest's business.
  ASSERT_TRUE(
      ReportDevice(*backend, kBus, "7", absl::InvalidArgumentError("/srv/g1.img: no file")).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(guest_->Read(back + "/device/7/hotplug-error").status()));
}

TEST_F(BusOnStoreTest, BothSidesShakeHandsThenTheBusIsRemoved) {
  std::unique_ptr<Store> backend = Open(3);
  ASSERT_TRUE(AddDevices(*dom0_, kBus, {{7, "rng", {}}}).ok());
  const BackendOffer offer{.max_window_pages = 64, .max_ring_order = 2};
  ASSERT_TRUE(WriteOffer(*backend, kBus, offer).ok());
  EXPECT_EQ(*ReadOwnBus(*guest_, kBus.id), kBus);
  EXPECT_EQ(*ReadOffer(*guest_, kBus), offer);
  const FrontendRequest request{.version = 1,
                                .message_size = 264,
                                .ring_ref = 8,
                                .event_channel = 3,
                                .directory_ref = 9,
                                .directory_pages = 64,
                                .ring_event_idx = true};
  ASSERT_TRUE(WriteRequest(*guest_, kBus, request).ok());
  EXPECT_EQ(*ReadRequest(*backend, kBus, offer), request);
  ASSERT_TRUE(WriteState(*backend, kBus.BackendPath(), XenbusState::kConnected).ok());
  EXPECT_EQ(*ReadState(*guest_, kBus.BackendPath()), XenbusState::kConnected);
  ASSERT_TRUE(ReportBackendError(*backend, kBus, absl::InvalidArgumentError("why")).ok());
  EXPECT_EQ(*guest_->Read(kBus.BackendPath() + "/hotplug-error"), "why");
  ASSERT_TRUE(WriteState(*backend, kBus.BackendPath(), XenbusState::kClosed).ok());
  ASSERT_TRUE(RemoveBackendDirectory(*backend, kBus).ok());
  ASSERT_TRUE(RemoveBus(*dom0_, kBus).ok());
  EXPECT_TRUE(absl::IsNotFound(dom0_->Read(kBus.FrontendPath()).status()));
}

// Looks until `wanted` lines were reported. "front 3" again at once counts once: it is reported for
// each event of the frontend's state, and the first one, which every new watch gets, may only be
// seen when the state is 3 already.
std::vector<std::string> Discover(BusDiscovery& discovery, Store& store,
                                  RecordingListener& listener, std::string& last, size_t wanted) {
  std::vector<std::string> lines;
  while (lines.size() < wanted) {
    absl::StatusOr<bool> more = discovery.Process();
    if (!more.ok()) {
      ADD_FAILURE() << more.status();
      return lines;
    }
    for (std::string& line : listener.Take()) {
      if (line != last) lines.push_back(line);
      last = std::move(line);
    }
    pollfd ready{.fd = store.fd(), .events = POLLIN, .revents = 0};
    if (!*more && lines.size() < wanted && poll(&ready, 1, 60'000) != 1) {
      ADD_FAILURE() << "nothing came";
      return lines;
    }
  }
  return lines;
}

TEST_F(BusOnStoreTest, DiscoveryInADriverDomain) {
  std::unique_ptr<Store> backend = Open(3);
  RecordingListener listener;
  absl::StatusOr<std::unique_ptr<BusDiscovery>> discovery =
      BusDiscovery::Start(backend.get(), &listener, *OwnDomain(*backend));
  ASSERT_TRUE(discovery.ok()) << discovery.status();
  std::string last;
  const auto next = [&](size_t lines) {
    return Discover(**discovery, *backend, listener, last, lines);
  };
  ASSERT_TRUE(AddDevices(*dom0_, kBus, {{7, "rng", {}}}).ok());
  EXPECT_THAT(next(2), ElementsAre("appeared 5/2 front 1 ours 1", "device 5/2 7 rng{}"));
  ASSERT_TRUE(guest_->Write(kBus.FrontendPath() + "/state", "3").ok());
  EXPECT_THAT(next(1), ElementsAre("changed 5/2 front 3 ours 1"));
  ASSERT_TRUE(AddDevices(*dom0_, kBus, {{9, "blk", {{"path", "/b"}}}}).ok());
  EXPECT_THAT(next(1), ElementsAre("device 5/2 9 blk{path=/b}"));
  ASSERT_TRUE(RequestDeviceRemoval(*dom0_, kBus, 9, false).ok());
  EXPECT_THAT(next(1), ElementsAre("remove 5/2 9"));
  ASSERT_TRUE(RemoveEntry(*backend, {kBus, 9, ""}).ok());
  EXPECT_THAT(next(1), ElementsAre("device vanished 5/2 9"));
  ASSERT_TRUE(guest_->Remove(kBus.FrontendPath() + "/state").ok());
  EXPECT_THAT(next(1), ElementsAre("changed 5/2 front gone ours 1"));
  ASSERT_TRUE(guest_->Remove(kBus.FrontendPath()).ok());
  EXPECT_THAT(next(1), ElementsAre("changed 5/2 front gone ours 1 offline"));
  ASSERT_TRUE(WriteState(*backend, kBus.BackendPath(), XenbusState::kClosed).ok());
  ASSERT_TRUE(RemoveBackendDirectory(*backend, kBus).ok());
  EXPECT_THAT(next(1), ElementsAre("vanished 5/2"));
}

TEST_F(BusOnStoreTest, DiscoveryInDom0SeesADestroyedGuest) {
  std::unique_ptr<Store> backend = Open(0);
  RecordingListener listener;
  absl::StatusOr<std::unique_ptr<BusDiscovery>> discovery =
      BusDiscovery::Start(backend.get(), &listener, *OwnDomain(*backend));
  ASSERT_TRUE(discovery.ok()) << discovery.status();
  ASSERT_TRUE(AddDevices(*dom0_, {5, 0, 0}, {}).ok());
  std::string last;
  EXPECT_THAT(Discover(**discovery, *backend, listener, last, 1),
              ElementsAre("appeared 5/0 front 1 ours 1"));
  ASSERT_TRUE(dom0_->Remove("/local/domain/5").ok());
  server_.Run([](emu::store::StoreServer& store) { EXPECT_TRUE(store.ReleaseDomain(5).ok()); });
  std::vector<std::string> lines = Discover(**discovery, *backend, listener, last, 1);
  // The nodes go first, and the domain then, or both are seen at once.
  if (lines.back() != "changed 5/0 front gone ours 1 offline") {
    EXPECT_THAT(Discover(**discovery, *backend, listener, last, 1),
                ElementsAre("changed 5/0 front gone ours 1 offline"));
  }
}

TEST_F(BusOnStoreTest, GuestThatTogglesItsStateDoesNotStopATransaction) {
  std::unique_ptr<Store> backend = Open(3);
  ASSERT_TRUE(AddDevices(*dom0_, kBus, {}).ok());
  std::atomic<bool> stop = false;
  std::thread hostile([&] {
    for (int i = 0; !stop; ++i) {
      guest_->Write(kBus.FrontendPath() + "/state", i % 2 ? "3" : "1").IgnoreError();
    }
  });
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(WriteState(*backend, kBus.BackendPath(), XenbusState::kInitWait).ok());
    EXPECT_TRUE(AddDevices(*dom0_, kBus, {{static_cast<uint16_t>(i), "rng", {}}}).ok());
  }
  stop = true;
  hostile.join();
}

}  // namespace
}  // namespace vmsg::xenstore
