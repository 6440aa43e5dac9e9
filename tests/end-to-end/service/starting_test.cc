// SPDX-License-Identifier: Apache-2.0
// How vmsgd begins, or says why it does not: by its exit status a service manager tells a mistake,
// which is no better at the next try, from what may be.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr int kMistake = 2;  // as in vmsgd.service

class StartingTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/vmsgd-start.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string Config(const std::string& text) {
    const std::string path = directory_ + "/vmsgd.conf";
    std::ofstream(path) << text;
    return path;
  }
  Finished Vmsgd(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), VMSGD_PROGRAM);
    absl::StatusOr<Finished> finished = RunProgram(arguments);
    EXPECT_TRUE(finished.ok()) << finished.status();
    return finished.value_or(Finished());
  }
  std::string directory_;
};

TEST_F(StartingTest, AMistakeInTheFileEndsItWithAStatusOfItsOwn) {
  const std::string path = Config("io-threads = 2\nlog_level = debug\n");
  const Finished started = Vmsgd({"--config=" + path});
  EXPECT_EQ(started.exit_status, kMistake);
  EXPECT_THAT(started.err, AllOf(HasSubstr(path + ":2: "), HasSubstr("did you mean log-level?")));
  EXPECT_EQ(Vmsgd({"--config=" + Config("spin-us = fast\n")}).exit_status, kMistake);
  EXPECT_EQ(Vmsgd({"--config=" + Config("xen = zen\n")}).exit_status, kMistake);
  EXPECT_EQ(Vmsgd({"--config=", "--lgo-level=debug"}).exit_status, kMistake);
  // What may be better the next time: there is no Xen yet.
  EXPECT_EQ(Vmsgd({"--config=", "--xen=emulated:" + directory_ + "/none"}).exit_status, 1);
}

TEST_F(StartingTest, CheckingSaysWhatAStartWouldWithoutStarting) {
  Finished checked = Vmsgd({"--check-config=" + Config("io-threads = 2\nlog-level = debug\n")});
  EXPECT_EQ(checked.exit_status, 0) << checked.err;
  EXPECT_THAT(checked.out, AllOf(HasSubstr("vmsgd.conf"), HasSubstr("no mistakes")));
  EXPECT_THAT(checked.err, IsEmpty());
  checked = Vmsgd({"--check-config=" + Config("io-threads = many\n")});
  EXPECT_EQ(checked.exit_status, kMistake);
  EXPECT_THAT(checked.err, HasSubstr(":1: io-threads = many: a number from 1 to 64"));
  checked = Vmsgd({"--check-config=" + directory_ + "/none"});
  EXPECT_EQ(checked.exit_status, kMistake);
  EXPECT_THAT(checked.err, HasSubstr("No such file"));
  // A name that a terminal would obey is shown.
  checked = Vmsgd({"--check-config=" + Config("a\xc2\x9b"
                                              "b = 1\n")});
  EXPECT_EQ(checked.exit_status, kMistake);
  EXPECT_THAT(checked.err, HasSubstr("a\\u009bb"));
}

TEST_F(StartingTest, ATraceThatCannotBeOneIsAMistakeAndNothingToWaitFor) {
  const std::string fifo = directory_ + "/fifo", file = directory_ + "/letter";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  std::ofstream(file) << "Dear all,";
  auto xen = EmulatedXen::Start();
  ASSERT_TRUE(xen.ok()) << xen.status();
  const std::string where = absl::StrCat("--xen=", (*xen)->XenOption(0));
  for (const std::string& place : {fifo, file, directory_}) {
    const Finished started = Vmsgd({"--config=", "--config-dir=", where, "--trace=" + place});
    EXPECT_EQ(started.exit_status, kMistake) << started.err;
    EXPECT_THAT(started.err, HasSubstr(place));
    const Finished checked = Vmsgd({"--check-config=" + Config("trace = " + place + "\n")});
    EXPECT_EQ(checked.exit_status, kMistake);
    EXPECT_THAT(checked.err, HasSubstr(place));
  }
  EXPECT_EQ(Machine::Content(file), "Dear all,");
}

// A trace is no reason to keep the disks from the guests.
TEST_F(StartingTest, ATraceThatItsDiskDoesNotTakeIsSaidAndTheGuestsAreServed) {
  if (access("/proc/self/comm", F_OK) != 0) GTEST_SKIP() << "there is no /proc";
  auto machine = Machine::Start({"--trace=/proc/vmsgd.pcap"});
  ASSERT_TRUE(machine.ok()) << machine.status();
  EXPECT_THAT((*machine)->service_log(), HasSubstr("error: trace: cannot create /proc/vmsgd.pcap"));
  EXPECT_TRUE((*machine)->CreateGuest("g1", {"type=rng"}).ok());
}

TEST_F(StartingTest, TheLogBeginsWithTheVersionAndNamesGuests) {
  auto machine = Machine::Start({"--log-level=debug"});
  ASSERT_TRUE(machine.ok()) << machine.status();
  EXPECT_THAT((*machine)->service_log(), testing::ContainsRegex("vmsgd [0-9]+\\.[0-9.]+: serving"));
  auto guest = (*machine)->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  ASSERT_TRUE((*machine)->Connect(*guest).ok());
  // What came of a connection, step by step.
  const std::string log = (*machine)->service_log();
  const std::string name = absl::StrCat("guest ", *guest, " (g1) bus 0: ");
  for (const char* line :
       {"device 0: opening rng", "device 0: opened", "frontend is Initialised"}) {
    EXPECT_THAT(log, HasSubstr(name + line));
  }
}

}  // namespace
}  // namespace vmsg::test
