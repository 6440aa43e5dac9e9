// SPDX-License-Identifier: Apache-2.0
// A console over a real pseudo terminal and a real Unix socket, and its user's end.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "backend/devices/console/console_device.h"
#include "tests/devices/device_rig.h"
#include "tests/devices/manual_loop.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {

// Where a console's buffers are, and its queues.
inline constexpr uint64_t kConsoleBuffer = DeviceRig::kBuffers;

// Both kinds of terminal, and how a user attaches to them.
class ConsoleTest : public ::testing::TestWithParam<const char*> {
 protected:
  bool is_pty() const { return std::string(GetParam()) == "pty"; }

  void SetUp() override {
    path_ = dir_ / "console";
    auto opened = backend::OpenDevice({.type = "console", .keys = {{GetParam(), path_}}});
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened_ = *std::move(opened);
    Connect();
  }
  void TearDown() override {
    End();
    backend::CloseDevice(std::move(opened_));
  }

  // A session of the guest's, on what was opened once.
  void Connect() {
    Begin();
    ASSERT_TRUE(loop_.Settle());
  }
  // Nothing has been looked at yet.
  void Begin() {
    auto opened = opened_.Duplicate();
    ASSERT_TRUE(opened.ok()) << opened.status();
    auto device = backend::CreateDevice(*std::move(opened), {.loop = &loop_});
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = static_cast<backend::ConsoleDevice*>(device->get());
    rig_ = std::make_unique<DeviceRig>(*std::move(device));
    rig_->Start(wire::kConsoleFeatureSize);
  }

  // The end of the session; what nobody reads is waited for.
  void End() {
    if (rig_ == nullptr) return;
    if (rig_->started()) Reset();
    rig_.reset();
  }
  void Reset() {
    rig_->BeginReset();
    if (!device_->Settle(*rig_)) {
      const absl::Time begin = loop_.Now();
      while (rig_->settled() == 0) {
        ASSERT_LE(loop_.Now() - begin, backend::kConsoleLastWords);
        EXPECT_TRUE(loop_.Settle());
        loop_.Advance(backend::kConsoleStall);
      }
    }
    rig_->EndReset();
  }

  // A user's end. Non-blocking.
  backend::UniqueFd Attach() {
    backend::UniqueFd user;
    if (is_pty()) {
      user = backend::UniqueFd(open(path_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    } else {
      user = backend::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_un address = {};
      address.sun_family = AF_UNIX;
      path_.copy(address.sun_path, sizeof address.sun_path - 1);
      EXPECT_EQ(connect(user.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    EXPECT_TRUE(user);
    EXPECT_TRUE(loop_.Settle());
    return user;
  }

  uint64_t Counter(absl::string_view wanted) {
    std::optional<uint64_t> found;
    device_->VisitCounters([&](absl::string_view name, uint64_t value) {
      if (name == wanted) found = value;
    });
    EXPECT_TRUE(found.has_value()) << wanted;
    return found.value_or(0);
  }
  uint64_t unread() { return Counter("dropped-unread-bytes"); }
  uint64_t unattached() { return Counter("dropped-unattached-bytes"); }

  void GuestWrites(const std::string& text, uint64_t address = kConsoleBuffer) {
    rig_->Put(address, text);
    rig_->Submit(wire::kConsoleTransmitQueue,
                 {{address, static_cast<uint32_t>(text.size()), false}});
    rig_->Kick(wire::kConsoleTransmitQueue);
  }
  // What the user sees: `size` bytes, all of which must come.
  std::string UserReads(const backend::UniqueFd& user, size_t size) {
    std::string seen;
    EXPECT_TRUE(loop_
                    .Watch(user.get(), EPOLLIN,
                           [&](uint32_t) {
                             char bytes[65536];
                             const ssize_t got = read(user.get(), bytes,
                                                      std::min(sizeof bytes, size - seen.size()));
                             if (got > 0) seen.append(bytes, got);
                           })
                    .ok());
    EXPECT_TRUE(loop_.RunUntil([&] { return seen.size() == size; }));
    loop_.Unwatch(user.get());
    return seen;
  }

  TempDir dir_;
  std::string path_;
  backend::OpenedDevice opened_;
  ManualLoop loop_;
  backend::ConsoleDevice* device_ = nullptr;
  std::unique_ptr<DeviceRig> rig_;
};

}  // namespace vmsg::testing
