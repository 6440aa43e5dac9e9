// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/event_pair.h"
#include "tests/contract/store/store_under_test.h"
#include "tests/contract/xen_under_test.h"
#include "tests/emulated-xen/emulated_xen.h"

namespace vmsg::test {
namespace {

class Emulation final : public XenUnderTest {
 public:
  static absl::StatusOr<std::unique_ptr<XenUnderTest>> Make() {
    auto emulation = std::make_unique<Emulation>();
    auto machine = EmulatedXen::Start();
    if (!machine.ok()) return machine.status();
    emulation->machine_ = *std::move(machine);
    auto guest = emulation->machine_->CreateDomain("guest");
    if (!guest.ok()) return guest.status();
    if (absl::Status status = emulation->Open(0, &emulation->backend); !status.ok()) return status;
    if (absl::Status status = emulation->Open(*guest, &emulation->guest); !status.ok()) {
      return status;
    }
    return std::unique_ptr<XenUnderTest>(std::move(emulation));
  }

  absl::Status DestroyGuest() override { return machine_->Destroy(guest.id); }
  absl::StatusOr<long> MappingsLeft() override {
    auto counts = machine_->DomainCounts(guest.id);
    if (!counts.ok()) return counts.status();
    return counts->pinned;
  }

 private:
  absl::Status Open(grants::DomainId id, Side* side) {
    auto platform = machine_->OpenPlatform(id);
    if (!platform.ok()) return platform.status();
    *side = {id, {CONTRACT_PEER_PROGRAM, machine_->XenOption(id)}, *std::move(platform)};
    return absl::OkStatus();
  }

  std::unique_ptr<EmulatedXen> machine_;
};

class EmulatedStore final : public StoreUnderTest {
 public:
  static absl::StatusOr<std::unique_ptr<StoreUnderTest>> Make(bool in_dom0) {
    auto store = std::make_unique<EmulatedStore>();
    auto machine = EmulatedXen::Start();
    if (!machine.ok()) return machine.status();
    store->machine_ = *std::move(machine);
    auto guest = store->machine_->CreateDomain("guest");
    if (!guest.ok()) return guest.status();
    (in_dom0 ? store->other : store->domain) = *guest;
    return std::unique_ptr<StoreUnderTest>(std::move(store));
  }
  static absl::StatusOr<std::unique_ptr<StoreUnderTest>> MakeInDom0() { return Make(true); }
  static absl::StatusOr<std::unique_ptr<StoreUnderTest>> MakeInGuest() { return Make(false); }

  absl::StatusOr<std::unique_ptr<xenstore::Store>> Open() override {
    return xenstore::OpenStore(machine_->StoreSocket(domain));
  }

 private:
  std::unique_ptr<EmulatedXen> machine_;
};

const StoreFactory kDom0 = {"EmulatedDom0", EmulatedStore::MakeInDom0};
const StoreFactory kGuest = {"EmulatedGuest", EmulatedStore::MakeInGuest};

INSTANTIATE_TEST_SUITE_P(On, StoreContract, ::testing::Values(kDom0, kGuest), StoreFactoryName);
INSTANTIATE_TEST_SUITE_P(On, GuestStoreContract, ::testing::Values(kGuest), StoreFactoryName);
INSTANTIATE_TEST_SUITE_P(On, Dom0StoreContract, ::testing::Values(kDom0), StoreFactoryName);

const XenFactory kEmulation = {"Emulated", Emulation::Make};

INSTANTIATE_TEST_SUITE_P(On, GrantContract, ::testing::Values(kEmulation), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, EventContract, ::testing::Values(kEmulation), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, EventPairContract, ::testing::Values(kEmulation), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, PeerContract, ::testing::Values(kEmulation), FactoryName);
INSTANTIATE_TEST_SUITE_P(On, DeathContract, ::testing::Values(kEmulation), FactoryName);

}  // namespace
}  // namespace vmsg::test
