// SPDX-License-Identifier: Apache-2.0
// What the administrator asks for happens, or is refused with the entry, the key and the reason: by
// vmsgctl, and the same in the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using testing::AllOf;
using testing::Field;
using testing::HasSubstr;
using testing::Not;

class AdministratorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    auto guest = machine_->CreateGuest("g1", {"type=rng"});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
  }
  Finished Ctl(std::vector<std::string> arguments) {
    auto run = machine_->Ctl(std::move(arguments));
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? *std::move(run) : Finished{};
  }
  // Every refusal leaves what was attached before as it was.
  void ExpectOnlyTheRngIsThere() {
    const Finished list = Ctl({"list"});
    EXPECT_EQ(list.exit_status, 0) << list.err;
    EXPECT_THAT(list.out, AllOf(HasSubstr("rng"), Not(HasSubstr("blk"))));
  }
  std::unique_ptr<Machine> machine_;
  grants::DomainId guest_ = 0;
};

TEST_F(AdministratorTest, AMissingImageIsRefusedWithKeyValueAndReason) {
  const Finished run = Ctl({"attach", "g1", "type=blk,num=5,path=/nowhere/at/all.img"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, AllOf(HasSubstr("path"), HasSubstr("/nowhere/at/all.img"),
                             HasSubstr("No such file")));
  ExpectOnlyTheRngIsThere();
}

// Each number is chosen where it is written.
TEST_F(AdministratorTest, ManyAtOnceAreAllAttachedAndAllDetached) {
  constexpr int kMany = 30;
  std::array<Finished, kMany> runs;
  const auto all_at_once = [&](const std::function<std::vector<std::string>(int)>& arguments) {
    std::vector<std::thread> threads;
    threads.reserve(kMany);
    for (int i = 0; i < kMany; ++i) {
      threads.emplace_back([&, i] { runs[i] = Ctl(arguments(i)); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Finished& run : runs) EXPECT_EQ(run.exit_status, 0) << run.err;
  };
  all_at_once([](int) { return std::vector<std::string>{"attach", "g1", "type=rng"}; });
  // The one that was there, and these.
  std::set<std::string> numbers;
  for (const Finished& run : runs) numbers.insert(run.out);
  EXPECT_EQ(numbers.size(), size_t{kMany});
  all_at_once([](int i) {
    return std::vector<std::string>{"detach", "g1", std::to_string(i + 1)};
  });
  ExpectOnlyTheRngIsThere();
}

TEST_F(AdministratorTest, ABusIsNotTakenFromTheDomainThatServesIt) {
  auto other = machine_->CreateGuest("g2", {"type=rng"});
  ASSERT_TRUE(other.ok()) << other.status();
  const Finished run = Ctl({"--backend", "g2", "attach", "g1", "type=rng"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, HasSubstr("bus 0 of g1 is served by domain 0; attach to that one, or detach "
                                 "the bus first (vmsgctl detach g1 all)"));
  ExpectOnlyTheRngIsThere();
  auto random = machine_->Frontend(guest_, {"rng", "--bytes", "100"});
  ASSERT_TRUE(random.ok()) << random.status();
  EXPECT_EQ(random->out.size(), 100u) << random->err;
}

TEST_F(AdministratorTest, AnUnreadableKindOfFileIsRefused) {
  const Finished run = Ctl({"attach", "g1", "type=blk,num=5,path=/dev/null"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, AllOf(HasSubstr("path"), HasSubstr("/dev/null")));
}

TEST_F(AdministratorTest, AnUnknownTypeIsRefusedWithTheTypesThatThereAre) {
  const Finished run = Ctl({"attach", "g1", "type=floppy,num=5"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, AllOf(HasSubstr("floppy"), HasSubstr("blk")));
  ExpectOnlyTheRngIsThere();
}

TEST_F(AdministratorTest, AMalformedEntryIsRefusedBeforeAnythingIsWritten) {
  for (const char* entry : {"", "type=", "path=/x", "type=blk,path", "type=blk,path=/x,path=/y",
                            "type=blk,num=70000,path=/x", "type=blk,num=-1,path=/x"}) {
    const Finished run = Ctl({"attach", "g1", entry});
    EXPECT_NE(run.exit_status, 0) << "'" << entry << "'";
    EXPECT_NE(run.err, "") << "'" << entry << "'";
  }
  ExpectOnlyTheRngIsThere();
}

TEST_F(AdministratorTest, ASecondAttachOfANumberIsRefused) {
  const Finished run = Ctl({"attach", "g1", "type=rng,num=0"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, HasSubstr("0"));
  ExpectOnlyTheRngIsThere();
}

TEST_F(AdministratorTest, AnUnknownGuestIsRefusedByName) {
  const Finished run = Ctl({"attach", "nobody", "type=rng"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, HasSubstr("nobody"));
}

TEST_F(AdministratorTest, AnImageCannotBeAttachedForWritingTwice) {
  const std::string image = machine_->MakeFile("shared.img", std::string(65536, 'x'));
  EXPECT_EQ(Ctl({"attach", "g1", absl::StrCat("type=blk,path=", image)}).exit_status, 0);
  auto other = machine_->CreateGuest("g2", {});
  ASSERT_TRUE(other.ok());
  const Finished run = Ctl({"attach", "g2", absl::StrCat("type=blk,path=", image)});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, HasSubstr("shared.img"));
}

TEST_F(AdministratorTest, AnXlConfigAttachesItsEntriesInOrder) {
  auto guest = machine_->CreateGuest("g2", {});
  ASSERT_TRUE(guest.ok());
  const std::string image = machine_->MakeFile("g2.img", std::string(65536, 'x'));
  const std::string config = machine_->MakeFile(
      "g2.cfg", absl::StrCat("name = \"g2\"\nmemory = 256\nvirtio_msg = [ \"type=blk,path=", image,
                             "\", \"type=rng\" ]\n"));
  const Finished run = Ctl({"attach", "--config", config});
  EXPECT_EQ(run.exit_status, 0) << run.err;
  auto listed = machine_->Frontend(*guest, {"list"});
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(listed->exit_status, 0) << listed->err;
  EXPECT_LT(listed->out.find("blk"), listed->out.find("rng")) << listed->out;
}

TEST_F(AdministratorTest, DetachRemovesTheDeviceAndThenTheBus) {
  EXPECT_EQ(Ctl({"attach", "g1", "type=rng,num=9"}).exit_status, 0);
  EXPECT_EQ(Ctl({"detach", "g1", "9"}).exit_status, 0);
  EXPECT_EQ(Ctl({"detach", "g1", "all"}).exit_status, 0);
  auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
  ASSERT_TRUE(store.ok()) << store.status();
  const xenstore::BusAddress bus{.frontend = guest_, .backend = 0, .id = 0};
  EXPECT_TRUE(absl::IsNotFound((*store)->Read(bus.BackendPath()).status()));
  EXPECT_TRUE(absl::IsNotFound((*store)->Read(bus.FrontendPath()).status()));
}

TEST_F(AdministratorTest, AGuestCannotReadHostPathsNorWriteTheBackendsNodes) {
  const std::string image = machine_->MakeFile("g1.img", std::string(65536, 'x'));
  EXPECT_EQ(Ctl({"attach", "g1", absl::StrCat("type=blk,num=3,path=", image)}).exit_status, 0);
  auto store = xenstore::OpenStore(machine_->xen().StoreSocket(guest_));
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string bus = xenstore::BusAddress{.frontend = guest_}.BackendPath();
  EXPECT_TRUE((*store)->Read(absl::StrCat(bus, "/state")).ok());
  EXPECT_TRUE(
      absl::IsPermissionDenied((*store)->Read(absl::StrCat(bus, "/device/3/path")).status()));
  EXPECT_TRUE(absl::IsPermissionDenied((*store)->List(absl::StrCat(bus, "/device")).status()));
  EXPECT_TRUE(absl::IsPermissionDenied((*store)->Write(absl::StrCat(bus, "/online"), "0")));
}

TEST_F(AdministratorTest, WithoutAServiceAttachAndListSaySo) {
  EXPECT_EQ(Ctl({"list"}).err, "");
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  // The kernel holds the lock a moment longer than the process lives: io_uring's end.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  Finished list;
  do {
    list = Ctl({"list"});
  } while (absl::StrContains(list.err, "is ending") && std::chrono::steady_clock::now() < deadline);
  EXPECT_THAT(list, AllOf(Field(&Finished::exit_status, 0),
                          Field(&Finished::err, HasSubstr("no vmsgd is running"))));
  const Finished run = Ctl({"attach", "g1", "type=rng,num=4", "--timeout", "1"});
  EXPECT_EQ(run.exit_status, 1);
  EXPECT_THAT(run.err, HasSubstr("no vmsgd is running in domain 0"));
}

TEST_F(AdministratorTest, AServiceThatDoesNotAnswerIsNamed) {
  machine_->service().Signal(SIGSTOP);
  const std::string who = absl::StrCat("vmsgd in domain 0, process ", machine_->service().pid(),
                                       ", is running and has not answered");
  const Finished attach = Ctl({"attach", "g1", "type=rng,num=4", "--timeout", "0"});
  const Finished detach = Ctl({"detach", "g1", "0", "--timeout", "0"});
  machine_->service().Signal(SIGCONT);
  EXPECT_EQ(attach.exit_status, 1);
  EXPECT_THAT(attach.err, HasSubstr(who));
  EXPECT_EQ(detach.exit_status, 1);
  EXPECT_THAT(detach.err, HasSubstr(who));
}

}  // namespace
}  // namespace vmsg::test
