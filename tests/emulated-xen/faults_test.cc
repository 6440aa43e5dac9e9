// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <array>
#include <thread>

#include "tests/contract/event_pair.h"
#include "tests/emulated-xen/machine_test.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using grants::Access;
using ::testing::HasSubstr;

class Faults : public MachineTest {
 protected:
  void SetUp() override { Boot(); }
  void Inject(const std::vector<std::string>& fault) {
    auto result = xen_->Fault(fault);
    ASSERT_TRUE(result.ok()) << result.status();
  }
  std::string Guest() const { return std::to_string(guest_); }
};

TEST_F(Faults, MapFailsAtTheEntryAsOftenAsAsked) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 5, Access::kReadWrite);
  for (int entry = 0; entry < 5; ++entry) {
    Inject({"map-fail", Guest(), std::to_string(entry)});
    const absl::Status status = mapper->Map(guest_, shared->refs(), Access::kReadWrite).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("entry " + std::to_string(entry)));
    EXPECT_EQ(xen_->DomainCounts(guest_)->pinned, 0);
    EXPECT_TRUE(mapper->Map(guest_, shared->refs(), Access::kReadWrite).ok());
  }
}

TEST_F(Faults, MapFailAlsoStrikesACopy) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 1, Access::kReadOnly);
  std::array<std::byte, grants::kPageSize> page;
  Inject({"map-fail", Guest(), "0"});
  const absl::Status status = mapper->Copy(guest_, shared->refs()[0], page);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_TRUE(mapper->Copy(guest_, shared->refs()[0], page).ok());
}

TEST_F(Faults, MapFailLeavesShorterRequestsAndOtherDomainsAlone) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 5, Access::kReadWrite);
  auto other = xen_->CreateDomain("other");
  auto other_sharer = *Platform(*other)->OpenGrantSharer();
  auto other_shared = other_sharer->Share(0, 5, Access::kReadWrite);
  Inject({"map-fail", Guest(), "4", "2"});
  EXPECT_TRUE(mapper->Map(guest_, {shared->refs()[0]}, Access::kReadWrite).ok());
  EXPECT_TRUE(mapper->Map(*other, other_shared->refs(), Access::kReadWrite).ok());
  EXPECT_FALSE(mapper->Map(guest_, shared->refs(), Access::kReadWrite).ok());
  EXPECT_FALSE(mapper->Map(guest_, shared->refs(), Access::kReadWrite).ok());
  EXPECT_TRUE(mapper->Map(guest_, shared->refs(), Access::kReadWrite).ok());
}

TEST_F(Faults, ShareFails) {
  auto sharer = Sharer();
  Inject({"share-fail", Guest(), "2"});
  EXPECT_FALSE(sharer->Share(0, 1, Access::kReadWrite).ok());
  EXPECT_FALSE(sharer->Share(0, 1, Access::kReadWrite).ok());
  EXPECT_TRUE(sharer->Share(0, 1, Access::kReadWrite).ok());
}

TEST_F(Faults, BindFailsAndThePortStaysBindable) {
  auto guest = *guest_platform_->OpenEventChannels();
  auto backend = *dom0_platform_->OpenEventChannels();
  auto port = guest->AllocateUnbound(0);
  Inject({"bind-fail", "0"});
  EXPECT_FALSE(backend->BindInterdomain(guest_, *port).ok());
  EXPECT_TRUE(backend->BindInterdomain(guest_, *port).ok());
}

TEST_F(Faults, EventsAreLostAsManyAsAsked) {
  auto guest = *guest_platform_->OpenEventChannels();
  auto backend = *dom0_platform_->OpenEventChannels();
  auto port = guest->AllocateUnbound(0);
  auto bound = backend->BindInterdomain(guest_, *port);
  ASSERT_TRUE(bound.ok());
  ASSERT_EQ(NextPort(*backend), *bound);
  ASSERT_TRUE(backend->Unmask(*bound).ok());
  Inject({"lose-events", "0", std::to_string(*bound), "2"});
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(guest->Notify(*port).ok());
    EXPECT_EQ(NextPort(*backend), 0u) << i;
  }
  ASSERT_TRUE(backend->Notify(*bound).ok());
  EXPECT_EQ(NextPort(*guest), *port) << "the other direction is not concerned";
  ASSERT_TRUE(guest->Notify(*port).ok());
  EXPECT_EQ(NextPort(*backend), *bound);
}

TEST_F(Faults, HeldStoreAnswersOnlyWhenReleased) {
  auto store = xenstore::OpenStore(xen_->StoreSocket(0));
  ASSERT_TRUE(store.ok()) << store.status();
  Inject({"store-hold"});
  absl::StatusOr<std::string> name;
  std::atomic<bool> answered = false;
  std::thread reader([&] {
    name = (*store)->Read("/local/domain/" + Guest() + "/name");
    answered = true;
  });
  // Each command is a turn of xen-emu's loop, in which the store could have answered.
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(xen_->List().ok());
  EXPECT_FALSE(answered);
  Inject({"store-release"});
  reader.join();
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(*name, "g1");
}

TEST_F(Faults, DelayedStoreAnswersInTheEnd) {
  Inject({"store-delay", "5"});
  auto store = xenstore::OpenStore(xen_->StoreSocket(guest_));
  ASSERT_TRUE(store.ok()) << store.status();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(*(*store)->Read("name"), "g1");
  Inject({"store-delay", "0"});
  EXPECT_EQ(*(*store)->Read("name"), "g1");
}

TEST_F(Faults, ListAndClear) {
  Inject({"map-fail", Guest(), "3", "7"});
  Inject({"share-fail", Guest()});
  Inject({"store-delay", "1"});
  EXPECT_EQ(*xen_->Fault({"list"}),
            "map-fail " + Guest() + " 3 7\nshare-fail " + Guest() + " 1\nstore-delay 1\n");
  Inject({"clear"});
  EXPECT_EQ(*xen_->Fault({"list"}), "");
  EXPECT_TRUE(Sharer()->Share(0, 1, Access::kReadWrite).ok());
}

TEST_F(Faults, RefusesWhatIsNoFault) {
  const std::vector<std::string> refused[] = {{"no-such-fault"},       {"map-fail"},
                                              {"map-fail", "1"},       {"map-fail", "x", "1"},
                                              {"map-fail", "1", "-1"}, {"map-fail", "99999", "1"},
                                              {"list", "1"},           {"map-fail", "1", "1", "0"}};
  for (const auto& fault : refused) {
    EXPECT_EQ(xen_->Fault(fault).status().code(), absl::StatusCode::kInvalidArgument) << fault[0];
  }
  EXPECT_FALSE(xen_->Fault({"lose-events", "0", "77", "1"}).ok()) << "no such port";
}

}  // namespace
}  // namespace vmsg::test
