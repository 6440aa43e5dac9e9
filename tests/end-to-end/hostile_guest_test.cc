// SPDX-License-Identifier: Apache-2.0
// A guest that breaks the rules loses what it broke, is named in the log, and nobody else notices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/hostile/hostile_driver.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BusConnection;
using frontend::DeviceClient;
using testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(60);

class HostileGuestTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    content_ = Machine::Pattern(1 << 20, 7);
    good_ = Guest("good", {Disk("good.img")});
    bad_ = Guest("bad", {Disk("bad.img")});
    auto connection = machine_->Connect(bad_);
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = *std::move(connection);
  }
  void TearDown() override {
    // Whatever happened: the service lives and serves the other guest.
    auto read = machine_->Frontend(good_, {"blk", "read", "--dev=0", "-"});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->exit_status, 0) << read->err << machine_->service_log();
    EXPECT_TRUE(read->out == content_);
    // And the image of the guest that misbehaved is as it was.
    EXPECT_TRUE(Machine::Content(machine_->PathOf("bad.img")) == content_);
  }

  std::string Disk(const std::string& name) {
    return absl::StrCat("type=blk,path=", machine_->MakeFile(name, content_));
  }
  grants::DomainId Guest(const std::string& name, const std::vector<std::string>& entries) {
    auto domain = machine_->CreateGuest(name, entries);
    EXPECT_TRUE(domain.ok()) << domain.status();
    return domain.ok() ? *domain : 0;
  }
  // Waits until the bad guest's bus is in this state, in Dom0's eyes.
  void ExpectBackendState(const std::string& wanted) {
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    const std::string path =
        absl::StrCat(xenstore::BusAddress{.frontend = bad_}.BackendPath(), "/state");
    ASSERT_EQ((*store)->Watch(path, "state"), absl::OkStatus());
    std::string now;
    while (now != wanted) {
      pollfd fd = {(*store)->fd(), POLLIN, 0};
      ASSERT_GT(poll(&fd, 1, 60'000), 0) << "state is " << now << "\n" << machine_->service_log();
      auto events = (*store)->TakeWatchEvents();
      ASSERT_TRUE(events.ok()) << events.status();
      auto state = (*store)->Read(path);
      if (state.ok()) now = *state;
    }
  }
  // The reason is where an administrator looks: log and hotplug-error.
  void ExpectBusRefusedBecause(const std::string& reason) {
    ExpectBackendState("6");
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    ASSERT_TRUE(store.ok()) << store.status();
    auto error = (*store)->Read(
        absl::StrCat(xenstore::BusAddress{.frontend = bad_}.BackendPath(), "/hotplug-error"));
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_THAT(*error, HasSubstr(reason));
    EXPECT_THAT(machine_->service_log(), HasSubstr(reason));
    auto counts = machine_->xen().DomainCounts(bad_);
    ASSERT_TRUE(counts.ok()) << counts.status();
    EXPECT_EQ(counts->pinned, 0) << "something of the guest's is still mapped";
  }
  // Waits for room while the backend has not taken what was pushed before.
  void Push(frontend::RawBus& raw, uint8_t type, uint8_t msg_id,
            std::span<const std::byte> payload) {
    absl::Status pushed;
    ASSERT_EQ(connection_->bus().WaitUntil(
                  [&] {
                    pushed = raw.PushMessage(type, msg_id, 0, 0, payload);
                    return !absl::IsResourceExhausted(pushed);
                  },
                  After(kPatience)),
              absl::OkStatus());
    ASSERT_EQ(pushed, absl::OkStatus());
  }
  void ExpectBusStillWorks() {
    auto ping = connection_->bus().Ping(42, After(kPatience));
    EXPECT_TRUE(ping.ok()) << ping.status() << machine_->service_log();
  }

  std::unique_ptr<Machine> machine_;
  std::string content_;
  grants::DomainId good_ = 0, bad_ = 0;
  std::unique_ptr<BusConnection> connection_;
};

TEST_F(HostileGuestTest, ACursorThatJumpsEndsItsBus) {
  frontend::RawBus raw(connection_->bus(), /*consume=*/true);
  raw.ScribbleOutProd(1u << 30);
  ASSERT_EQ(raw.Kick(), absl::OkStatus());
  ExpectBusRefusedBecause("prod");
}

TEST_F(HostileGuestTest, ACursorThatGoesBackEndsItsBus) {
  ExpectBusStillWorks();
  frontend::RawBus raw(connection_->bus(), /*consume=*/true);
  raw.ScribbleOutProd(0);
  ASSERT_EQ(raw.Kick(), absl::OkStatus());
  ExpectBusRefusedBecause("prod");
}

// [bus:Basic Concepts / Revisions / Advertising Transport Parameters]
TEST_F(HostileGuestTest, ARecordLongerThanTheMessageSizeEndsItsBus) {
  frontend::RawBus raw(connection_->bus(), /*consume=*/true);
  std::array<std::byte, 504> payload = {};
  ASSERT_EQ(raw.PushMessage(2, 3, 0, 1, payload), absl::OkStatus());
  ExpectBusRefusedBecause("msg_size");
}

// [bus:Basic Concepts / Error Signaling / Bus]
// Malformed headers and unsupported ids are discarded without further
// traffic.
TEST_F(HostileGuestTest, MalformedMessagesAreDroppedWithoutAnswerAndTheBusGoesOn) {
  {
    frontend::RawBus raw(connection_->bus(), /*consume=*/true);
    const std::array<std::byte, 40> payload = {};
    for (int id = 0; id < 256; ++id) {
      const auto msg_id = static_cast<uint8_t>(id);
      // A response nobody asked for, an id of no message, a payload of the wrong length.
      Push(raw, 1, msg_id, {});
      if (id >= 0x10 && id < 0x40) Push(raw, 0, msg_id, payload);
      Push(raw, 0, 0x0a, std::span(payload).first(7));
    }
    // A ping that is in order, last: what it finds before it would be an answer to the others.
    const std::array<std::byte, 4> data = {std::byte{1}};
    Push(raw, 2, 3, data);
    ASSERT_EQ(raw.WaitForRecords(1, After(kPatience)), absl::OkStatus());
    ASSERT_EQ(raw.records().size(), 1u);
    EXPECT_EQ(raw.records()[0][0], std::byte{3}) << "a bus response";
    EXPECT_EQ(raw.records()[0][1], std::byte{3}) << "PING";
  }
  ExpectBusStillWorks();
}

TEST_F(HostileGuestTest, ABrokenChainCostsThatChainAndTheQueueGoesOn) {
  auto client = DeviceClient::Probe(connection_->bus(), connection_->memory(), 0);
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->Negotiate(0).ok());
  auto queue = frontend::RawQueue::Create(**client, 0, 8);
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ((*client)->Start(), absl::OkStatus());
  const uint64_t reserved = uint64_t{1} << 63;
  const wire::SplitDescriptor broken[] = {
      {.addr = reserved | 4096, .len = 512, .flags = 0, .next = 0},              // a reserved bit
      {.addr = UINT64_MAX, .len = UINT32_MAX, .flags = 0, .next = 0},            // wraps around
      {.addr = 4096, .len = 0, .flags = 0, .next = 0},                           // no length
      {.addr = 4096, .len = 16, .flags = wire::kDescriptorNext, .next = 3},      // a loop of one
      {.addr = 4096, .len = 16, .flags = wire::kDescriptorNext, .next = 99},     // out of the table
      {.addr = 4096, .len = 16, .flags = wire::kDescriptorIndirect, .next = 0},  // not negotiated
  };
  uint16_t made = 0;
  for (const wire::SplitDescriptor& descriptor : broken) {
    queue->SetDescriptor(made, descriptor);
    queue->SetAvailable(made, made);
    ++made;
  }
  queue->SetAvailableIndex(made);
  ASSERT_EQ(queue->Kick(), absl::OkStatus());
  ASSERT_EQ(queue->WaitForUsed(made, After(kPatience)), absl::OkStatus())
      << machine_->service_log();
  for (uint16_t i = 0; i < made; ++i) {
    EXPECT_EQ(queue->used(i).len, 0u) << "chain " << i;
  }
  EXPECT_FALSE((*client)->needs_reset());
  ExpectBusStillWorks();
}

