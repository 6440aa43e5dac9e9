// SPDX-License-Identifier: Apache-2.0
// xen-emu against clients that do not follow its protocol: they lose their connection or get a
// refusal, everybody else is served on.
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <random>

#include "grants/emulated/connection.h"
#include "grants/emulated/shared_page.h"
#include "tests/emulated-xen/machine_test.h"

namespace vmsg::test {
namespace {

using emu::Connection;
using emu::FrameHeader;
using emu::Operation;
using grants::Access;

class Protocol : public MachineTest {
 protected:
  void SetUp() override { Boot(); }
  // Served on, and nothing left behind.
  void TearDown() override {
    raw_.Reset();
    auto sharer = Sharer();
    auto mapper = Mapper();
    auto shared = sharer->Share(0, 3, Access::kReadWrite);
    ASSERT_TRUE(shared.ok()) << shared.status();
    ASSERT_TRUE(mapper->Map(guest_, shared->refs(), Access::kReadWrite).ok());
    shared->Reset();
    auto counts = xen_->DomainCounts(guest_);
    ASSERT_TRUE(counts.ok()) << counts.status();
    EXPECT_EQ(counts->grants, 0);
    EXPECT_EQ(counts->pinned, 0);
    EXPECT_EQ(counts->ports, 0);
  }

