// SPDX-License-Identifier: Apache-2.0
// A guest that writes its state node a million times, as fast as the store takes it (XSA-349): the
// service drains what it is told, holds no more memory for it, and serves the other guests.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "tests/backend/service/service_rig.h"
#include "tests/scale/held_resources.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::testing {
namespace {

constexpr size_t kBatch = 50;  // writes sent before their answers are read

// A guest's store connection that does not wait for each answer, as a hostile kernel would not.
class EagerWriter {
 public:
  explicit EagerWriter(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{.sun_family = AF_UNIX};
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~EagerWriter() { close(fd_); }

  void Add(const std::string& path, const std::string& value) {
    const std::string payload = path + '\0' + value;
    const xsd_sockmsg header{
        .type = XS_WRITE, .req_id = 1, .tx_id = 0, .len = static_cast<uint32_t>(payload.size())};
    batch_.append(reinterpret_cast<const char*>(&header), sizeof(header)).append(payload);
    ++waiting_;
  }
  // Sends what was added; returns how many of them the store took.
  size_t Flush() {
    for (size_t sent = 0; sent < batch_.size();) {
      const ssize_t n = send(fd_, batch_.data() + sent, batch_.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return 0;
      sent += static_cast<size_t>(n);
    }
    batch_.clear();
    size_t taken = 0;
    for (; waiting_ > 0; --waiting_) {
      xsd_sockmsg header{};
      std::array<char, XENSTORE_PAYLOAD_MAX> payload;
      if (!Read(&header, sizeof(header)) || header.len > payload.size() ||
          !Read(payload.data(), header.len)) {
        return taken;
      }
      if (header.type == XS_WRITE) ++taken;
    }
    return taken;
  }

 private:
  bool Read(void* bytes, size_t size) {
    while (next_ + size > input_.size()) {
      std::array<char, 65536> more;
      const ssize_t n = recv(fd_, more.data(), more.size(), 0);
      if (n <= 0) return false;
      input_.erase(0, std::exchange(next_, 0));
      input_.append(more.data(), static_cast<size_t>(n));
    }
    std::memcpy(bytes, input_.data() + next_, size);
    next_ += size;
    return true;
  }
  const int fd_;
  std::string batch_;
  std::string input_;
  size_t next_ = 0;
  size_t waiting_ = 0;
};

class WatchFloodTest : public ServiceRig {
 protected:
  // `values` one after the other, again and again.
  void Flood(const std::vector<std::string>& values) {
    const grants::DomainId bad = NewGuest();
    const grants::DomainId good = NewGuest();
    const auto bad_bus = Attach(bad, {0});
    Attach(good, {0});
    auto connection = Connect(good);
    ASSERT_TRUE(connection.ok()) << connection.status();
    EagerWriter writer(xen_->StoreSocket(bad));
    const std::string node = bad_bus.FrontendPath() + "/state";

    const size_t writes = Repetitions(1'000'000) / values.size() * values.size();
    HeldResources before;
    size_t most_heap = 0;
    size_t taken = 0;
    uint32_t pings = 0;
    for (size_t written = 0; written < writes;) {
      for (size_t i = 0; i < kBatch && written < writes; ++i, ++written) {
        writer.Add(node, values[written % values.size()]);
      }
      taken += writer.Flush();
      if (written == 200 * kBatch) before = HeldResources::OfThisProcess();
      if (written % (200 * kBatch) != 0) continue;
      most_heap = std::max(most_heap, HeldResources::OfThisProcess().heap);
      // In the middle of it.
      auto ping = (*connection)->bus().Ping(++pings, frontend::After(std::chrono::seconds(60)));
      ASSERT_TRUE(ping.ok()) << ping.status();
    }
    EXPECT_EQ(taken, writes) << "the store took what it was given";
    EXPECT_LE(most_heap, before.heap + kMostQueued) << "events piled up";
    ASSERT_TRUE((*connection)->Close().ok());
    // The one that flooded is served as soon as it behaves.
    WriteFrontendState(bad_bus, xenstore::XenbusState::kInitialising);
    auto again = Connect(bad);
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_TRUE((*again)->Close().ok());
    again->reset();
    WaitFor(bad_bus, "state", "6");
    if (!kSanitized) {
      EXPECT_LE(HeldResources::OfThisProcess().resident, before.resident + kMostResident);
      EXPECT_LE(ResidentBytes(xen_->pid()), kMostEmulation);
    }
  }
  // The store folds what a reader has not taken yet, so a million writes are some tens of thousands
  // of events of about 100 bytes: a tenth of them kept would be more than this.
  static constexpr size_t kMostQueued = size_t{512} << 10;
  static constexpr size_t kMostResident = size_t{8} << 20;
  static constexpr size_t kMostEmulation = size_t{64} << 20;
};

TEST_F(WatchFloodTest, AMillionStatesThatAreNoneCostNothing) { Flood({"garbage", "1", "", "77"}); }

TEST_F(WatchFloodTest, AMillionStatesOfAllKindsCostNothing) {
  Flood({"3", "4", "5", "6", "1", "2", "7", "8"});
}

}  // namespace
}  // namespace vmsg::testing
