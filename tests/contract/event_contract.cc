// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <map>
#include <thread>

#include "tests/contract/event_pair.h"

namespace vmsg::test {
namespace {

using grants::EventPort;

TEST_P(EventContract, BindingDeliversOneSpuriousEventToTheBinder) {
  auto guest = Events(xen_->guest);
  auto backend = Events(xen_->backend);
  auto port = guest->AllocateUnbound(xen_->backend.id);
  ASSERT_TRUE(port.ok());
  auto bound = backend->BindInterdomain(xen_->guest.id, *port);
  ASSERT_TRUE(bound.ok());
  EXPECT_TRUE(BecomesReadable(backend->fd()));
  EXPECT_EQ(NextPort(*backend), *bound);
  ASSERT_TRUE(backend->Unmask(*bound).ok());
  EXPECT_EQ(NextPort(*backend), 0u);
  EXPECT_EQ(NextPort(*guest), 0u);
}

TEST_P(EventContract, RefusesToBindWhatIsNotThere) {
  auto guest = Events(xen_->guest);
  auto backend = Events(xen_->backend);
  EXPECT_EQ(backend->BindInterdomain(xen_->guest.id, 100'000).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->BindInterdomain(0x7000, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(EventContract, RefusesToBindAPortForAnotherDomain) {
  auto guest = Events(xen_->guest);
  auto backend = Events(xen_->backend);
  auto port = guest->AllocateUnbound(xen_->backend.id + 1000);
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_EQ(backend->BindInterdomain(xen_->guest.id, *port).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(EventContract, NotifyBeforeAnybodyBoundIsNoError) {
  auto guest = Events(xen_->guest);
  auto port = guest->AllocateUnbound(xen_->backend.id);
  ASSERT_TRUE(port.ok());
  EXPECT_TRUE(guest->Notify(*port).ok());
}

TEST_P(EventContract, PortsOfTheHandleOnly) {
  auto guest = Events(xen_->guest);
  auto other = Events(xen_->guest);
  auto port = other->AllocateUnbound(xen_->backend.id);
  ASSERT_TRUE(port.ok());
  EXPECT_FALSE(guest->Unbind(*port).ok());
  // Linux's driver takes any port; this handle has none to unmask.
  EXPECT_TRUE(guest->Unmask(*port).ok());
}

TEST_P(EventPairContract, EventsGoBothWays) {
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  EXPECT_TRUE(BecomesReadable(backend_->fd()));
  EXPECT_EQ(NextPort(*backend_), backend_port_);
  ASSERT_TRUE(backend_->Notify(backend_port_).ok());
  EXPECT_TRUE(BecomesReadable(guest_->fd()));
  EXPECT_EQ(NextPort(*guest_), guest_port_);
}

TEST_P(EventPairContract, RefusesToBindTwice) {
  EXPECT_EQ(backend_->BindInterdomain(xen_->guest.id, guest_port_).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(EventPairContract, MaskedUntilUnmasked) {
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  ASSERT_TRUE(BecomesReadable(backend_->fd()));
  ASSERT_EQ(NextPort(*backend_), backend_port_);
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  EXPECT_EQ(NextPort(*backend_), 0u) << "delivered although masked";
  EXPECT_FALSE(IsReadable(backend_->fd()));
  ASSERT_TRUE(backend_->Unmask(backend_port_).ok());
  EXPECT_TRUE(BecomesReadable(backend_->fd())) << "what arrived while masked is lost";
  EXPECT_EQ(NextPort(*backend_), backend_port_);
}

TEST_P(EventPairContract, ManyNotificationsAreOneEventOrTwo) {
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  // The first may have been taken from Xen before the last was sent: those after it are a second.
  int events = 0;
  ASSERT_TRUE(BecomesReadable(backend_->fd()));
  while (IsReadable(backend_->fd())) {
    if (NextPort(*backend_) == 0) continue;  // told again of what was taken already
    ASSERT_TRUE(backend_->Unmask(backend_port_).ok());
    ASSERT_LE(++events, 2);
  }
  EXPECT_GE(events, 1);
}

TEST_P(EventPairContract, ReadableAsLongAsAnEventIsNotTaken) {
  EXPECT_FALSE(IsReadable(backend_->fd()));
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(BecomesReadable(backend_->fd()));
  ASSERT_EQ(NextPort(*backend_), backend_port_);
  EXPECT_FALSE(IsReadable(backend_->fd())) << "whoever waits would wake once more for nothing";
  ASSERT_EQ(NextPort(*backend_), 0u);
  EXPECT_FALSE(IsReadable(backend_->fd()));
  ASSERT_TRUE(backend_->Unmask(backend_port_).ok());
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  EXPECT_TRUE(BecomesReadable(backend_->fd()));
}

TEST_P(EventPairContract, PeerCloseMakesThePortBindableAgain) {
  ASSERT_TRUE(backend_->Unbind(backend_port_).ok());
  EXPECT_TRUE(guest_->Notify(guest_port_).ok()) << "Xen reports no error here";
  BindBackend();
  ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  EXPECT_TRUE(BecomesReadable(backend_->fd()));
  EXPECT_EQ(NextPort(*backend_), backend_port_);
  ASSERT_TRUE(backend_->Notify(backend_port_).ok());
  EXPECT_TRUE(BecomesReadable(guest_->fd()));
}

TEST_P(EventPairContract, ClosingTheHandleClosesItsPorts) {
  backend_.reset();
  EXPECT_TRUE(guest_->Notify(guest_port_).ok());
  backend_ = Events(xen_->backend);
  BindBackend();
}

TEST_P(EventPairContract, NotifyAfterTheAllocatorClosedIsNoError) {
  ASSERT_TRUE(guest_->Unbind(guest_port_).ok());
  EXPECT_TRUE(backend_->Notify(backend_port_).ok());
  EXPECT_EQ(NextPort(*guest_), 0u);
  EXPECT_FALSE(guest_->Notify(guest_port_).ok()) << "not a port of the handle any more";
  EXPECT_TRUE(backend_->Unbind(backend_port_).ok());
}

TEST_P(EventPairContract, NoPortIsStarvedByABusyOne) {
  std::map<EventPort, EventPort> guest_of = {{backend_port_, guest_port_}};
  for (int i = 0; i < 99; ++i) {
    auto port = guest_->AllocateUnbound(xen_->backend.id);
    ASSERT_TRUE(port.ok());
    auto bound = backend_->BindInterdomain(xen_->guest.id, *port);
    ASSERT_TRUE(bound.ok());
    guest_of[*bound] = *port;
  }
  for (const auto& [bound, port] : guest_of) ASSERT_TRUE(guest_->Notify(port).ok());
  ASSERT_TRUE(BecomesReadable(backend_->fd()));
  std::map<EventPort, int> seen;
  // The first port raised again at every turn: the others still come, each before a second round.
  for (size_t i = 0; i < 2 * guest_of.size() && seen.size() < guest_of.size(); ++i) {
    const EventPort port = NextPort(*backend_);
    if (port == 0) break;
    ++seen[port];
    ASSERT_TRUE(backend_->Unmask(port).ok());
    ASSERT_TRUE(guest_->Notify(guest_port_).ok());
  }
  EXPECT_EQ(seen.size(), guest_of.size());
}

TEST_P(EventPairContract, ThreadsNotifyAndTheLastEventIsNeverLost) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 2000;
  std::atomic<int> sent = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        ++sent;
        guest_->Notify(guest_port_).IgnoreError();
      }
    });
  }
  // What was sent is looked at only after an event, as a ring is.
  int seen = 0;
  while (seen < kThreads * kRounds) {
    ASSERT_TRUE(BecomesReadable(backend_->fd())) << "stuck at " << seen;
    while (NextPort(*backend_) != 0) {
      seen = sent;
      ASSERT_TRUE(backend_->Unmask(backend_port_).ok());
    }
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(EventContract, TwoProcessesPlayPingPong) {
  auto guest = Events(xen_->guest);
  auto port = guest->AllocateUnbound(xen_->backend.id);
  ASSERT_TRUE(port.ok());
  auto peer = PeerProcess::Start(xen_->backend,
                                 {"echo", std::to_string(xen_->guest.id), std::to_string(*port)});
  // The peer answers its spurious first event too: it counts as the first ball.
  for (int round = 0; round < 5000; ++round) {
    ASSERT_TRUE(BecomesReadable(guest->fd())) << round;
    const EventPort pending = NextPort(*guest);
    if (pending == 0) continue;  // told again of what was taken already
    ASSERT_EQ(pending, *port);
    ASSERT_TRUE(guest->Unmask(*port).ok());
    ASSERT_TRUE(guest->Notify(*port).ok());
  }
}

}  // namespace
}  // namespace vmsg::test