// [driver:Device Operation / Reset / Driver]
// [device:Device Operation / Reset / Device]
TEST_F(HostileGuestTest, AnAvailableIndexThatLiesStopsItsDeviceOnly) {
  auto client = DeviceClient::Probe(connection_->bus(), connection_->memory(), 0);
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->Negotiate(0).ok());
  auto queue = frontend::RawQueue::Create(**client, 0, 8);
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ((*client)->Start(), absl::OkStatus());
  queue->SetAvailableIndex(1000);
  ASSERT_EQ(queue->Kick(), absl::OkStatus());
  // DEVICE_NEEDS_RESET is signalled by EVENT_CONFIG.
  ASSERT_EQ(
      connection_->bus().WaitUntil([&] { return (*client)->needs_reset(); }, After(kPatience)),
      absl::OkStatus())
      << machine_->service_log();
  ExpectBusStillWorks();
  // A reset brings it back.
  EXPECT_EQ((*client)->Reset(), absl::OkStatus());
  auto disk = frontend::BlkDriver::Create(*std::move(client));
  ASSERT_TRUE(disk.ok()) << disk.status();
  auto block = connection_->memory().Allocate(4096, 4096);
  ASSERT_TRUE(block.ok());
  EXPECT_EQ((*disk)->Read(0, block->address(), 4096, After(kPatience)), absl::OkStatus());
  EXPECT_EQ(std::memcmp(block->bytes().data(), content_.data(), 4096), 0);
}