  int Raw() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = xen_->DomainDirectory(guest_) + "/hypervisor";
    memcpy(address.sun_path, path.data(), path.size());
    raw_ = emu::OwnedFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(raw_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return raw_.get();
  }
  static void SendBytes(int fd, const void* bytes, size_t size) {
    ASSERT_EQ(send(fd, bytes, size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
  }
  static void SendHeader(int fd, uint32_t size, Operation operation) {
    const FrameHeader header{size, static_cast<uint16_t>(operation), 0};
    SendBytes(fd, &header, sizeof(header));
  }
  static bool IsClosedByServer(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
  }
  std::unique_ptr<Connection> Open() {
    return *Connection::Open(xen_->DomainDirectory(guest_) + "/hypervisor");
  }

  emu::OwnedFd raw_;
};

TEST_F(Protocol, FrameShorterThanItsHeaderEndsTheConnection) {
  const int fd = Raw();
  SendHeader(fd, sizeof(FrameHeader) - 1, Operation::kMap);
  EXPECT_TRUE(IsClosedByServer(fd));
}

TEST_F(Protocol, FrameLongerThanAnyEndsTheConnection) {
  const int fd = Raw();
  SendHeader(fd, emu::kMaxFrameSize + 1, Operation::kMap);
  EXPECT_TRUE(IsClosedByServer(fd));
}

TEST_F(Protocol, HalfAFrameHoldsNobodyUp) {
  SendHeader(Raw(), emu::kMaxFrameSize, Operation::kMap);
  EXPECT_TRUE(xen_->List().ok());
  SendBytes(raw_.get(), "xx", 2);
  EXPECT_TRUE(xen_->List().ok());
}

TEST_F(Protocol, FrameInPiecesIsServed) {
  const int fd = Raw();
  struct {
    FrameHeader header{sizeof(FrameHeader) + sizeof(emu::ShareRequest),
                       static_cast<uint16_t>(Operation::kShare), 0};
    emu::ShareRequest request{.with = 0, .writable = 1, .pages = 1, .known_memory = 0};
  } frame;
  for (size_t i = 0; i < sizeof(frame); ++i) {
    SendBytes(fd, reinterpret_cast<const char*>(&frame) + i, 1);
    ASSERT_TRUE(xen_->List().ok());
  }
  FrameHeader answer;
  ASSERT_EQ(recv(fd, &answer, sizeof(answer), 0), static_cast<ssize_t>(sizeof(answer)));
  EXPECT_EQ(answer.status, 0);
}

TEST_F(Protocol, RefusesUnknownOperation) {
  EXPECT_EQ(Open()->Call(static_cast<Operation>(77), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(Protocol, RefusesBodiesOfAWrongSize) {
  auto connection = Open();
  const std::byte bytes[64] = {};
  for (const Operation operation : {Operation::kMap, Operation::kShare, Operation::kBindInterdomain,
                                    Operation::kAllocateUnbound, Operation::kUnbind}) {
    for (const size_t size : {0, 1, 7}) {
      EXPECT_EQ(connection->Call(operation, std::span(bytes, size)).status().code(),
                absl::StatusCode::kInvalidArgument)
          << static_cast<int>(operation) << " " << size;
    }
  }
}

TEST_F(Protocol, RefusesACountThatTheBodyDoesNotHold) {
  auto connection = Open();
  const uint32_t refs[2] = {8, 9};
  for (const uint32_t count : {0u, 1u, 3u, 65'537u, 0x4000'0000u, 0x4000'0002u, ~0u}) {
    const emu::MapRequest request{.domain = 0, .writable = 1, .count = count, .known_memory = 0};
    EXPECT_EQ(
        connection->Call(Operation::kMap, request, std::as_bytes(std::span(refs))).status().code(),
        absl::StatusCode::kInvalidArgument)
        << count;
  }
}

TEST_F(Protocol, RefusesPortsBeforeEventsAreOpen) {
  EXPECT_EQ(Open()->Call(Operation::kAllocateUnbound, emu::PortRequest{}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(Protocol, RefusesToOpenEventsTwice) {
  auto connection = Open();
  EXPECT_TRUE(connection->Call(Operation::kOpenEvents, {}).ok());
  EXPECT_EQ(connection->Call(Operation::kOpenEvents, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(Protocol, RefusesToOpenReleasesTwice) {
  auto connection = Open();
  EXPECT_TRUE(connection->Call(Operation::kOpenReleases, {}).ok());
  EXPECT_EQ(connection->Call(Operation::kOpenReleases, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(Protocol, ReleasePageFullOfNonsenseReleasesNobodysMappings) {
  auto sharer = Sharer();
  auto mapper = Mapper();
  auto shared = sharer->Share(0, 2, Access::kReadWrite);
  auto mapping = mapper->Map(guest_, shared->refs(), Access::kReadWrite);
  ASSERT_TRUE(mapping.ok());
  auto connection = Open();
  auto reply = connection->Call(Operation::kOpenReleases, {});
  ASSERT_TRUE(reply.ok());
  auto page = emu::SharedPage<emu::ReleasePage>::Map(reply->fds[0]);
  ASSERT_TRUE(page.ok());
  for (int round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < emu::ReleasePage::kSlots; ++i) (*page)->slot(i).store(i + 1);
    EXPECT_EQ(xen_->DomainCounts(guest_)->pinned, 2);
  }
}

TEST_F(Protocol, AGuestRunsNoCommands) {
  EXPECT_EQ(Open()->Call(Operation::kCommand, std::as_bytes(std::span("list", 4))).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(Protocol, ReleasingWhatIsNotHeldIsNothing) {
  auto sharer = Sharer();
  auto shared = sharer->Share(0, 2, Access::kReadWrite);
  auto connection = Open();
  for (uint64_t id = 0; id < 50; ++id) {
    connection->Post(Operation::kUnshare, {.id = id});
    connection->Post(Operation::kUnmap, {.id = id});
  }
  EXPECT_FALSE(connection->Call(static_cast<Operation>(77), {}).ok());
  EXPECT_EQ(xen_->DomainCounts(guest_)->grants, 2) << "another handle's grants were ended";
}

TEST_F(Protocol, AClientThatDoesNotReadIsNotServedWithoutBound) {
  const int fd = Raw();
  fcntl(fd, F_SETFL, O_NONBLOCK);
  struct {
    FrameHeader header{sizeof(FrameHeader) + sizeof(emu::ShareRequest),
                       static_cast<uint16_t>(Operation::kShare), 0};
    emu::ShareRequest request{.with = 0, .writable = 1, .pages = 64, .known_memory = 0};
  } frame;
  // Until its requests are no longer taken, or it is thrown out.
  ssize_t sent = 0;
  for (int i = 0; i < 100'000 && sent >= 0; ++i) {
    sent = send(fd, &frame, sizeof(frame), MSG_NOSIGNAL);
    if (sent >= 0 && i % 64 == 0) {
      ASSERT_TRUE(xen_->List().ok());
    }
  }
  EXPECT_LT(sent, 0) << "it took everything";
  EXPECT_TRUE(xen_->List().ok());
}

TEST_F(Protocol, RandomBytesHurtNobody) {
  std::mt19937 random(20'261'120);
  for (int round = 0; round < 200; ++round) {
    const int fd = Raw();
    std::vector<uint8_t> bytes(random() % 300);
    for (uint8_t& byte : bytes) byte = random();
    if (bytes.size() >= sizeof(FrameHeader) && round % 2 == 0) {
      const FrameHeader header{static_cast<uint32_t>(bytes.size()),
                               static_cast<uint16_t>(random() % 12), 0};
      memcpy(bytes.data(), &header, sizeof(header));
    }
    send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (round % 10 == 0) {
      ASSERT_TRUE(xen_->List().ok());
    }
  }
  EXPECT_TRUE(xen_->List().ok());
}

}  // namespace
}  // namespace vmsg::test
