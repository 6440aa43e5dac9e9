// SPDX-License-Identifier: Apache-2.0
// What is left when a process or a domain dies without a word.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/contract/event_pair.h"

namespace vmsg::test {
namespace {

using grants::Access;
using grants::kPageSize;

std::vector<std::string> Words(const char* what, uint32_t domain,
                               const std::vector<uint32_t>& numbers) {
  std::vector<std::string> words = {what, absl::StrCat(domain)};
  for (const uint32_t number : numbers) words.push_back(absl::StrCat(number));
  return words;
}

TEST_P(DeathContract, KilledMapperUnmaps) {
  auto sharer = Sharer();
  auto shared = sharer->Share(xen_->backend.id, 5, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  auto peer = PeerProcess::Start(xen_->backend, Words("map", xen_->guest.id, shared->refs()));
  EXPECT_EQ(*xen_->MappingsLeft(), 5);
  peer->Kill();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

TEST_P(DeathContract, KilledSharerLeavesThePagesToTheMapper) {
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
  auto sharer = Sharer();
  auto next = sharer->Share(xen_->backend.id, 8, Access::kReadWrite);
  ASSERT_TRUE(next.ok());
  memset(next->bytes().data(), 0x22, next->bytes().size());
  EXPECT_EQ(mapping->bytes()[kPageSize], std::byte{0x11});
}

TEST_P(DeathContract, GrantsOfAKilledSharerDoNotMap) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  const std::vector<uint32_t> refs = peer->answer();
  peer->Kill();
  EXPECT_EQ(mapper->Map(xen_->guest.id, refs, Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(DeathContract, PortOfAKilledBinderIsBindableAgain) {
  auto guest = Events(xen_->guest);
  auto port = guest->AllocateUnbound(xen_->backend.id);
  ASSERT_TRUE(port.ok());
  for (int round = 0; round < 3; ++round) {
    auto peer = PeerProcess::Start(xen_->backend, Words("bind", xen_->guest.id, {*port}));
    ASSERT_TRUE(guest->Notify(*port).ok());
    peer->Kill();
    EXPECT_TRUE(guest->Notify(*port).ok());
  }
  auto backend = Events(xen_->backend);
  auto bound = backend->BindInterdomain(xen_->guest.id, *port);
  ASSERT_TRUE(bound.ok()) << bound.status();
  ASSERT_EQ(NextPort(*backend), *bound);
  ASSERT_TRUE(backend->Unmask(*bound).ok());
  ASSERT_EQ(NextPort(*backend), 0u);
  ASSERT_TRUE(guest->Notify(*port).ok());
  EXPECT_TRUE(BecomesReadable(backend->fd()));
}

TEST_P(DeathContract, PortOfAKilledAllocatorIsGone) {
  auto backend = Events(xen_->backend);
  auto peer = PeerProcess::Start(xen_->guest, Words("allocate", xen_->backend.id, {}));
  auto bound = backend->BindInterdomain(xen_->guest.id, peer->answer().at(0));
  ASSERT_TRUE(bound.ok()) << bound.status();
  peer->Kill();
  EXPECT_TRUE(backend->Notify(*bound).ok()) << "Xen reports no error here";
  EXPECT_EQ(backend->BindInterdomain(xen_->guest.id, peer->answer().at(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(DeathContract, PagesOutliveTheirDomain) {
  auto mapper = Mapper();
  auto peer = PeerProcess::Start(xen_->guest, Words("share", xen_->backend.id, {4}));
  auto mapping = mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_TRUE(xen_->DestroyGuest().ok());
  EXPECT_EQ(mapping->bytes().back(), std::byte{0x5a});
  memset(mapping->bytes().data(), 0x11, mapping->bytes().size());
  EXPECT_EQ(mapping->bytes().back(), std::byte{0x11});
  EXPECT_EQ(*xen_->MappingsLeft(), 4) << "a zombie as long as we map its pages";
  EXPECT_EQ(mapper->Map(xen_->guest.id, peer->answer(), Access::kReadWrite).status().code(),
            absl::StatusCode::kInvalidArgument);
  mapping->Reset();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
}

TEST_P(DeathContract, EventsToADestroyedDomainAreNoError) {
  auto backend = Events(xen_->backend);
  auto peer = PeerProcess::Start(xen_->guest, Words("allocate", xen_->backend.id, {}));
  auto bound = backend->BindInterdomain(xen_->guest.id, peer->answer().at(0));
  ASSERT_TRUE(bound.ok());
  ASSERT_TRUE(xen_->DestroyGuest().ok());
  EXPECT_TRUE(backend->Notify(*bound).ok());
  EXPECT_TRUE(backend->Unbind(*bound).ok());
}

TEST_P(DeathContract, DomainIsListedUntilItIsGoneAndAsDyingWhileItsPagesAreMapped) {
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
  EXPECT_FALSE(guest().has_value());
}

// A driver domain has to do without: it is told so.
TEST_P(DeathContract, DomainsAreListedForAControlDomainOnly) {
  auto domains = xen_->guest.platform->OpenDomainList();
  EXPECT_FALSE(domains.ok() && (*domains)->List().ok());
}

}  // namespace
}  // namespace vmsg::test
