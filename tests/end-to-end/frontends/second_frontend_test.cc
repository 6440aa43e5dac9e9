// SPDX-License-Identifier: Apache-2.0
// Two programs of one guest: the second one does not take the bus from the first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/claim/bus_claim.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SecondFrontendTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    auto guest = machine_->CreateGuest("g1", {"type=rng"});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
  }
  ChildProcess Hold() {
    auto child = ChildProcess::Start(machine_->FrontendCommand(guest_, {"hold"}),
                                     machine_->PathOf("hold.log"));
    EXPECT_TRUE(child.ok()) << child.status();
    auto line = child->ReadLine();
    EXPECT_TRUE(line.ok() && *line == "connected")
        << Machine::Content(machine_->PathOf("hold.log"));
    return *std::move(child);
  }
  Finished Run(std::vector<std::string> arguments) {
    auto finished = machine_->Frontend(guest_, std::move(arguments));
    EXPECT_TRUE(finished.ok()) << finished.status();
    return finished.ok() ? *finished : Finished{};
  }
  std::unique_ptr<Machine> machine_;
  grants::DomainId guest_ = 0;
};

TEST_F(SecondFrontendTest, IsRefusedByNameAndTheFirstGoesOn) {
  ChildProcess first = Hold();
  const std::string name = absl::StrCat("vmsg-frontend (pid ", first.pid(), ")");
  const Finished second = Run({"rng", "--bytes=4"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_THAT(second.err, AllOf(HasSubstr("bus 0"), HasSubstr(name)));
  // A look disturbs nobody and says who is there.
  const Finished listed = Run({"list"});
  EXPECT_EQ(listed.exit_status, 0) << listed.err;
  EXPECT_THAT(listed.out, AllOf(HasSubstr(name), HasSubstr("Connected")));
  // Its bus was never closed: it hears of what happens there.
  auto attached = machine_->Ctl({"attach", "g1", "type=rng,num=7"});
  ASSERT_TRUE(attached.ok() && attached->exit_status == 0);
  EXPECT_EQ(first.ReadLine().value_or("nothing"), "device 7 ready");
  first.CloseInput();
  EXPECT_EQ(first.Wait(), 0);
  EXPECT_EQ(Run({"rng", "--bytes=4"}).exit_status, 0);
}

TEST_F(SecondFrontendTest, AFirstThatWasKilledHoldsNothing) {
  ChildProcess first = Hold();
  first.Signal(SIGKILL);
  first.Wait();
  const Finished second = Run({"rng", "--bytes=4"});
  EXPECT_EQ(second.exit_status, 0) << second.err;
}

// What a kernel that has a driver shows in sysfs.
TEST_F(SecondFrontendTest, ABusThatTheKernelHasIsLeftToIt) {
  const std::string sysfs = machine_->PathOf("sys");
  std::filesystem::create_directories(sysfs + "/bus/xen/devices/virtio-msg-0");
  std::filesystem::create_directory_symlink("../../drivers/virtio-msg",
                                            sysfs + "/bus/xen/devices/virtio-msg-0/driver");
  const frontend::ClaimPlaces places = {.lock_directory = machine_->PathOf("locks"),
                                        .sysfs = sysfs};
  const absl::Status status = frontend::BusClaim::Take(places, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("this kernel"), HasSubstr("drivers/virtio-msg/unbind")));
  EXPECT_THAT(frontend::BusClaim::Holder(places, 0).value(),
              testing::Optional(HasSubstr("this kernel")));
  EXPECT_TRUE(frontend::BusClaim::Take(places, 1).ok());
}

TEST_F(SecondFrontendTest, TwoConnectionsOfOneProcessAreTwoAsWell) {
  const frontend::ClaimPlaces places = {.lock_directory = machine_->PathOf("locks"), .sysfs = ""};
  EXPECT_EQ(frontend::BusClaim::Holder(places, 3).value(), std::nullopt);
  {
    auto first = frontend::BusClaim::Take(places, 3);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(frontend::BusClaim::Take(places, 3).status().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(frontend::BusClaim::Holder(places, 3)->has_value());
  }
  EXPECT_EQ(frontend::BusClaim::Holder(places, 3).value(), std::nullopt);
  EXPECT_TRUE(frontend::BusClaim::Take(places, 3).ok());
}

// Otherwise the lock itself is what a person would look for.
TEST_F(SecondFrontendTest, WhereNoClaimCanBeMadeTheReasonNamesTheFile) {
  const absl::Status status =
      frontend::BusClaim::Take({.lock_directory = "/proc/nowhere", .sysfs = ""}, 0).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("/proc/nowhere/frontend-bus-0.lock"));
}

}  // namespace
}  // namespace vmsg::test
