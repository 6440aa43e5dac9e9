// SPDX-License-Identifier: Apache-2.0
// A peer that writes anything into the event page it shares with us.
#include <sys/mman.h>

#include <atomic>
#include <random>
#include <thread>

#include "grants/emulated/connection.h"
#include "grants/emulated/event_page.h"
#include "tests/contract/event_pair.h"
#include "tests/emulated-xen/machine_test.h"

namespace vmsg::test {
namespace {

using emu::Connection;
using emu::EventPage;
using emu::Operation;
using emu::PortReply;
using emu::PortRequest;

class HostileEventPage : public MachineTest {
 protected:
  void SetUp() override {
    Boot();
    owner_ = *dom0_platform_->OpenEventChannels();
    auto peer = Connection::Open(xen_->DomainDirectory(guest_) + "/hypervisor");
    ASSERT_TRUE(peer.ok());
    peer_ = *std::move(peer);
    ASSERT_TRUE(peer_->Call(Operation::kOpenEvents, {}).ok());
    port_ = *owner_->AllocateUnbound(guest_);
    auto reply = peer_->Call(Operation::kBindInterdomain, PortRequest{.port = port_, .remote = 0});
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_TRUE(reply->Get(0, &answer_).ok());
    void* page = mmap(nullptr, emu::kEventPageSize, PROT_READ | PROT_WRITE, MAP_SHARED,
                      reply->fds[0].get(), 0);
    ASSERT_NE(page, MAP_FAILED);
    page_ = static_cast<EventPage*>(page);
    eventfd_ = std::move(reply->fds[1]);
  }
  void TearDown() override { munmap(page_, emu::kEventPageSize); }

  std::unique_ptr<grants::EventChannels> owner_;
  std::unique_ptr<Connection> peer_;
  grants::EventPort port_ = 0;
  PortReply answer_;
  EventPage* page_ = nullptr;
  emu::OwnedFd eventfd_;
};

TEST_F(HostileEventPage, BitsOfUnboundSlotsDeliverNothing) {
  for (uint32_t slot = 0; slot < emu::kEventSlots; ++slot) {
    if (slot != answer_.peer_slot && page_->Raise(slot)) emu::SignalEventFd(eventfd_.get());
  }
  EXPECT_EQ(NextPort(*owner_), 0u);
  EXPECT_FALSE(IsReadable(owner_->fd())) << "the owner would never sleep again";
}

TEST_F(HostileEventPage, ClearedMaskDoesNotDeliverAMaskedPort) {
  page_->Raise(answer_.peer_slot);
  ASSERT_EQ(NextPort(*owner_), port_);
  for (int i = 0; i < 10; ++i) {
    page_->masked_word(answer_.peer_slot).store(0);
    if (page_->Raise(answer_.peer_slot)) emu::SignalEventFd(eventfd_.get());
    EXPECT_EQ(NextPort(*owner_), 0u);
  }
}

TEST_F(HostileEventPage, SetMaskIsUndoneByTheOwnersUnmask) {
  page_->masked_word(answer_.peer_slot).store(~uint64_t{0});
  page_->Raise(answer_.peer_slot);
  ASSERT_EQ(NextPort(*owner_), port_);
  ASSERT_TRUE(owner_->Unmask(port_).ok());
  EXPECT_TRUE(page_->Raise(answer_.peer_slot)) << "the owner is not told of the next event";
}

// Not hostile, but two peers' worth of bad timing: the port is taken between a peer's setting of
// the pending bit and its look at the mask, so that the peer writes no eventfd.
TEST_F(HostileEventPage, EventTakenBeforeItsEventfdWriteLosesNoLaterOne) {
  page_->pending_word(answer_.peer_slot).fetch_or(EventPage::Bit(answer_.peer_slot));
  ASSERT_FALSE(IsReadable(owner_->fd()));
  ASSERT_EQ(NextPort(*owner_), port_);
  EXPECT_FALSE(page_->Raise(answer_.peer_slot)) << "masked: the peer leaves it to Unmask";
  ASSERT_TRUE(owner_->Unmask(port_).ok());
  EXPECT_TRUE(IsReadable(owner_->fd())) << "a second event is pending and nobody is told";
  EXPECT_EQ(NextPort(*owner_), port_);
}

TEST_F(HostileEventPage, EventfdWithoutAnEventIsHarmless) {
  for (int i = 0; i < 100; ++i) {
    emu::SignalEventFd(eventfd_.get());
    EXPECT_EQ(NextPort(*owner_), 0u);
  }
  EXPECT_FALSE(IsReadable(owner_->fd()));
}

TEST_F(HostileEventPage, AFullEventfdHoldsNobodyUp) {
  const uint64_t most = ~uint64_t{1};
  ASSERT_EQ(write(eventfd_.get(), &most, sizeof(most)), static_cast<ssize_t>(sizeof(most)));
  emu::SignalEventFd(eventfd_.get());
  page_->Raise(answer_.peer_slot);
  EXPECT_EQ(NextPort(*owner_), port_);
  ASSERT_TRUE(owner_->Unmask(port_).ok());
  EXPECT_EQ(NextPort(*owner_), 0u);
  EXPECT_FALSE(IsReadable(owner_->fd()));
}

TEST_F(HostileEventPage, ScribblingCausesOnlySpuriousEvents) {
  std::atomic<bool> stop = false;
  std::atomic<int> rounds = 0;
  std::thread scribbler([&] {
    std::mt19937_64 random(7);
    auto* words = reinterpret_cast<uint64_t*>(page_);
    while (!stop) {
      std::atomic_ref<uint64_t>(words[random() % (sizeof(EventPage) / 8)]).store(random());
      if (random() % 8 == 0) emu::SignalEventFd(eventfd_.get());
      ++rounds;
    }
  });
  while (rounds < 20'000) {
    for (int i = 0; i < 100; ++i) {
      const grants::EventPort pending = NextPort(*owner_);
      if (pending == 0) break;
      EXPECT_EQ(pending, port_);
      ASSERT_TRUE(owner_->Unmask(pending).ok());
    }
  }
  stop = true;
  scribbler.join();
  // The owner's other peers are served on.
  auto honest = *guest_platform_->OpenEventChannels();
  auto port = owner_->AllocateUnbound(guest_);
  ASSERT_TRUE(port.ok());
  auto bound = honest->BindInterdomain(0, *port);
  ASSERT_TRUE(bound.ok());
  ASSERT_TRUE(owner_->Notify(*port).ok());
  EXPECT_TRUE(BecomesReadable(honest->fd()));
}

}  // namespace
}  // namespace vmsg::test
