// SPDX-License-Identifier: Apache-2.0
// Consoles between processes: a client that is attached and does not read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "absl/strings/match.h"
#include "backend/devices/unique_fd.h"
#include "frontend-model/drivers/console_driver.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

using frontend::ConsoleDriver;
using frontend::DeviceClient;

// Met only by a failure.
constexpr int kPatienceMs = 60'000;

TEST(ConsoleEndToEndTest, AClientThatDoesNotReadStopsNobodyAndWhatItMissedIsCounted) {
  auto machine = Machine::Start();
  ASSERT_TRUE(machine.ok()) << machine.status();
  const std::string path = (*machine)->PathOf("console");
  auto guest = (*machine)->CreateGuest("g1", {"type=console,socket=" + path});
  ASSERT_TRUE(guest.ok()) << guest.status();
  auto connection = (*machine)->Connect(*guest);
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto device = DeviceClient::Probe((*connection)->bus(), (*connection)->memory(), 0);
  ASSERT_TRUE(device.ok()) << device.status();
  auto console = ConsoleDriver::Create(*std::move(device));
  ASSERT_TRUE(console.ok()) << console.status();
  const auto deadline = frontend::After(std::chrono::milliseconds(kPatienceMs));

  const backend::UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(write(client.get(), "x", 1), 1);
  ASSERT_TRUE((*console)->WaitReceived(deadline).ok()) << "attached";

  // More than the kernel's socket and the backlog hold.
  const absl::Status sent = (*console)->Send(std::string(4 << 20, 'x'), deadline);
  EXPECT_TRUE(sent.ok()) << sent;
  (*machine)->service().Signal(SIGUSR1);
  for (int waited = 0; waited < kPatienceMs; waited += 10) {
    if (absl::StrContains((*machine)->service_log(), "device 0: dropped-unread-bytes ")) return;
    poll(nullptr, 0, 10);
  }
  FAIL() << (*machine)->service_log();
}

}  // namespace
}  // namespace vmsg::test
