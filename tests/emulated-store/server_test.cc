// SPDX-License-Identifier: Apache-2.0
// Connections: what is closed, what waits, and that nothing grows without bound.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/emulated-store/running_store.h"
#include "tools/xen-emu/store/wire/message.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

// The server without a thread: a test dispatches it until nothing is ready.
class Server : public ::testing::Test {
 protected:
  void Make(Options options) { server_ = std::make_unique<StoreServer>(std::move(options)); }
  StoreServer& server() {
    if (server_ == nullptr) Make({});
    return *server_;
  }

  // Returns the client's end, nonblocking.
  int Connect(uint16_t domain) {
    SocketPair pair = MakeSocketPair();
    clients_.push_back(pair.client);
    EXPECT_TRUE(server().AddConnection(pair.server, domain).ok());
    return pair.client;
  }

  void Settle() {
    pollfd ready = {.fd = server().poll_fd(), .events = POLLIN};
    while (poll(&ready, 1, 0) == 1) server().Dispatch();
  }

  // False: the socket takes no more.
  static bool Send(int client, uint32_t type, const std::string& payload) {
    const std::string bytes = EncodeMessage({.type = type, .request = 1, .payload = payload});
    return send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(bytes.size());
  }

  // Whatever has arrived; `closed` when the server hung up.
  static std::string Take(int client, bool* closed = nullptr) {
    std::string bytes;
    std::array<char, 65536> buffer;
    ssize_t got;
    while ((got = recv(client, buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
      bytes.append(buffer.data(), static_cast<size_t>(got));
    }
    if (closed != nullptr) *closed = got == 0 || errno == ECONNRESET;
    return bytes;
  }

  static size_t CountMessages(const std::string& bytes, uint32_t type) {
    MessageReader reader;
    reader.Feed(bytes);
    size_t count = 0;
    while (auto message = reader.Next()) count += message->type == type;
    return count;
  }

  void TearDown() override {
    for (int client : clients_) close(client);
  }

 private:
  std::vector<int> clients_;
  std::unique_ptr<StoreServer> server_;
};

std::string Path(absl::string_view path) { return absl::StrCat(path, absl::string_view("", 1)); }

TEST_F(Server, OversizeMessageClosesItsConnectionOnly) {
  int bad = Connect(5), good = Connect(5);
  xsd_sockmsg header = {.type = XS_READ, .len = 4097};
  ASSERT_EQ(send(bad, &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
  Send(good, XS_READ, Path("/"));
  Settle();
  bool closed = false;
  Take(bad, &closed);
  EXPECT_TRUE(closed);
  EXPECT_EQ(CountMessages(Take(good, &closed), XS_ERROR), 1u);
  EXPECT_FALSE(closed);
  EXPECT_EQ(server().counts().connections, 1u);
}

TEST_F(Server, HalfAMessageWaits) {
  int client = Connect(0);
  const std::string bytes = EncodeMessage({.type = XS_READ, .payload = Path("/tool")});
  send(client, bytes.data(), 10, 0);
  Settle();
  EXPECT_EQ(Take(client), "");
  send(client, bytes.data() + 10, bytes.size() - 10, 0);
  Settle();
  EXPECT_EQ(CountMessages(Take(client), XS_READ), 1u);
}

TEST_F(Server, ClosedClientLeavesNothing) {
  int client = Connect(5);
  Send(client, XS_WATCH, absl::StrCat(Path("/x"), Path("t")));
  Send(client, XS_TRANSACTION_START, Path(""));
  Settle();
  EXPECT_EQ(server().counts().watches, 1u);
  EXPECT_EQ(server().counts().transactions, 1u);
  shutdown(client, SHUT_RDWR);
  Settle();
  EXPECT_EQ(server().counts().watches, 0u);
  EXPECT_EQ(server().counts().transactions, 0u);
  EXPECT_EQ(server().counts().connections, 0u);
}

TEST_F(Server, ClientThatReadsNoAnswersIsNotReadAnyMore) {
  Options options;
  options.output_pause_bytes = 32 * 1024;
  Make(options);
  int client = Connect(5), other = Connect(5);
  ASSERT_TRUE(server().Write("/big", std::string(3000, 'v')).ok());
  ASSERT_TRUE(server().SetPermissions("/big", {{'r', 0}}).ok());
  size_t asked = 0;
  for (bool taken = true; taken; Settle()) {
    taken = false;
    while (Send(client, XS_READ, Path("/big"))) {
      ++asked;
      taken = true;
    }
    ASSERT_LT(asked, 100000u) << "its requests are taken without end";
  }
  EXPECT_LE(server().counts().unread_bytes, options.output_pause_bytes + 4096 + 16);
  Send(other, XS_READ, Path("/big"));
  Settle();
  EXPECT_EQ(CountMessages(Take(other), XS_READ), 1u) << "others are served";
  // Once it reads again it gets an answer to every request.
  std::string answers;
  for (std::string part = Take(client); !part.empty(); part = Take(client)) {
    answers += part;
    Settle();
  }
  EXPECT_EQ(CountMessages(answers, XS_READ), asked);
  EXPECT_EQ(server().counts().unread_bytes, 0u);
}

TEST_F(Server, EventsAGuestDoesNotReadAreDroppedAtItsQuota) {
  Options options;
  options.quotas.event_bytes = 64 * 1024;
  Make(options);
  int guest = Connect(5);
  ASSERT_TRUE(server().Write("/x", "").ok());
  ASSERT_TRUE(server().SetPermissions("/x", {{'r', 0}}).ok());
  Send(guest, XS_WATCH, absl::StrCat(Path("/x"), Path("t")));
  Settle();
  const std::string filler(2000, 'y');
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(server().Write(absl::StrCat("/x/", filler, i), "").ok());
  }
  EXPECT_LE(server().counts().unread_bytes, options.quotas.event_bytes + 4096 + 16);
  bool closed = false;
  for (std::string part = Take(guest, &closed); !part.empty(); part = Take(guest, &closed)) {
    Settle();
  }
  EXPECT_FALSE(closed);
  ASSERT_TRUE(server().Write("/x/last", "").ok());
  EXPECT_EQ(CountMessages(Take(guest), XS_WATCH_EVENT), 1u) << "it hears again after reading";
}

TEST_F(Server, Domain0ThatReadsNoEventsIsClosedAtTheCap) {
  Options options;
  options.output_close_bytes = 256 * 1024;
  Make(options);
  int client = Connect(0);
  Send(client, XS_WATCH, absl::StrCat(Path("/x"), Path("t")));
  Settle();
  const std::string filler(2000, 'y');
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(server().Write(absl::StrCat("/x/", filler, i), "").ok());
    ASSERT_LE(server().counts().unread_bytes, options.output_close_bytes + 4096 + 16);
  }
  EXPECT_EQ(server().counts().connections, 0u);
}

TEST_F(Server, ManyTogglesLeaveNoMoreThanOneEventBehind) {
  int watcher = Connect(0);
  Send(watcher, XS_WATCH, absl::StrCat(Path("/x"), Path("t")));
  Settle();
  Take(watcher);
  for (int i = 0; i < 100000; ++i) {
    ASSERT_TRUE(server().Write("/x", i % 2 == 0 ? "3" : "4").ok());
  }
  EXPECT_LE(server().counts().unread_bytes, 64u);
}

TEST_F(Server, ReleaseClosesTheDomainsConnectionsAndNoOthers) {
  ASSERT_TRUE(server().IntroduceDomain(5).ok());
  int first = Connect(5), second = Connect(5), other = Connect(6);
  ASSERT_TRUE(server().ReleaseDomain(5).ok());
  bool closed = false;
  Take(first, &closed);
  EXPECT_TRUE(closed);
  Take(second, &closed);
  EXPECT_TRUE(closed);
  Take(other, &closed);
  EXPECT_FALSE(closed);
  EXPECT_EQ(server().ReleaseDomain(5).code(), absl::StatusCode::kNotFound);
}

TEST_F(Server, ReleaseByDomain0sRequestClosesThemToo) {
  ASSERT_TRUE(server().IntroduceDomain(5).ok());
  int dom0 = Connect(0), guest = Connect(5);
  Send(dom0, XS_RELEASE, Path("5"));
  Settle();
  EXPECT_EQ(CountMessages(Take(dom0), XS_RELEASE), 1u);
  bool closed = false;
  Take(guest, &closed);
  EXPECT_TRUE(closed);
  EXPECT_FALSE(server().IsIntroduced(5));
}

TEST_F(Server, ConnectionsAreLimitedAndTheFdIsClosed) {
  Options options;
  options.connections = 2;
  Make(options);
  Connect(0);
  Connect(0);
  SocketPair pair = MakeSocketPair();
  EXPECT_EQ(server().AddConnection(pair.server, 0).code(), absl::StatusCode::kResourceExhausted);
  bool closed = false;
  Take(pair.client, &closed);
  EXPECT_TRUE(closed);
  close(pair.client);
}

TEST_F(Server, ToolstackAccesses) {
  EXPECT_TRUE(server().Write("/a/b", "v").ok());
  EXPECT_EQ(*server().Read("/a/b"), "v");
  EXPECT_TRUE(server().SetPermissions("/a/b", {{'n', 5}, {'r', 6}}).ok());
  EXPECT_EQ(server().SetPermissions("/a/b", {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server().SetPermissions("/a/b", {{'q', 5}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(server().Remove("/a").ok());
  EXPECT_EQ(server().Read("/a/b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(server().Write("a", "v").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server().IntroduceDomain(0).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(server().ShutDownDomain(7).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace vmsg::emu::store
