// SPDX-License-Identifier: Apache-2.0
// vmsgd under a service manager: what it says through NOTIFY_SOCKET, reload, and its log.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "tests/end-to-end/machine.h"
#include "tests/end-to-end/service/held_thread.h"
#include "virtio-msg/capture.h"

namespace vmsg::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Met only by a failure.
constexpr int kPatienceMs = 60'000;

// The manager's end of NOTIFY_SOCKET.
class Manager {
 public:
  explicit Manager(const std::string& path) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{.sun_family = AF_UNIX};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~Manager() {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
  }

  // The next message, waited for.
  std::string Next() {
    pollfd fd = {fd_.get(), POLLIN, 0};
    if (poll(&fd, 1, kPatienceMs) <= 0) return "nothing came";
    char text[4096];
    const ssize_t got = recv(fd_.get(), text, sizeof text, 0);
    return std::string(text, got > 0 ? static_cast<size_t>(got) : 0);
  }
  // The next that contains `text`; those before it are skipped.
  std::string Await(const std::string& text) {
    std::string message;
    do {
      message = Next();
    } while (message != "nothing came" && !absl::StrContains(message, text));
    return message;
  }
  bool Waiting() {
    pollfd fd = {fd_.get(), POLLIN, 0};
    return poll(&fd, 1, 0) > 0;
  }

 private:
  backend::UniqueFd fd_;
};

class SupervisionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/vmsgd-manager.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    machine_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  void Start(std::vector<std::string> options = {}) {
    auto machine = Machine::Start(std::move(options));
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }
  void WriteConfig(const std::string& text) { std::ofstream(ConfigPath()) << text; }
  std::string ConfigPath() const { return directory_ + "/vmsgd.conf"; }
  // Polls the log for what another process is about to write.
  void AwaitLog(const std::string& text) {
    for (int waited = 0; waited < kPatienceMs; waited += 10) {
      if (absl::StrContains(machine_->service_log(), text)) return;
      poll(nullptr, 0, 10);
    }
    FAIL() << "not in the log: " << text << "\n" << machine_->service_log();
  }

  std::string directory_;
  std::unique_ptr<Machine> machine_;
};

TEST_F(SupervisionTest, SecondOneForTheSameXenIsRefusedAndTheFirstServesOn) {
  Start();
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  const auto second = machine_->RunSecondService();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->exit_status, 75);
  EXPECT_THAT(second->out, Not(HasSubstr("ready")));
  EXPECT_THAT(second->err, HasSubstr(absl::StrCat("process ", machine_->service().pid())));
  EXPECT_THAT(second->err, HasSubstr("SIGHUP"));
  const frontend::Deadline soon = frontend::After(std::chrono::milliseconds(kPatienceMs));
  EXPECT_TRUE((*connection)->bus().Ping(1, soon).ok());
}

TEST_F(SupervisionTest, SaysWhenItServesWhatItServesAndThatItStops) {
  Manager manager(directory_ + "/notify");
  Start();
  EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=0 buses, 0 connected, 0 devices, 0 refused");
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  manager.Await("STATUS=1 buses, 0 connected, 1 devices, 0 refused");
  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  manager.Await("STATUS=1 buses, 1 connected, 1 devices, 0 refused");
  auto refused = machine_->Ctl({"attach", "g1", "type=blk,path=/nowhere"});
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->exit_status, 1);
  connection->reset();
  manager.Await("0 connected, 1 devices, 0 refused");
  machine_->service().Signal(SIGTERM);
  EXPECT_THAT(manager.Await("STOPPING=1"), HasSubstr("STATUS=stopping"));
  EXPECT_EQ(machine_->service().Wait(), 0);
}

TEST_F(SupervisionTest, NobodyIsToldAnythingPeriodicallyUnlessThereIsAWatchdog) {
  Manager manager(directory_ + "/notify");
  Start();
  manager.Await("READY=1");
  // Answered by the same loop: what was to be said before has been said.
  machine_->service().Signal(SIGHUP);
  EXPECT_EQ(manager.Next(), "RELOADING=1");
  EXPECT_THAT(manager.Next(), StartsWith("READY=1"));
  EXPECT_FALSE(manager.Waiting());
}

