// SPDX-License-Identifier: Apache-2.0
// What is left when a process dies without a word.
#include <string>

#include "tests/contract/event_pair.h"

namespace vmsg::test {
namespace {

using grants::Access;

TEST_P(DeathContract, KilledMapperUnmaps) {
  auto sharer = Sharer();
  auto shared = sharer->Share(xen_->backend.id, 5, Access::kReadWrite);
  ASSERT_TRUE(shared.ok());
  auto peer = PeerProcess::Start(xen_->backend, Words("map", xen_->guest.id, shared->refs()));
  EXPECT_EQ(*xen_->MappingsLeft(), 5);
  peer->Kill();
  EXPECT_EQ(*xen_->MappingsLeft(), 0);
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
  ASSERT_TRUE(BecomesReadable(backend->fd()));
  ASSERT_EQ(NextPort(*backend), *bound);
  ASSERT_TRUE(backend->Unmask(*bound).ok());
  ASSERT_EQ(NextPort(*backend), 0u);
  ASSERT_TRUE(guest->Notify(*port).ok());
  EXPECT_TRUE(BecomesReadable(backend->fd()));
}

// A driver domain has to do without: it is told so.
TEST_P(DeathContract, DomainsAreListedForAControlDomainOnly) {
  auto domains = xen_->guest.platform->OpenDomainList();
  EXPECT_FALSE(domains.ok() && (*domains)->List().ok());
}

}  // namespace
}  // namespace vmsg::test
