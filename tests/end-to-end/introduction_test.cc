// SPDX-License-Identifier: Apache-2.0
// `xl create` is all an administrator does: what a domain's config says is attached, seen by the
// guest, shown by vmsgctl, and gone with the guest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class IntroductionTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/vmsg-etc-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    configs_ = pattern;
    auto machine = Machine::Start({"--config-dir=" + configs_});
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override {
    machine_.reset();
    std::filesystem::remove_all(configs_);
  }
  void Config(const std::string& name, const std::string& entries) {
    std::ofstream(absl::StrCat(configs_, "/", name, ".cfg"))
        << "name = \"" << name << "\"\nvirtio_msg = [ " << entries << " ]\n";
  }
  grants::DomainId Create(const std::string& name) {
    auto domain = machine_->xen().CreateDomain(name);
    EXPECT_TRUE(domain.ok()) << domain.status();
    return domain.value_or(0);
  }
  void Await(const std::string& what, const std::function<bool()>& holds) {
    for (int i = 0; i < 6000; ++i) {
      if (holds()) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << what << "\n" << machine_->service_log();
  }
  bool Exists(const std::string& path) { return store_->Read(path).ok(); }
  std::string List() {
    auto run = machine_->Ctl({"list"});
    EXPECT_TRUE(run.ok() && run->exit_status == 0);
    return run.ok() ? run->out : "";
  }

  std::string configs_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<xenstore::Store> store_;
};

TEST_F(IntroductionTest, AGuestIsServedFromItsConfigAndNothingStaysBehind) {
  const std::string image = machine_->MakeFile("g1.img", Machine::Pattern(65536, 3));
  Config("g1", absl::StrCat("\"type=blk,path=", image, "\", \"type=rng\""));
  const grants::DomainId guest = Create("g1");
  const xenstore::BusAddress bus{.frontend = guest};
  Await("the devices are ready", [&] {
    return Exists(absl::StrCat(bus.BackendPath(), "/device/0/hotplug-status")) &&
           Exists(absl::StrCat(bus.BackendPath(), "/device/1/hotplug-status"));
  });
  auto read = machine_->Frontend(guest, {"blk", "read", "--dev=0", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->out == Machine::Pattern(65536, 3)) << read->err;
  EXPECT_THAT(List(), AllOf(HasSubstr("g1.cfg"), HasSubstr("attached"), HasSubstr("blk")));
  auto again = machine_->Ctl({"attach", "--config", configs_ + "/g1.cfg"});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->exit_status, 0) << again->err;
  EXPECT_THAT(again->out, HasSubstr("already"));

  ASSERT_EQ(machine_->xen().Destroy(guest), absl::OkStatus());
  Await("the bus goes with the guest", [&] { return !Exists(bus.BackendPath()); });
  EXPECT_FALSE(Exists(absl::StrCat("/libxl/", guest)));
  EXPECT_FALSE(Exists(absl::StrCat("/local/domain/0/backend/virtio-msg/", guest)));
  EXPECT_THAT(List(), Not(HasSubstr("g1")));
}

TEST_F(IntroductionTest, ABadEntryIsShownWhereAnAdministratorLooks) {
  Config("g1", "\"type=rng\", \"type=blk,path\"");
  const grants::DomainId guest = Create("g1");
  Await("the refusal is noted",
        [&] { return Exists(absl::StrCat("/libxl/", guest, "/virtio-msg")); });
  EXPECT_THAT(List(), AllOf(HasSubstr("g1.cfg"), HasSubstr("virtio_msg[1] \"type=blk,path\": ")));
  EXPECT_THAT(machine_->service_log(), AllOf(HasSubstr("g1.cfg"), HasSubstr("virtio_msg[1]")));
  EXPECT_FALSE(Exists(xenstore::BusAddress{.frontend = guest}.BackendPath()));
}

TEST_F(IntroductionTest, AMissingImageIsFoundBeforeAnythingIsAttachedAndTheRepairAttachesAll) {
  const std::string image = machine_->PathOf("g1.img");
  Config("g1", absl::StrCat("\"type=rng\", \"type=blk,path=", image, "\""));
  const grants::DomainId guest = Create("g1");
  const xenstore::BusAddress bus{.frontend = guest};
  Await("the refusal is noted",
        [&] { return Exists(absl::StrCat("/libxl/", guest, "/virtio-msg")); });
  EXPECT_THAT(List(), AllOf(HasSubstr(image), HasSubstr("No such file")));
  EXPECT_FALSE(Exists(bus.BackendPath()));
  const std::vector<std::string> attach = {"attach", "--config", configs_ + "/g1.cfg"};
  auto refused = machine_->Ctl(attach);
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->exit_status, 1);
  EXPECT_THAT(refused->err, AllOf(HasSubstr("virtio_msg[1]"), HasSubstr("No such file")));
  EXPECT_FALSE(Exists(bus.BackendPath()));
  machine_->MakeFile("g1.img", Machine::Pattern(65536, 3));
  auto attached = machine_->Ctl(attach);
  ASSERT_TRUE(attached.ok());
  EXPECT_EQ(attached->exit_status, 0) << attached->err;
}

