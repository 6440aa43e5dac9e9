// SPDX-License-Identifier: Apache-2.0
// A guest's data arrives, whole, in the right place, and nobody else's does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/drivers/rng_driver.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::BusConnection;
using frontend::DeviceClient;
using testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(60);
constexpr size_t kDiskBytes = 8 << 20;

std::unique_ptr<BlkDriver> OpenDisk(BusConnection& connection, uint16_t number = 0) {
  auto client = DeviceClient::Probe(connection.bus(), connection.memory(), number);
  EXPECT_TRUE(client.ok()) << client.status();
  if (!client.ok()) return nullptr;
  auto disk = BlkDriver::Create(*std::move(client));
  EXPECT_TRUE(disk.ok()) << disk.status();
  return disk.ok() ? *std::move(disk) : nullptr;
}

// The same with disk requests that are copied, as on a PV Dom0, and not.
class DataTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto machine = Machine::Start({absl::StrCat("--bounce=", GetParam())});
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
  }
  grants::DomainId Guest(const std::string& name, const std::vector<std::string>& entries) {
    auto domain = machine_->CreateGuest(name, entries);
    EXPECT_TRUE(domain.ok()) << domain.status();
    return domain.ok() ? *domain : 0;
  }
  std::unique_ptr<Machine> machine_;
};

TEST_P(DataTest, TheWholeDiskReadsAsItIs) {
  const std::string content = Machine::Pattern(kDiskBytes, 1);
  const grants::DomainId guest =
      Guest("g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content))});
  auto read = machine_->Frontend(guest, {"blk", "read", "--dev=0", "-"});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->exit_status, 0) << read->err;
  EXPECT_TRUE(read->out == content)
      << "read " << read->out.size() << " bytes, other than the disk's";
}

TEST_P(DataTest, WhatWasWrittenAndFlushedIsInTheImageWhereItBelongs) {
  std::string content = Machine::Pattern(kDiskBytes, 2);
  const std::string path = machine_->MakeFile("g1.img", content);
  const grants::DomainId guest = Guest("g1", {absl::StrCat("type=blk,path=", path)});
  const std::string written = Machine::Pattern(1 << 20, 3);
  auto write = machine_->Frontend(
      guest, {"blk", "write", "--dev=0", absl::StrCat("--offset=", 3 << 20), "--flush", "-"},
      written);
  ASSERT_TRUE(write.ok()) << write.status();
  EXPECT_EQ(write->exit_status, 0) << write->err;
  content.replace(3 << 20, written.size(), written);
  EXPECT_TRUE(Machine::Content(path) == content);
}

TEST_P(DataTest, TwoGuestsAtOnceEachSeeOnlyTheirOwnDisk) {
  std::unique_ptr<BusConnection> connections[2];
  std::unique_ptr<BlkDriver> disks[2];
  std::string contents[2];
  for (int i = 0; i < 2; ++i) {
    const std::string name = absl::StrCat("g", i);
    contents[i] = Machine::Pattern(1 << 20, 10 + i);
    const grants::DomainId guest =
        Guest(name, {absl::StrCat("type=blk,path=", machine_->MakeFile(name, contents[i]))});
    auto connection = machine_->Connect(guest);
    ASSERT_TRUE(connection.ok()) << connection.status();
    connections[i] = *std::move(connection);
    disks[i] = OpenDisk(*connections[i]);
    ASSERT_NE(disks[i], nullptr);
  }
  for (int i = 0; i < 2; ++i) {
    auto block = connections[i]->memory().Allocate(contents[i].size(), 4096);
    ASSERT_TRUE(block.ok()) << block.status();
    ASSERT_EQ(disks[i]->Read(0, block->address(), block->size(), After(kPatience)),
              absl::OkStatus());
    EXPECT_EQ(std::memcmp(block->bytes().data(), contents[i].data(), contents[i].size()), 0);
  }
  for (int i = 0; i < 2; ++i) {
    disks[i].reset();
    EXPECT_EQ(connections[i]->Close(), absl::OkStatus());
  }
}

TEST_P(DataTest, OneGuestMayHaveSeveralBuses) {
  const std::string first = Machine::Pattern(1 << 16, 20);
  const std::string second = Machine::Pattern(1 << 16, 21);
  const grants::DomainId guest =
      Guest("g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("a", first)),
                   absl::StrCat("type=blk,bus=1,path=", machine_->MakeFile("b", second))});
  for (const auto& [bus, content] : {std::pair("0", first), std::pair("1", second)}) {
    auto read =
        machine_->Frontend(guest, {absl::StrCat("--bus=", bus), "blk", "read", "--dev=0", "-"});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->exit_status, 0) << read->err;
    EXPECT_TRUE(read->out == content) << "bus " << bus;
  }
}

