// SPDX-License-Identifier: Apache-2.0
// xen-emu as a program, its nodes in the store, and its end.
#include <gmock/gmock.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>

#include "tests/emulated-xen/machine_test.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Program : public MachineTest {
 protected:
  struct Outcome {
    int status;
    std::string output;  // both streams
  };
  // Standard input is a pipe that is closed.
  static Outcome Run(const std::string& arguments) {
    const std::string command = std::string(": | ") + XEN_EMU_PROGRAM + " " + arguments + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    Outcome outcome{-1, ""};
    if (pipe == nullptr) return outcome;
    for (int c; (c = fgetc(pipe)) != EOF;) outcome.output.push_back(static_cast<char>(c));
    outcome.status = WEXITSTATUS(pclose(pipe));
    return outcome;
  }
  std::string Dir() const { return " --dir " + xen_->directory(); }
  static bool Exists(const std::string& path) {
    struct stat unused;
    return stat(path.c_str(), &unused) == 0;
  }
};

TEST_F(Program, CreateListDestroy) {
  Boot();
  EXPECT_EQ(Run("create" + Dir() + " --name web --memory 64").output, "2\n");
  EXPECT_EQ(Run("list" + Dir()).output,
            "0 Domain-0 running 256\n1 g1 running 256\n2 web running 64\n");
  EXPECT_EQ(Run("shutdown" + Dir() + " web").status, 0);
  EXPECT_THAT(Run("list" + Dir()).output, HasSubstr("2 web shutdown 64"));
  EXPECT_EQ(Run("destroy" + Dir() + " web").status, 0);
  EXPECT_THAT(Run("list" + Dir()).output, Not(HasSubstr("web")));
  EXPECT_EQ(Run("create" + Dir() + " --name web").output, "3\n") << "a domid was used again";
}

TEST_F(Program, RefusalsSayWhy) {
  Boot();
  const std::pair<const char*, const char*> refused[] = {
      {"create --name g1", "domain 1 is called g1"},
      {"create --name 9x", "not a domain's name"},
      {"create --name a/b", "not a domain's name"},
      {"create --memory 0", "MiB"},
      {"create --memory lots", "lots"},
      {"destroy nobody", "no domain nobody"},
      {"destroy 0", "Dom0"},
      {"shutdown 0", "Dom0"},
      {"fault nonsense", "nonsense"},
      {"frobnicate", "frobnicate"}};
  for (const auto& [arguments, why] : refused) {
    const Outcome outcome = Run(arguments + Dir());
    EXPECT_EQ(outcome.status, 1) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(why)) << arguments;
  }
  EXPECT_EQ(Run("list").status, 2) << "no directory";
}

TEST_F(Program, ADirectoryIsServedOnce) {
  Boot();
  const Outcome second = Run("serve" + Dir());
  EXPECT_EQ(second.status, 1);
  EXPECT_THAT(second.output, HasSubstr("another xen-emu"));
}

TEST_F(Program, NobodyServesThere) {
  const absl::Status status = grants::OpenPlatform("emulated:/nowhere").status();
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("/nowhere"), HasSubstr("xen-emu")));
}

TEST_F(Program, ANewDomainHasItsNodes) {
  Boot();
  auto store = *xenstore::OpenStore(xen_->StoreSocket(guest_));
  EXPECT_EQ(*store->Read("name"), "g1");
  EXPECT_EQ(*store->Read("domid"), std::to_string(guest_));
  EXPECT_EQ(*store->Read("memory/target"), "262144");
  EXPECT_EQ(*store->Read(*store->Read("vm") + "/name"), "g1");
  EXPECT_TRUE(store->Write("data/mine", "1").ok());
  EXPECT_TRUE(store->Write("error/device/virtio-msg/0/error", "1").ok());
  EXPECT_EQ(store->Write("name", "root").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(store->Write("device/virtio-msg/0/state", "1").code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(Program, ADestroyedDomainLosesItsNodesAndWatchersHearOfIt) {
  Boot();
  auto store = *xenstore::OpenStore(xen_->StoreSocket(0));
  EXPECT_TRUE(*store->IsDomainIntroduced(guest_));
  ASSERT_TRUE(store->Watch("@releaseDomain", "released").ok());
  ASSERT_TRUE(store->Watch("@introduceDomain", "introduced").ok());
  // The first events are for the watches themselves.
  std::vector<xenstore::WatchEvent> events;
  const auto take = [&](size_t wanted) {
    events.clear();
    while (events.size() < wanted) {
      auto taken = store->TakeWatchEvents();
      ASSERT_TRUE(taken.ok());
      events.insert(events.end(), taken->begin(), taken->end());
    }
  };
  take(2);
  ASSERT_TRUE(xen_->Destroy(guest_).ok());
  take(1);
  EXPECT_EQ(events[0].token, "released");
  EXPECT_FALSE(*store->IsDomainIntroduced(guest_));
  EXPECT_EQ(store->Read("/local/domain/" + std::to_string(guest_)).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(Exists(xen_->DomainDirectory(guest_)));
  ASSERT_TRUE(xen_->CreateDomain("g2").ok());
  take(1);
  EXPECT_EQ(events[0].token, "introduced");
}

TEST_F(Program, EndsCleanlyOnSignals) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Boot();
    ASSERT_EQ(kill(xen_->pid(), signal), 0);
    siginfo_t info{};
    ASSERT_EQ(waitid(P_PID, xen_->pid(), &info, WEXITED | WNOWAIT), 0);
    EXPECT_EQ(info.si_code, CLD_EXITED);
    EXPECT_EQ(info.si_status, 0);
    EXPECT_FALSE(Exists(xen_->directory() + "/hypervisor"));
    EXPECT_FALSE(Exists(xen_->directory() + "/domains"));
  }
}

TEST_F(Program, ServesADirectoryWhoseServerWasKilled) {
  Boot();
  ASSERT_EQ(kill(xen_->pid(), SIGKILL), 0);
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, xen_->pid(), &info, WEXITED | WNOWAIT), 0);
  const Outcome outcome = Run("serve --until-stdin-closes" + Dir());
  EXPECT_THAT(outcome.output, HasSubstr("ready"));
  EXPECT_EQ(outcome.status, 0);
}

}  // namespace
}  // namespace vmsg::test
