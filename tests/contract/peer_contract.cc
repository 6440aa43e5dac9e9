// SPDX-License-Identifier: Apache-2.0
// What holds between two domains that share nothing but Xen: the guest's side is a program in it.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/contract/event_pair.h"

namespace vmsg::test {
namespace {

using grants::Access;
using grants::EventPort;
using grants::kPageSize;

// Xen frees a dead domain in its own time.
bool Soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 2000; ++i) {
    if (holds()) return true;
    usleep(10'000);
  }
  return false;
}

bool MapIsRefusedSoon(grants::GrantMapper& mapper, grants::DomainId domain,
                      const std::vector<uint32_t>& refs) {
  return Soon([&] {
    return mapper.Map(domain, refs, Access::kReadWrite).status().code() ==
           absl::StatusCode::kInvalidArgument;
  });
}

TEST_P(PeerContract, MapsWhatTheGuestShares) {
  auto mapper = Mapper();
  constexpr uint32_t kPages = 1000;
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {kPages}));
  ASSERT_EQ(peer->answer().size(), kPages);
  auto mapping = mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_TRUE(std::all_of(mapping->bytes().begin(), mapping->bytes().end(),
                          [](std::byte byte) { return byte == std::byte{0x5a}; }));
  EXPECT_EQ(*xen_->MappingsLeft(), kPages);
  mapping->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

TEST_P(PeerContract, TheGuestAnswersEveryEvent) {
  auto backend = Events(xen_->backend);
  auto port = backend->AllocateUnbound(xen_->guest.id);
  ASSERT_TRUE(port.ok()) << port.status();
  auto peer = PeerProcess::Start(xen_->guest, Words("echo", xen_->backend.id, {*port}));
  // It answers the spurious event of its binding too: that is the first ball.
  for (int round = 0; round < 1000; ++round) {
    ASSERT_TRUE(BecomesReadable(backend->fd())) << round;
    const EventPort pending = NextPort(*backend);
    if (pending == 0) continue;  // told again of what was taken already
    ASSERT_EQ(pending, *port);
    ASSERT_TRUE(backend->Unmask(*port).ok());
    ASSERT_TRUE(backend->Notify(*port).ok());
  }
}

TEST_P(PeerContract, KilledSharerLeavesThePagesToTheMapper) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  ASSERT_EQ(peer->answer().size(), 4u);
  auto mapping = mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  peer->Kill();
  EXPECT_EQ(mapping->bytes().back(), std::byte{0x5a});
  memset(mapping->bytes().data(), 0x11, mapping->bytes().size());
  EXPECT_EQ(mapping->bytes()[kPageSize], std::byte{0x11});
  // Another process of the guest gets other pages.
  auto next = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {8}));
  EXPECT_EQ(mapping->bytes()[kPageSize], std::byte{0x11});
}

TEST_P(PeerContract, GrantsOfAKilledSharerDoNotMap) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  const std::vector<uint32_t> refs = peer->answer();
  peer->Kill();
  EXPECT_EQ(mapper->Map(xen_->guest.id, refs, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(PeerContract, PortOfAKilledAllocatorIsGone) {
  auto backend = Events(xen_->backend);
  auto peer = PeerProcess::Start(xen_->guest, Words("allocate", xen_->backend.id, {}));
  auto bound = backend->BindInterdomain(xen_->guest.id, peer->answer().at(0));
  ASSERT_TRUE(bound.ok()) << bound.status();
  peer->Kill();
  EXPECT_TRUE(backend->Notify(*bound).ok()) << "Xen reports no error here";
  EXPECT_EQ(backend->BindInterdomain(xen_->guest.id, peer->answer().at(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(PeerContract, PagesOutliveTheirDomain) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  auto mapping = mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_TRUE(xen_->DestroyGuest().ok());
  EXPECT_EQ(mapping->bytes().back(), std::byte{0x5a});
  memset(mapping->bytes().data(), 0x11, mapping->bytes().size());
  EXPECT_EQ(mapping->bytes().back(), std::byte{0x11});
  EXPECT_EQ(*xen_->MappingsLeft(), 4) << "a zombie as long as we map its pages";
  // Its grants are what they were, too: whoever maps more of them keeps it longer.
  EXPECT_TRUE(mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite).ok());
  EXPECT_EQ(*xen_->MappingsLeft(), 4);
  mapping->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
  EXPECT_TRUE(MapIsRefusedSoon(*mapper, xen_->guest.id, peer->answer()));
}

TEST_P(PeerContract, EventsToADestroyedDomainAreNoError) {
  auto backend = Events(xen_->backend);
  auto peer = PeerProcess::Start(xen_->guest, Words("allocate", xen_->backend.id, {}));
  auto bound = backend->BindInterdomain(xen_->guest.id, peer->answer().at(0));
  ASSERT_TRUE(bound.ok());
  ASSERT_TRUE(xen_->DestroyGuest().ok());
  EXPECT_TRUE(backend->Notify(*bound).ok());
  EXPECT_TRUE(backend->Unbind(*bound).ok());
}

TEST_P(PeerContract, DomainIsListedUntilItIsGoneAndAsDyingWhileItsPagesAreMapped) {
  auto domains = xen_->backend.platform->OpenDomainList();
  ASSERT_TRUE(domains.ok()) << domains.status();
  const auto guest = [&]() -> std::optional<grants::DomainInfo> {
    auto listed = (*domains)->List();
    EXPECT_TRUE(listed.ok()) << listed.status();
    for (size_t i = 1; i < listed->size(); ++i) EXPECT_LT((*listed)[i - 1].id, (*listed)[i].id);
    const auto found = std::find_if(listed->begin(), listed->end(), [&](const auto& domain) {
      return domain.id == xen_->guest.id;
    });
    return found == listed->end() ? std::nullopt : std::optional(*found);
  };
  ASSERT_TRUE(guest().has_value());
  EXPECT_FALSE(guest()->dying || guest()->shut_down);
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  auto mapping = mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_TRUE(xen_->DestroyGuest().ok());
  ASSERT_TRUE(guest().has_value());
  EXPECT_TRUE(guest()->dying);
  mapping->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
  EXPECT_TRUE(Soon([&] { return !guest().has_value(); }));
}

}  // namespace
}  // namespace vmsg::test
