// SPDX-License-Identifier: Apache-2.0
// An image on storage that does not answer: what ends nevertheless, and what has to wait for it.
// The storage is a file system in userspace whose server is stopped; where there is none, this is
// skipped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::test {
namespace {

using testing::HasSubstr;

constexpr char kConnections[] = "/sys/fs/fuse/connections";
// Only met by a failure.
constexpr int kPatienceMs = 60'000;

bool Await(const std::function<bool()>& condition) {
  for (int waited = 0; !condition(); waited += 100) {
    if (waited > kPatienceMs) return false;
    poll(nullptr, 0, 100);
  }
  return true;
}

class HungStorageTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start({"--io-threads=1"});
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    mount_ = machine_->PathOf("storage");
    std::filesystem::create_directory(mount_);
    if (access("/dev/fuse", R_OK | W_OK) != 0 || access("/usr/bin/nbdfuse", X_OK) != 0 ||
        access("/usr/bin/nbdkit", X_OK) != 0) {
      GTEST_SKIP() << "SKIPPED: needs /dev/fuse, nbdfuse and nbdkit";
    }
    auto server = ChildProcess::Start(
        {"/usr/bin/nbdfuse", mount_ + "/disk", "--command", "nbdkit", "-s", "memory", "4M"},
        machine_->PathOf("nbdfuse.log"));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto device = [](const std::string& path) {
      struct stat place = {};
      return stat(path.c_str(), &place) == 0 ? place.st_dev : 0;
    };
    const dev_t ours = device(machine_->PathOf("."));
    for (int tries = 0; device(mount_) == ours; ++tries) {
      if (tries == 1000) {
        GTEST_SKIP() << "SKIPPED: no file system in userspace can be mounted here: "
                     << Machine::Content(machine_->PathOf("nbdfuse.log"));
      }
      poll(nullptr, 0, 10);
    }
    mounted_ = true;
    waiting_ = absl::StrCat(kConnections, "/", minor(device(mount_)), "/waiting");
    if (access(waiting_.c_str(), R_OK) != 0) mount("none", kConnections, "fusectl", 0, nullptr);
    if (access(waiting_.c_str(), R_OK) != 0) {
      GTEST_SKIP() << "SKIPPED: " << waiting_ << " does not tell of requests in the kernel";
    }
    store_ = *xenstore::OpenStore(machine_->xen().StoreSocket(0));
    auto guest = machine_->CreateGuest("g1", {});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
  }
  void TearDown() override {
    if (mounted_) {
      server_.Signal(SIGCONT);
      umount2(mount_.c_str(), MNT_DETACH);
    }
    server_ = ChildProcess();  // ends what still waits for it
    machine_.reset();
  }
  // The kernel has a request that the server does not take.
  bool KernelWaits() {
    return Await([this] { return Machine::Content(waiting_) != "0\n"; });
  }

  std::unique_ptr<Machine> machine_;
  std::unique_ptr<xenstore::Store> store_;
  ChildProcess server_;
  std::string mount_, waiting_;
  bool mounted_ = false;
  grants::DomainId guest_ = 0;
};

TEST_F(HungStorageTest, ServiceEndsAlthoughAnImageIsStillBeingOpened) {
  server_.Signal(SIGSTOP);
  ASSERT_TRUE(
      xenstore::AddDevices(
          *store_, {.frontend = guest_, .backend = 0, .id = 0},
          {{.number = 1, .type = "blk", .keys = {{"path", mount_ + "/not-looked-up-before"}}}})
          .ok());
  ASSERT_TRUE(KernelWaits());
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 1);
  EXPECT_THAT(machine_->service_log(), HasSubstr("it is left to the kernel"));
}

// Its requests could still reach the guest's memory and the image.
TEST_F(HungStorageTest, NoOtherServesWhileTheKernelWorksForOneThatWasKilled) {
  const auto attached =
      machine_->Ctl({"attach", "g1", absl::StrCat("type=blk,num=1,path=", mount_, "/disk")});
  ASSERT_TRUE(attached.ok()) << attached.status();
  ASSERT_EQ(attached->exit_status, 0) << attached->err;
  server_.Signal(SIGSTOP);
  auto reader = ChildProcess::Start(
      machine_->FrontendCommand(guest_, {"blk", "read", "--dev=1", "--offset=0", "--length=4096"}),
      machine_->PathOf("reader.log"));
  ASSERT_TRUE(reader.ok()) << reader.status();
  ASSERT_TRUE(KernelWaits());
  machine_->service().Signal(SIGKILL);
  const pid_t killed = machine_->service().pid();
  const auto second = machine_->RunSecondService();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->exit_status, 75) << second->out;
  EXPECT_THAT(second->err, HasSubstr(absl::StrCat("process ", killed)));
  // It takes its time to end.
  std::string told;
  EXPECT_TRUE(Await([&] {
    const auto list = machine_->Ctl({"list"});
    told = list.ok() ? list->err : std::string(list.status().message());
    return absl::StrContains(told, absl::StrCat("process ", killed, ", is ending"));
  })) << told;
  reader->Signal(SIGKILL);
  reader->Wait();
  server_.Signal(SIGCONT);
  machine_->service().Wait();
  ASSERT_EQ(machine_->StartService(), absl::OkStatus());
  const auto read =
      machine_->Frontend(guest_, {"blk", "read", "--dev=1", "--offset=0", "--length=4096"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->exit_status, 0) << read->err;
}

}  // namespace
}  // namespace vmsg::test
