// SPDX-License-Identifier: Apache-2.0
// Guests that connect and disconnect, side by side, through states, workers, I/O thread and back:
// as session_cycles_test, with fewer of them and the service's control of a bus on top. The store
// is one in memory, because it is not what is looked at and would be most of the time.
#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <deque>
#include <latch>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/bus_control.h"
#include "tests/devices/temp_dir.h"
#include "tests/scale/connecting_guest.h"
#include "tests/scale/held_resources.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::testing {
namespace {

using xenstore::XenbusState;

constexpr int kGuests = 4;
constexpr uint32_t kBudget = 2 * ConnectingGuest::kWindowPages;

struct Guest {
  std::unique_ptr<ConnectingGuest> pages;
  xenstore::BusAddress bus;
  xenstore::BusView view{.ours = XenbusState::kInitialising,
                         .frontend = XenbusState::kInitialising};
  std::shared_ptr<backend::PageBudget> budget = std::make_shared<backend::PageBudget>(kBudget);
  std::unique_ptr<backend::BusControl> control;
  size_t cycles = 0;
  size_t answers = 0;
};

class ServiceCyclesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend::SetLogging(backend::LogLevel::kError, backend::LogStyle::kPlain);
    auto xen = test::EmulatedXen::Start();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    platform_ = *xen_->OpenPlatform(0);
    mapper_ = *platform_->OpenGrantMapper();
    loop_ = backend::NewEpollLoop({absl::ZeroDuration()});
    thread_ = *backend::IoThread::Start(*platform_->OpenEventChannels(), {absl::ZeroDuration()});
    workers_ = std::make_unique<backend::WorkerPool>();
    store_ = tree_.Connect(0);
    observer_ = tree_.Connect(0);
    services_.trace = std::make_shared<backend::Trace>();
    services_.store = store_.get();
    services_.loop = loop_.get();
    services_.workers = workers_.get();
    services_.mapper = mapper_.get();
    services_.offer.max_message_size = wire::kMaxMessageSize;
    services_.offer.max_window_pages = kBudget;
    services_.offer.max_ring_order = backend::RingLimits::kMaxOrder;
    services_.choose_thread = [this] { return thread_.get(); };
    image_ = dir_.File("disk", 65536);
    for (int i = 0; i < kGuests; ++i) ASSERT_NO_FATAL_FAILURE(AddGuest());
    ASSERT_TRUE(loop_->Watch(observer_->fd(), EPOLLIN, [this](uint32_t) { Observe(); }).ok());
  }
  void TearDown() override {
    loop_->Unwatch(observer_->fd());
    for (Guest& guest : guests_) guest.control.reset();
    workers_.reset();
    thread_.reset();
  }

  void AddGuest() {
    Guest& guest = guests_.emplace_back();
    guest.pages = std::make_unique<ConnectingGuest>(*xen_);
    const grants::DomainId domain = guest.pages->domain();
    tree_.CreateDomain(domain, absl::StrCat("g", domain));
    guest.bus = {.frontend = domain, .backend = 0, .id = 0};
    const std::vector<xenstore::DeviceNodesToWrite> devices = {
        {.number = 0, .type = "blk", .keys = {{"path", image_}, {"readonly", "1"}}},
        {.number = 1, .type = "rng"}};
    ASSERT_TRUE(xenstore::AddDevices(*store_, guest.bus, devices).ok());
    guest.control =
        std::make_unique<backend::BusControl>(services_, guest.bus, guest.budget, [] {});
    ASSERT_TRUE(observer_->Watch(absl::StrCat(guest.bus.BackendPath(), "/state"), "state").ok());
    ASSERT_TRUE(xenstore::WriteRequest(*store_, guest.bus, Request(guest)).ok());
    loop_->Post([&guest, devices] {
      guest.control->Reappear(guest.view);
      for (const auto& device : devices) {
        guest.control->AddDevice(
            {.number = device.number, .type = device.type, .keys = device.keys});
      }
    });
  }

  static xenstore::FrontendRequest Request(const Guest& guest) {
    return {.version = 1,
            .message_size = wire::kMaxMessageSize,
            .ring_ref = guest.pages->ring_ref(),
            .event_channel = guest.pages->port(),
            .directory_ref = guest.pages->directory_ref(),
            .directory_pages = ConnectingGuest::kWindowPages,
            .ring_event_idx = true};
  }

  // On the loop: each guest moves on as its backend does.
  void Observe() {
    auto events = observer_->TakeWatchEvents(1000);
    ASSERT_TRUE(events.ok());
    for (Guest& guest : guests_) {
      const std::string state = tree_.Value(absl::StrCat(guest.bus.BackendPath(), "/state"));
      const auto now = xenstore::ParseState(state).value_or(XenbusState::kUnknown);
      if (now == std::exchange(guest.view.ours, now)) continue;
      Follow(guest, now);
    }
  }
  void Follow(Guest& guest, XenbusState backend) {
    switch (backend) {
      case XenbusState::kInitWait:
        if (guest.cycles == wanted_) {
          ++resting_;
          MaybeStop();
          return;
        }
        guest.pages->StartOver();
        return Frontend(guest, XenbusState::kInitialised);
      case XenbusState::kConnected:
        // Taken before 4 was written: the session had its first turn.
        if (guest.pages->Answered()) ++guest.answers;
        Frontend(guest, XenbusState::kConnected);
        return Frontend(guest, XenbusState::kClosing);
      case XenbusState::kClosing:
        return Frontend(guest, XenbusState::kClosed);
      case XenbusState::kClosed:
        ++guest.cycles;
        return Frontend(guest, XenbusState::kInitialising);
      default:
        return;
    }
  }
  void Frontend(Guest& guest, XenbusState state) {
    guest.view.frontend = state;
    tree_.Set(absl::StrCat(guest.bus.FrontendPath(), "/state"), xenstore::StateText(state));
    guest.control->Update(guest.view);
  }
  void MaybeStop() {
    if (resting_ == kGuests) loop_->Stop();
  }
  // Until each guest has been through this many connections, in all, and rests.
  void RunUntil(size_t cycles) {
    wanted_ = cycles;
    resting_ = 0;
    for (Guest& guest : guests_) {
      // From state 2, which it rests in.
      if (guest.view.ours != XenbusState::kInitWait) continue;
      loop_->Post([&guest, this] {
        if (guest.view.ours == XenbusState::kInitWait) Follow(guest, XenbusState::kInitWait);
      });
    }
    loop_->Run();
    // State 2 does not wait for a worker that closes the last connection's files.
    std::latch closed(kGuests);
    for (const Guest& guest : guests_) {
      workers_->Submit(backend::BusControl::OpeningLane(guest.bus),
                       [&closed] { closed.count_down(); });
    }
    closed.wait();
  }

  TempDir dir_;
  std::string image_;
  std::unique_ptr<test::EmulatedXen> xen_;
  std::unique_ptr<grants::Platform> platform_;
  std::unique_ptr<grants::GrantMapper> mapper_;
  xenstore::MemoryTree tree_;
  std::unique_ptr<xenstore::MemoryStore> store_, observer_;
  std::unique_ptr<backend::ThreadLoop> loop_;
  std::unique_ptr<backend::IoThread> thread_;
  std::unique_ptr<backend::WorkerPool> workers_;
  backend::BusServices services_;
  std::deque<Guest> guests_;
  size_t wanted_ = 0;
  int resting_ = 0;
};

TEST_F(ServiceCyclesTest, ThousandsOfConnectionsLeaveNothingBehind) {
  const size_t cycles = Repetitions(4'000) / kGuests;
  RunUntil(cycles / 4);
  const HeldResources before = HeldResources::OfThisProcess();
  RunUntil(cycles);
  HeldResources::OfThisProcess().ExpectNoMoreThan(before);

  for (Guest& guest : guests_) {
    EXPECT_EQ(guest.cycles, cycles);
    EXPECT_EQ(guest.answers, cycles) << "each connection was served";
    EXPECT_EQ(guest.budget->left(), kBudget);
    const auto counts = xen_->DomainCounts(guest.bus.frontend);
    ASSERT_TRUE(counts.ok());
    EXPECT_EQ(counts->pinned, 0) << "pages of it are still mapped";
    EXPECT_EQ(counts->grants, ConnectingGuest::kGrants);
    EXPECT_EQ(counts->bound, 0);
  }
  const auto dom0 = xen_->DomainCounts(0);
  ASSERT_TRUE(dom0.ok());
  EXPECT_EQ(dom0->maps, 0);
  EXPECT_EQ(dom0->ports, 0);
}

}  // namespace
}  // namespace vmsg::testing
