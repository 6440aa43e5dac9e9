// SPDX-License-Identifier: Apache-2.0
// 100,000 connections of a few guests: what a connection leaves behind, if it is only a page, ends
// a host (XSA-361 to 367, 371). Mapping, event channel, session, devices and the way back are the
// service's, on I/O threads; only the states in xenstore are left out (service_cycles_test).
#include <gtest/gtest.h>

#include <deque>
#include <latch>
#include <memory>
#include <string>
#include <utility>

#include "backend/session/session.h"
#include "backend/session/worker_window_mapper.h"
#include "tests/devices/temp_dir.h"
#include "tests/scale/connecting_guest.h"
#include "tests/scale/held_resources.h"

namespace vmsg::testing {
namespace {

constexpr size_t kGuests = 4;
constexpr uint32_t kBudget = 2 * ConnectingGuest::kWindowPages;

class SilentListener final : public backend::SessionListener {
 public:
  void OnSessionBroken(const absl::Status& why) override { ADD_FAILURE() << why; }
  void OnRemoval(uint16_t, backend::RemovalStage) override {}
};

// What the cycles of all guests share, as they do in the service.
struct Host {
  std::unique_ptr<grants::Platform> platform;
  std::unique_ptr<grants::GrantMapper> mapper;
  backend::WorkerPool workers;
  std::shared_ptr<backend::RateLimitedLog> log =
      std::make_shared<backend::RateLimitedLog>("guest: ");
};

// One guest's connections, one after the other, on an I/O thread.
class Cycles {
 public:
  Cycles(test::EmulatedXen& xen, Host& host, const std::string& image)
      : host_(host),
        guest_(xen),
        thread_(
            *backend::IoThread::Start(*host.platform->OpenEventChannels(), {absl::ZeroDuration()})),
        disk_(*backend::OpenDevice(
            {.number = 0, .type = "blk", .keys = {{"path", image}, {"readonly", "1"}}})) {}
  ~Cycles() { backend::CloseDevice(std::move(disk_)); }

  // Until there were this many, in all; `rested` then.
  void RunUntil(size_t cycles, std::latch* rested) {
    thread_->loop().Post([this, cycles, rested] {
      wanted_ = cycles;
      rested_ = rested;
      Next();
    });
  }

  const ConnectingGuest& guest() const { return guest_; }
  // While it rests.
  size_t done() const { return done_; }
  size_t answered() const { return answered_; }
  uint32_t budget_left() const { return budget_->left(); }

 private:
  void Next() {
    if (done_ < wanted_ && !::testing::Test::HasFatalFailure()) {
      Connect();
      if (!::testing::Test::HasFatalFailure()) return;
    }
    rested_->count_down();
  }
  void Connect() {
    guest_.StartOver();
    backend::Session::Parts parts;
    parts.loop = &thread_->loop();
    parts.environment = thread_->environment();
    auto ring = backend::MapRing(*host_.mapper, guest_.domain(), guest_.ring_ref(),
                                 backend::RingLimits::kMaxOrder, budget_);
    ASSERT_TRUE(ring.ok()) << ring.status();
    parts.ring = *std::move(ring);
    auto window = backend::MapWindowPages(*host_.mapper, guest_.domain(), guest_.directory_ref(),
                                          ConnectingGuest::kWindowPages, budget_);
    ASSERT_TRUE(window.ok()) << window.status();
    parts.window = *std::move(window);
    auto port = thread_->Bind(guest_.domain(), guest_.port());
    ASSERT_TRUE(port.ok()) << port.status();
    parts.port = *std::move(port);
    parts.mapper = backend::NewWorkerWindowMapper({.workers = host_.workers,
                                                   .lane = guest_.domain(),
                                                   .mapper = *host_.mapper,
                                                   .frontend = guest_.domain(),
                                                   .budget = budget_,
                                                   .loop = thread_->loop()});
    parts.listener = std::make_unique<SilentListener>();
    parts.log = host_.log;
    auto session = backend::Session::Start(
        std::move(parts),
        {.name = "guest", .suppression = true, .max_window_pages = ConnectingGuest::kWindowPages});
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    auto disk = disk_.Duplicate();
    ASSERT_TRUE(disk.ok()) << disk.status();
    ASSERT_TRUE(session_->AddDevice(*std::move(disk), false).ok());
    ASSERT_TRUE(session_->AddDevice({.number = 1, .type = "rng"}, false).ok());
    // After the session's first turn.
    thread_->loop().Post([this] { Disconnect(); });
  }
  void Disconnect() {
    if (guest_.Answered()) ++answered_;
    session_->Close([this](backend::SessionRemains remains) {
      thread_->loop().Post([this, remains = std::move(remains)]() mutable {
        session_.reset();
        remains = backend::SessionRemains();
        ++done_;
        Next();
      });
    });
  }

  Host& host_;
  ConnectingGuest guest_;
  std::unique_ptr<backend::IoThread> thread_;
  backend::OpenedDevice disk_;
  const std::shared_ptr<backend::PageBudget> budget_ =
      std::make_shared<backend::PageBudget>(kBudget);
  std::unique_ptr<backend::Session> session_;
  std::latch* rested_ = nullptr;
  size_t wanted_ = 0, done_ = 0, answered_ = 0;
};

class SessionCyclesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto xen = test::EmulatedXen::Start();
    ASSERT_TRUE(xen.ok()) << xen.status();
    xen_ = *std::move(xen);
    host_.platform = *xen_->OpenPlatform(0);
    host_.mapper = *host_.platform->OpenGrantMapper();
    const std::string image = dir_.File("disk", 65536);
    for (size_t i = 0; i < kGuests; ++i) guests_.emplace_back(*xen_, host_, image);
  }
  void RunUntil(size_t cycles) {
    std::latch rested(kGuests);
    for (Cycles& guest : guests_) guest.RunUntil(cycles, &rested);
    rested.wait();
  }

  TempDir dir_;
  std::unique_ptr<test::EmulatedXen> xen_;
  Host host_;
  std::deque<Cycles> guests_;
};

TEST_F(SessionCyclesTest, HundredThousandConnectionsLeaveNothingBehind) {
  const size_t cycles = Repetitions(100'000) / kGuests;
  RunUntil(cycles / 20);
  const HeldResources before = HeldResources::OfThisProcess();
  const size_t emulation_before = ResidentBytes(xen_->pid());
  RunUntil(cycles);
  HeldResources::OfThisProcess().ExpectNoMoreThan(before);
  if (!kSanitized) {
    EXPECT_LE(ResidentBytes(xen_->pid()), emulation_before + (size_t{4} << 20));
  }
  for (const Cycles& one : guests_) {
    EXPECT_EQ(one.done(), cycles);
    EXPECT_EQ(one.answered(), cycles) << "each connection was served";
    EXPECT_EQ(one.budget_left(), kBudget);
    const auto counts = xen_->DomainCounts(one.guest().domain());
    ASSERT_TRUE(counts.ok());
    EXPECT_EQ(counts->pinned, 0) << "pages of the guest are still mapped";
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
