// SPDX-License-Identifier: Apache-2.0
// vmsgd in a guest that serves other guests: Dom0 gives it nothing but the toolstack's nodes, Xen
// tells it of no domain, and xenstored's quotas hold for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using testing::HasSubstr;

class DriverDomainTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start({}, /*in_driver_domain=*/true);
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  xenstore::BusAddress Bus(grants::DomainId guest, uint32_t id = 0) const {
    return {guest, machine_->service_domain(), id};
  }
  bool Exists(const std::string& path) { return store_->Read(path).ok(); }
  void Await(const std::string& what, const std::function<bool()>& holds) {
    for (int i = 0; i < 6000; ++i) {
      if (holds()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << what << "\n" << machine_->service_log();
  }

  std::unique_ptr<Machine> machine_;
  std::unique_ptr<xenstore::Store> store_;
};

TEST_F(DriverDomainTest, ServesAGuestAndRemovesItsNodesWhenTheGuestIsDestroyed) {
  const std::string content = Machine::Pattern(1 << 20, 5);
  auto guest = machine_->CreateGuest(
      "g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content)), "type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto read = machine_->Frontend(*guest, {"blk", "read", "--dev=0", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->out == content) << read->err << machine_->service_log();

  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status() << machine_->service_log();
  ASSERT_EQ(machine_->xen().Destroy(*guest), absl::OkStatus());
  const std::string above =
      absl::StrCat("/local/domain/", machine_->service_domain(), "/backend/virtio-msg/", *guest);
  Await("its directories go", [&] { return !Exists(above); });
  auto counts = machine_->xen().DomainCounts(*guest);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->state, "") << "a zombie stays";
  EXPECT_THAT(machine_->service_log(), HasSubstr("followed in xenstore alone"));
}

TEST_F(DriverDomainTest, AGuestThatRemovesItsOwnDirectoryHarmsNobodyElse) {
  auto hostile = machine_->CreateGuest("g1", {"type=rng"});
  auto other = machine_->CreateGuest("g2", {"type=rng"});
  ASSERT_TRUE(hostile.ok() && other.ok());
  auto connection = machine_->Connect(*hostile);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto guests_store = xenstore::OpenStore(machine_->xen().StoreSocket(*hostile));
  ASSERT_TRUE(guests_store.ok());
  ASSERT_EQ((*guests_store)->Remove(Bus(*hostile).FrontendPath()), absl::OkStatus());
  Await("its bus ends", [&] { return !Exists(Bus(*hostile).BackendPath()); });
  auto read = machine_->Frontend(*other, {"rng", "--bytes", "100"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->out.size(), 100u) << read->err;
}

TEST_F(DriverDomainTest, ANodeQuotaRefusesTheNextBusByNameAndRoomIsUsedAgain) {
  std::vector<grants::DomainId> guests;
  std::string refusal;
  while (refusal.empty() && guests.size() < 100) {
    const std::string name = absl::StrCat("g", guests.size());
    auto domain = machine_->xen().CreateDomain(name);
    ASSERT_TRUE(domain.ok()) << domain.status();
    guests.push_back(*domain);
    auto attached = machine_->Ctl({"attach", name, "--backend=driver", "--timeout=1", "type=rng"});
    ASSERT_TRUE(attached.ok());
    if (attached->exit_status == 0) continue;
    refusal = absl::StrCat(attached->out, attached->err);
  }
  ASSERT_GT(guests.size(), 20u) << refusal << machine_->service_log();
  ASSERT_LT(guests.size(), 100u);
  EXPECT_THAT(machine_->service_log(), HasSubstr("--entry-nb"));
  // Those before it are served.
  for (const grants::DomainId guest : {guests.front(), guests[guests.size() - 2]}) {
    auto read = machine_->Frontend(guest, {"rng", "--bytes", "100"});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->out.size(), 100u) << read->err << machine_->service_log();
  }
  // And the next one is when one of them has gone.
  ASSERT_EQ(machine_->xen().Destroy(guests[0]), absl::OkStatus());
  Await("room", [&] { return !Exists(Bus(guests[0]).BackendPath()); });
  auto attached = machine_->Ctl(
      {"attach", absl::StrCat("g", guests.size() - 1), "--backend=driver", "type=rng"});
  ASSERT_TRUE(attached.ok());
  EXPECT_EQ(attached->exit_status, 0) << attached->err << machine_->service_log();
}

}  // namespace
}  // namespace vmsg::test