TEST_F(HostileGuestTest, AStormOfEventsAndOfPingsStaysItsOwn) {
  frontend::RawBus raw(connection_->bus(), /*consume=*/true);
  const std::array<std::byte, 4> data = {};
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(raw.Kick(), absl::OkStatus());
    // Full: the backend does not take more than it can answer, and we do not read answers.
    if (i < 2'000) (void)connection_->bus().PushRaw(data);
  }
}

// A request whose directory cannot be right is refused before anything of it is mapped.
TEST_F(HostileGuestTest, AnExtensionWithABadDirectoryIsRefusedAndTheBusGoesOn) {
  for (const uint32_t gref : {0u, 1u, 7u, 0x7fffffffu, UINT32_MAX}) {
    for (const uint32_t pages : {0u, 1u, 4096u, UINT32_MAX}) {
      auto answer = connection_->bus().Call<wire::WindowExtendResponse>(
          0, wire::WindowExtendRequest{.directory_ref = gref, .pages = pages}, After(kPatience));
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_NE(answer->result, 0u) << "gref " << gref << ", " << pages << " pages";
    }
  }
  ExpectBusStillWorks();
}

// A few pages, listed over and over, would take as many of Dom0's grant handles as the guest may
// have pages.
TEST_F(HostileGuestTest, APageIsNotListedASecondTimeWhileItIsMapped) {
  auto platform = machine_->xen().OpenPlatform(bad_);
  ASSERT_TRUE(platform.ok()) << platform.status();
  auto sharer = (*platform)->OpenGrantSharer();
  ASSERT_TRUE(sharer.ok()) << sharer.status();
  auto grant = frontend::GuestMemory::Share(**sharer, 0, 16);
  ASSERT_TRUE(grant.ok()) << grant.status();
  const auto extend = [&] {
    return connection_->bus().Call<wire::WindowExtendResponse>(
        0, wire::WindowExtendRequest{.directory_ref = grant->directory_ref(), .pages = 16},
        After(kPatience));
  };
  const auto first = extend();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_EQ(first->result, 0u) << machine_->service_log();
  const auto pinned = machine_->xen().DomainCounts(bad_);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  for (int i = 0; i < 100; ++i) {
    const auto again = extend();
    ASSERT_TRUE(again.ok()) << again.status();
    ASSERT_EQ(again->result, 1u);
  }
  const auto after = machine_->xen().DomainCounts(bad_);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->pinned, pinned->pinned);
  EXPECT_THAT(machine_->service_log(), HasSubstr("is mapped already"));
  const auto withdrawn = connection_->bus().Call<wire::WindowWithdrawResponse>(
      0, wire::WindowWithdrawRequest{.first_page = first->first_page, .pages = 16},
      After(kPatience));
  ASSERT_TRUE(withdrawn.ok()) << withdrawn.status();
  EXPECT_EQ(withdrawn->result, 0u);
  const auto free_again = extend();
  ASSERT_TRUE(free_again.ok()) << free_again.status();
  EXPECT_EQ(free_again->result, 0u);
  // It is unmapped before its pages go.
  EXPECT_EQ(connection_->Close(), absl::OkStatus());
}

TEST_F(HostileGuestTest, AFloodOfStateChangesIsDrained) {
  auto store = xenstore::OpenStore(machine_->xen().StoreSocket(bad_));
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string scratch =
      absl::StrCat(xenstore::BusAddress{.frontend = bad_}.FrontendPath(), "/state");
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ((*store)->Write(scratch, i % 2 == 0 ? "4" : "garbage"), absl::OkStatus());
  }
  ASSERT_EQ((*store)->Write(scratch, "4"), absl::OkStatus());
}

}  // namespace
}  // namespace vmsg::test