// What only an open can tell: the others are served, and the same command attaches what is missing.
TEST_F(IntroductionTest, AnImageThatIsInUseIsItsDevicesErrorAndTheSameCommandRepairsIt) {
  const std::string image = machine_->MakeFile("g1.img", Machine::Pattern(65536, 3));
  ASSERT_TRUE(machine_->CreateGuest("g0", {"type=blk,path=" + image}).ok());
  Config("g1", absl::StrCat("\"type=blk,path=", image, "\", \"type=rng\""));
  const grants::DomainId guest = Create("g1");
  const xenstore::BusAddress bus{.frontend = guest};
  Await("both entries are answered", [&] {
    return Exists(absl::StrCat(bus.BackendPath(), "/device/0/hotplug-error")) &&
           Exists(absl::StrCat(bus.BackendPath(), "/device/1/hotplug-status"));
  });
  EXPECT_THAT(List(), AllOf(HasSubstr("is in use"), HasSubstr("rng")));
  auto detached = machine_->Ctl({"detach", "g0", "0"});
  ASSERT_TRUE(detached.ok() && detached->exit_status == 0);
  auto repaired = machine_->Ctl({"attach", "--config", configs_ + "/g1.cfg"});
  ASSERT_TRUE(repaired.ok());
  EXPECT_EQ(repaired->exit_status, 0) << repaired->err;
  EXPECT_THAT(repaired->out, AllOf(HasSubstr("device 0 (blk) attached"),
                                   HasSubstr("device 1 (rng) is attached already")));
  auto read = machine_->Frontend(guest, {"blk", "read", "--dev=0", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->out == Machine::Pattern(65536, 3)) << read->err;
}

// As of a guest that is migrated on its host: it is attached while the domain that it was is still
// there.
TEST_F(IntroductionTest, AnImageOfADomainThatEndsIsAttachedToTheOneThatWaitsForIt) {
  const std::string image = machine_->MakeFile("g1.img", Machine::Pattern(65536, 3));
  for (const char* name : {"g0", "g1"}) {
    Config(name, absl::StrCat("\"type=blk,path=", image, "\""));
  }
  const grants::DomainId before = Create("g0");
  const auto answer = [](grants::DomainId domain, absl::string_view what) {
    return absl::StrCat(xenstore::BusAddress{.frontend = domain}.BackendPath(), "/device/0/", what);
  };
  Await("the first has it", [&] { return Exists(answer(before, "hotplug-status")); });
  const grants::DomainId guest = Create("g1");
  Await("the second is refused", [&] { return Exists(answer(guest, "hotplug-error")); });
  ASSERT_EQ(machine_->xen().Destroy(before), absl::OkStatus());
  Await("the second has it", [&] {
    auto status = store_->Read(answer(guest, "hotplug-status"));
    return status.ok() && *status == "connected";
  });
  auto read = machine_->Frontend(guest, {"blk", "read", "--dev=0", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->out == Machine::Pattern(65536, 3)) << read->err;
}

TEST_F(IntroductionTest, AGuestWithoutAConfigLeavesALineAboutWhereOneWasLookedFor) {
  Config("g1", "\"type=rng\"");
  const grants::DomainId guest = Create("gone");
  Await("it is in the log", [&] {
    return absl::StrContains(machine_->service_log(),
                             absl::StrCat("guest ", guest, " (gone): nothing to attach: "));
  });
  EXPECT_THAT(machine_->service_log(), AllOf(HasSubstr(configs_), HasSubstr("for g1")));
}

TEST_F(IntroductionTest, AServiceStartedLaterAttachesAndLeavesAloneWhatWasDetached) {
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  Config("g1", "\"type=rng\"");
  Config("g2", "\"type=rng\"");
  const grants::DomainId guest = Create("g1");
  ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  const xenstore::BusAddress bus{.frontend = guest};
  const std::string ready = absl::StrCat(bus.BackendPath(), "/device/0/hotplug-status");
  Await("the device is ready", [&] { return Exists(ready); });
  auto detached = machine_->Ctl({"detach", "g1", "all"});
  ASSERT_TRUE(detached.ok() && detached->exit_status == 0);
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  // When another has been attached, the first one has been looked at, too.
  const xenstore::BusAddress other{.frontend = Create("g2")};
  Await("the other is attached", [&] { return Exists(other.BackendPath()); });
  EXPECT_FALSE(Exists(bus.BackendPath()));
}

}  // namespace
}  // namespace vmsg::test