TEST_P(DataTest, TheLeastMessageSizeIsEnough) {
  const std::string content = Machine::Pattern(1 << 20, 29);
  const grants::DomainId guest =
      Guest("g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content))});
  auto connection = machine_->Connect(guest, {.message_size = 52});
  ASSERT_TRUE(connection.ok()) << connection.status();
  {
    auto disk = OpenDisk(**connection);
    ASSERT_NE(disk, nullptr);
    auto block = (*connection)->memory().Allocate(content.size(), 4096);
    ASSERT_TRUE(block.ok()) << block.status();
    ASSERT_EQ(disk->Read(0, block->address(), block->size(), After(kPatience)), absl::OkStatus());
    EXPECT_EQ(std::memcmp(block->bytes().data(), content.data(), content.size()), 0);
  }
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
}

TEST_P(DataTest, BuffersInAnExtensionOfTheWindowWorkUntilItIsWithdrawn) {
  const std::string content = Machine::Pattern(1 << 20, 30);
  const grants::DomainId guest =
      Guest("g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content))});
  auto connection = machine_->Connect(guest, {.pages = 64});
  ASSERT_TRUE(connection.ok()) << connection.status();
  auto first_page = (*connection)->ExtendWindow(300, After(kPatience));
  ASSERT_TRUE(first_page.ok()) << first_page.status();
  EXPECT_EQ(*first_page, 64u);
  {
    auto disk = OpenDisk(**connection);
    ASSERT_NE(disk, nullptr);
    auto block = (*connection)->memory().Allocate(content.size(), 4096);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_GE(block->address(), uint64_t{64} * 4096);
    ASSERT_EQ(disk->Read(0, block->address(), block->size(), After(kPatience)), absl::OkStatus());
    EXPECT_EQ(std::memcmp(block->bytes().data(), content.data(), content.size()), 0);
  }
  EXPECT_EQ((*connection)->WithdrawWindow(*first_page, 300, After(kPatience)), absl::OkStatus());
  // Only the initial window and the ring are mapped now: 64 pages, the interface page, 4 data
  // pages.
  auto counts = machine_->xen().DomainCounts(guest);
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->pinned, 64 + 1 + 4);
  EXPECT_EQ((*connection)->Close(), absl::OkStatus());
}

TEST_P(DataTest, TheToolCanExtendTheWindow) {
  const grants::DomainId guest =
      Guest("g1", {absl::StrCat("type=blk,path=",
                                machine_->MakeFile("g1.img", Machine::Pattern(1 << 20, 31)))});
  auto listed = machine_->Frontend(guest, {"--pages=64", "--extend=300", "list"});
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_THAT(listed->out, HasSubstr("window 364 pages")) << listed->err;
  // Its buffer, the largest that fits, is in the extension then.
  auto verified = machine_->Frontend(guest, {"--pages=64", "--extend=300", "blk", "verify"});
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->exit_status, 0) << verified->err;
}

TEST_P(DataTest, EntropyArrives) {
  const grants::DomainId guest = Guest("g1", {"type=rng"});
  auto rng = machine_->Frontend(guest, {"rng", "--bytes=4096"});
  ASSERT_TRUE(rng.ok()) << rng.status();
  EXPECT_EQ(rng->exit_status, 0) << rng->err;
  ASSERT_EQ(rng->out.size(), 4096u);
  EXPECT_NE(rng->out, std::string(4096, rng->out[0]));
}

TEST_P(DataTest, AReadOnlyDiskIsReadAndNotWritten) {
  const std::string content = Machine::Pattern(1 << 16, 40);
  const std::string path = machine_->MakeFile("g1.img", content);
  const grants::DomainId guest = Guest("g1", {absl::StrCat("type=blk,readonly=1,path=", path)});
  auto write = machine_->Frontend(guest, {"blk", "write", "--dev=0", "-"}, std::string(4096, 'x'));
  ASSERT_TRUE(write.ok()) << write.status();
  EXPECT_NE(write->exit_status, 0);
  EXPECT_TRUE(Machine::Content(path) == content);
}

TEST_P(DataTest, ATraceShowsTheMessages) {
  machine_.reset();
  const std::string capture = testing::TempDir() + "/vmsg-trace.pcap";
  auto machine =
      Machine::Start({absl::StrCat("--trace=", capture), absl::StrCat("--bounce=", GetParam())});
  ASSERT_TRUE(machine.ok()) << machine.status();
  machine_ = *std::move(machine);
  const grants::DomainId guest = Guest("g1", {"type=rng"});
  auto listed = machine_->Frontend(guest, {"list"});
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(listed->exit_status, 0) << listed->err;
  machine_->service().Signal(SIGTERM);
  EXPECT_EQ(machine_->service().Wait(), 0) << machine_->service_log();
  auto decoded = RunProgram({VMSG_DECODE_PROGRAM, capture});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->exit_status, 0) << decoded->err;
  EXPECT_THAT(decoded->out, HasSubstr("GET_DEVICES"));
  EXPECT_THAT(decoded->out, HasSubstr("GET_DEVICE_INFO"));
}

INSTANTIATE_TEST_SUITE_P(Bounce, DataTest, testing::Values("off", "on"));

}  // namespace
}  // namespace vmsg::test