TEST_F(SupervisionTest, TheWatchdogIsFedWhileAllIsIdle) {
  Manager manager(directory_ + "/notify");
  setenv("WATCHDOG_USEC", "100000", 1);
  Start();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(manager.Await("WATCHDOG=1"), "WATCHDOG=1");
}

TEST_F(SupervisionTest, AnIoThreadThatHangsIsNotHiddenFromTheWatchdog) {
  Manager manager(directory_ + "/notify");
  setenv("WATCHDOG_USEC", "2000000", 1);
  Start({"--io-threads=1"});
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto ping = ChildProcess::Start(machine_->FrontendCommand(*guest, {"ping", "--count=1000000"}),
                                  directory_ + "/ping.log");
  ASSERT_TRUE(ping.ok()) << ping.status();
  auto held = HeldThread::Hold(machine_->service().pid(), "vmsg-io");
  if (absl::IsPermissionDenied(held.status())) {
    GTEST_SKIP() << "a thread of another process cannot be stopped here: " << held.status();
  }
  ASSERT_TRUE(held.ok()) << held.status();
  AwaitLog("watchdog: no progress of I/O thread 0");
  // Said before it was noticed; from here on there is nothing until it gets on.
  while (manager.Waiting()) manager.Next();
  EXPECT_THAT(machine_->service_log(), Not(HasSubstr("get on again")));
  held->reset();
  manager.Await("WATCHDOG=1");
  EXPECT_THAT(machine_->service_log(), HasSubstr("get on again"));
}

TEST_F(SupervisionTest, ReloadAppliesWhatItCanAndNamesWhatItCannot) {
  WriteConfig("log-level = warning\nio-threads = 1\n");
  Manager manager(directory_ + "/notify");
  Start({"--config=" + ConfigPath(), "--spin-us=5"});
  manager.Await("READY=1");
  EXPECT_THAT(machine_->service_log(), Not(HasSubstr("serving")));

  WriteConfig("log-level = info\nio-threads = 2\nspin-us = 9\nmax-window-pages = 600\n");
  machine_->service().Signal(SIGHUP);
  EXPECT_EQ(manager.Next(), "RELOADING=1");
  EXPECT_THAT(manager.Next(), StartsWith("READY=1"));
  EXPECT_THAT(machine_->service_log(),
              HasSubstr("reload: changed max-window-pages, log-level; takes effect at restart: "
                        "io-threads"));
  // A bus that connects from now on has the new limit.
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  EXPECT_FALSE(machine_->Connect(*guest, {.pages = 601}).ok());
  EXPECT_TRUE(machine_->Connect(*guest, {.pages = 600}).ok());
}

TEST_F(SupervisionTest, AReloadOfABadFileChangesNothing) {
  WriteConfig("log-level = info\n");
  Start({"--config=" + ConfigPath()});
  WriteConfig("log-level = error\nmax-window-pages = none\n");
  machine_->service().Signal(SIGHUP);
  AwaitLog(absl::StrCat("reload: refused, nothing is changed: ", ConfigPath(),
                        ":2: max-window-pages = none: a number from 512"));
  machine_->service().Signal(SIGUSR1);
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  AwaitLog("rng connected");  // an info line
}

TEST_F(SupervisionTest, AReloadBeginsTheTraceAnewWhereItWasRenamed) {
  const std::string trace = directory_ + "/vmsg.pcap";
  Start({"--trace=" + trace});
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  ASSERT_TRUE((*connection)->bus().Ping(1, frontend::After(std::chrono::minutes(1))).ok());
  const std::string moved = directory_ + "/moved";
  std::filesystem::rename(trace, moved);
  machine_->service().Signal(SIGHUP);
  AwaitLog("reload: nothing changed");
  // What was said before is in the old file.
  const auto old_size = std::filesystem::file_size(moved);
  EXPECT_GT(old_size, wire::kCaptureFileHeaderSize);
  ASSERT_TRUE(std::filesystem::exists(trace));
  machine_->service().Signal(SIGHUP);  // and is left alone where it was not
  ASSERT_TRUE(machine_->Ctl({"attach", "g1", "type=rng"}).ok());
  connection->reset();
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  EXPECT_EQ(std::filesystem::file_size(moved), old_size);
  EXPECT_GT(std::filesystem::file_size(trace), wire::kCaptureFileHeaderSize);
  EXPECT_FALSE(std::filesystem::exists(trace + ".1"));
}

