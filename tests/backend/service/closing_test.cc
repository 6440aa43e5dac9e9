// SPDX-License-Identifier: Apache-2.0
// Images whose close() does not return, as on a server that is not there: only what must wait for
// it does. close() itself is this file's, for the whole program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "frontend-model/transport/device_client.h"
#include "tests/backend/service/service_rig.h"

namespace vmsg::testing {
namespace {

// Closes of one file, which wait while they are held.
struct Closes {
  std::mutex mutex;
  std::condition_variable changed;
  ino_t file = 0;  // guarded by mutex, as everything
  bool held = false;
  int waiting = 0;
  std::vector<std::string> threads;  // that closed it

  void Await(ino_t inode) {
    std::unique_lock lock(mutex);
    if (file == 0 || inode != file) return;
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    threads.emplace_back(name);
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [this] { return !held; });
    --waiting;
  }
};

Closes& TheCloses() {
  static Closes* const closes = new Closes();
  return *closes;
}

}  // namespace
}  // namespace vmsg::testing

extern "C" int close(int fd) {
  struct stat file = {};
  if (fstat(fd, &file) == 0 && S_ISREG(file.st_mode)) {
    vmsg::testing::TheCloses().Await(file.st_ino);
  }
  return static_cast<int>(syscall(SYS_close, fd));
}

namespace vmsg::testing {
namespace {

using ::testing::Contains;
using ::testing::Not;

class ClosingTest : public ServiceRig {
 protected:
  void SetUp() override {
    ServiceRig::SetUp();
    path_ = absl::StrCat(::testing::TempDir(), "/closing-", getpid());
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
    struct stat file = {};
    ASSERT_EQ(fstat(fd, &file), 0);
    ::close(fd);
    guest_ = NewGuest();
    bus_ = Attach(guest_, {0});
    other_ = NewGuest();
    Attach(other_, {0});
    AttachDisk();
    std::lock_guard lock(closes_.mutex);
    closes_.threads.clear();
    closes_.file = file.st_ino;
  }
  void TearDown() override {
    Hold(false);
    ServiceRig::TearDown();
    std::lock_guard lock(closes_.mutex);
    closes_.file = 0;
    EXPECT_THAT(closes_.threads, Not(Contains("vmsg-io")));
    unlink(path_.c_str());
  }
  void AttachDisk() {
    auto added = xenstore::AddDevices(*store_, bus_,
                                      {{.number = 5, .type = "blk", .keys = {{"path", path_}}}});
    ASSERT_TRUE(added.ok()) << added.status();
    WaitFor(bus_, "device/5/hotplug-status", "connected");
  }
  void Hold(bool held) {
    std::lock_guard lock(closes_.mutex);
    closes_.held = held;
    closes_.changed.notify_all();
  }
  void AwaitClosing() {
    std::unique_lock lock(closes_.mutex);
    EXPECT_TRUE(closes_.changed.wait_for(lock, std::chrono::milliseconds(kPatienceMs),
                                         [this] { return closes_.waiting > 0; }));
  }
  void OtherGuestIsServed() {
    auto connection = Connect(other_);
    ASSERT_TRUE(connection.ok()) << connection.status();
    EXPECT_EQ((*connection)->Close(), absl::OkStatus());
  }
  int OpenDescriptors() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      count += std::filesystem::read_symlink(entry, gone) == path_ ? 1 : 0;
    }
    return count;
  }
  static bool HasDisk(frontend::BusConnection& connection) {
    return frontend::DeviceClient::Probe(connection.bus(), connection.memory(), 5).ok();
  }

  Closes& closes_ = TheCloses();
  std::string path_;
  grants::DomainId guest_ = 0, other_ = 0;
  xenstore::BusAddress bus_;
};

TEST_F(ClosingTest, OtherGuestsAreServedWhileTheFilesOfAConnectionAreBeingClosed) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(HasDisk(**connection));
  Hold(true);
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
  AwaitClosing();
  OtherGuestIsServed();
}

TEST_F(ClosingTest, OtherGuestsAreServedWhileTheFilesOfARemovedDeviceAreBeingClosed) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  Hold(true);
  ASSERT_TRUE(xenstore::RequestDeviceRemoval(*store_, bus_, 5, /*force=*/true).ok());
  AwaitClosing();
  OtherGuestIsServed();
  EXPECT_NE(Read(bus_, "device/5/hotplug-status"), "(none)") << "its image is still open";
  Hold(false);
  WaitFor(bus_, "device/5/hotplug-status", "(none)");
  EXPECT_EQ(OpenDescriptors(), 0);
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
}

TEST_F(ClosingTest, GuestThatConnectsAgainAndAgainHasNoMoreFilesOpen) {
  auto connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  const int open = OpenDescriptors();
  Hold(true);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ((*connection)->Close(), absl::OkStatus());
    AwaitClosing();
    connection = absl::CancelledError();  // and with it the claim
    connection = Connect(guest_);
    ASSERT_TRUE(connection.ok()) << connection.status();
    EXPECT_LE(OpenDescriptors(), open);
    EXPECT_FALSE(HasDisk(**connection));
  }
  // It gets its disk when that is over.
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
  Hold(false);
  connection = absl::CancelledError();
  connection = Connect(guest_);
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(HasDisk(**connection));
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
}

// SIGTERM while the disk does not answer: the service ends within its limit, and says what did not.
TEST_F(ClosingTest, TheServiceEndsWithinALimitAlthoughABusDoesNot) {
  StopService();
  hold_timers_ = true;
  service_options_.domain_check_interval = absl::ZeroDuration();
  StartService();
  WaitFor(bus_, "device/5/hotplug-status", "connected");
  Hold(true);
  loop_->Post([this] { supervisor_->Stop(); });
  AwaitClosing();
  EXPECT_EQ(RunHeldTimers(), 1u);
  thread_.join();
  ASSERT_TRUE(stopped_.has_value());
  EXPECT_EQ(stopped_->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(stopped_->message()), ::testing::HasSubstr("buses did not end in 10s"));
  Hold(false);
  supervisor_.reset();
  loop_.reset();
}

}  // namespace
}  // namespace vmsg::testing