TEST_F(SupervisionTest, ATraceIsSwitchedOnForBusesThatAreConnected) {
  const std::string trace = directory_ + "/vmsg.pcap";
  WriteConfig("log-level = info\n");
  Start({"--config=" + ConfigPath()});
  auto guest = machine_->CreateGuest("g1", {"type=rng"});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  WriteConfig("log-level = info\ntrace = " + trace + "\n");
  machine_->service().Signal(SIGHUP);
  AwaitLog("reload: changed trace");
  ASSERT_TRUE((*connection)->bus().Ping(1, frontend::After(std::chrono::minutes(1))).ok());
  WriteConfig("log-level = info\n");
  machine_->service().Signal(SIGHUP);
  AwaitLog("the trace ends here");
  EXPECT_GT(std::filesystem::file_size(trace), wire::kCaptureFileHeaderSize);
}

TEST_F(SupervisionTest, LinesCarryThePriorityOnlyWhenTheyGoToTheJournal) {
  setenv("JOURNAL_STREAM", "1:2", 1);  // another stream than its standard error
  Start();
  unsetenv("JOURNAL_STREAM");
  // A build with sanitizers has a warning in front.
  EXPECT_THAT(machine_->service_log(),
              testing::ContainsRegex("(^|\n)20[0-9-]+T[0-9:.]+Z info: vmsgd [0-9.]+: serving on "));
  EXPECT_THAT(machine_->service_log(), testing::Not(HasSubstr("<6>")));
}

// Lines of /proc/PID/task/TID/status, of each thread.
std::vector<std::string> ThreadStatuses(pid_t pid) {
  std::vector<std::string> statuses;
  for (const auto& task :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"))) {
    statuses.push_back(Machine::Content(task.path() / "status"));
  }
  return statuses;
}

TEST_F(SupervisionTest, EveryThreadServesWithoutWhatItDoesNotNeed) {
  Start({"--io-threads=2"});
  auto guest = machine_->CreateGuest("g1", {"type=rng"});  // has a worker started, too
  ASSERT_TRUE(guest.ok()) << guest.status();
  if (absl::StrContains(machine_->service_log(), "sandbox: OFF, this is a build with sanitizers")) {
    GTEST_SKIP() << "built with sanitizers";
  }
  const auto statuses = ThreadStatuses(machine_->service().pid());
  EXPECT_GE(statuses.size(), 4u);  // and libxenstore's
  for (const std::string& status : statuses) {
    EXPECT_THAT(status, HasSubstr("Seccomp:\t2"));
    EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
    EXPECT_THAT(status, testing::ContainsRegex("CapEff:\t000000000000000[02]\n"));
    EXPECT_THAT(status, testing::ContainsRegex("CapPrm:\t000000000000000[02]\n"));
  }
}

TEST_F(SupervisionTest, TerminalsAreMadeUsedAndRemovedInTheSandbox) {
  Start();
  const std::string pty = directory_ + "/pty", socket_path = directory_ + "/socket";
  auto guest = machine_->CreateGuest(
      "g1", {"type=console,pty=" + pty, "type=console,socket=" + socket_path});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto connection = machine_->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  {
    backend::UniqueFd terminal(open(pty.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(terminal);
    backend::UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX};
    socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  connection->reset();
  auto detached = machine_->Ctl({"detach", "g1", "all"});
  ASSERT_TRUE(detached.ok()) << detached.status();
  EXPECT_EQ(detached->exit_status, 0) << detached->err << machine_->service_log();
  // The bus is gone; its files are closed by a worker.
  const auto there = [](const std::string& path) {
    return std::filesystem::exists(std::filesystem::symlink_status(path));
  };
  for (int waited = 0; waited < kPatienceMs && (there(pty) || there(socket_path)); waited += 10) {
    poll(nullptr, 0, 10);
  }
  EXPECT_FALSE(there(pty));
  EXPECT_FALSE(there(socket_path));
}

TEST_F(SupervisionTest, RunningWithoutASandboxIsSaidLoudly) {
  Start({"--sandbox=off"});
  EXPECT_THAT(machine_->service_log(), HasSubstr("warning: sandbox: OFF"));
  for (const std::string& status : ThreadStatuses(machine_->service().pid())) {
    EXPECT_THAT(status, HasSubstr("Seccomp:\t0"));
  }
}

}  // namespace
}  // namespace vmsg::test
