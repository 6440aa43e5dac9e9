// SPDX-License-Identifier: Apache-2.0
// vmsgd goes, in each way and at any moment, and comes back: frontends go on, and what they read
// and write is what it would have been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <cstring>
#include <iterator>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "backend/devices/unique_fd.h"
#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/drivers/console_driver.h"
#include "frontend-model/drivers/rng_driver.h"
#include "tests/end-to-end/machine.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::DeviceClient;
using testing::HasSubstr;

constexpr size_t kDiskBytes = 4 << 20;

class ResumeTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = Machine::Start();
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = *std::move(machine);
    content_ = Machine::Pattern(kDiskBytes, 21);
    auto guest = machine_->CreateGuest(
        "g1", {absl::StrCat("type=blk,path=", machine_->MakeFile("g1.img", content_)), "type=rng",
               absl::StrCat("type=console,socket=", machine_->PathOf("console"))});
    ASSERT_TRUE(guest.ok()) << guest.status();
    guest_ = *guest;
  }
  void Connect(frontend::ConnectOptions options = {.pages = 600}) {
    options.patience = std::chrono::minutes(2);
    options.notice = [this](absl::string_view text) { notices_.emplace_back(text); };
    auto connection = machine_->Connect(guest_, options);
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = *std::move(connection);
  }
  std::unique_ptr<DeviceClient> Probe(uint16_t number) {
    auto client = DeviceClient::Probe(connection_->bus(), connection_->memory(), number,
                                      std::chrono::seconds(60));
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *std::move(client) : nullptr;
  }
  void Restart(int signal) {
    machine_->service().Signal(signal);
    EXPECT_EQ(machine_->service().Wait(), signal == SIGKILL ? -SIGKILL : 0);
    ASSERT_EQ(machine_->StartService(), absl::OkStatus()) << machine_->service_log();
  }
  // From another process: until the bus is connected, so that each loss has something to lose, or
  // `ended` can be read: whoever has ended connects no more.
  void AwaitConnected(xenstore::Store& store, int ended) {
    const std::string state =
        absl::StrCat(xenstore::BusAddress{.frontend = guest_}.BackendPath(), "/state");
    for (;;) {
      ASSERT_TRUE(store.TakeWatchEvents().ok());
      auto now = store.Read(state);
      if (now.ok() && *now == "4") return;
      pollfd fds[] = {{store.fd(), POLLIN, 0}, {ended, POLLIN, 0}};
      ASSERT_GT(poll(fds, std::size(fds), 60'000), 0) << machine_->service_log();
      if (fds[1].revents != 0) return;
    }
  }
  // Runs `program` while vmsgd is killed and started again and again, until it ends.
  Finished RunUnderLosses(const std::function<absl::StatusOr<Finished>()>& program) {
    auto store = xenstore::OpenStore(machine_->xen().StoreSocket(0));
    EXPECT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->Watch("/local/domain/0/backend/virtio-msg", "bus"), absl::OkStatus());
    const backend::UniqueFd ended(eventfd(0, EFD_CLOEXEC));
    const auto has_ended = [&ended] {
      pollfd fd = {ended.get(), POLLIN, 0};
      return poll(&fd, 1, 0) != 0;
    };
    absl::StatusOr<Finished> finished;
    std::thread runner([&] {
      finished = program();
      EXPECT_EQ(eventfd_write(ended.get(), 1), 0);
    });
    for (int losses = 0; losses < 12 && !has_ended(); ++losses) {
      AwaitConnected(**store, ended.get());
      if (has_ended()) break;
      Restart(losses % 4 == 3 ? SIGTERM : SIGKILL);
      if (HasFatalFailure()) break;
    }
    runner.join();
    EXPECT_TRUE(finished.ok()) << finished.status();
    return finished.ok() ? *finished : Finished{};
  }

  std::unique_ptr<Machine> machine_;
  std::string content_;
  grants::DomainId guest_ = 0;
  std::vector<std::string> notices_;
  std::unique_ptr<frontend::BusConnection> connection_;
};

// Keeps requests in flight over a disk that it knows, and has vmsgd lost after so many completions.
class Workload final : public frontend::BlkCompletion {
 public:
  static constexpr uint32_t kBlock = 4096;
  static constexpr uint32_t kDepth = 16;

  Workload(BlkDriver& disk, std::string& content, uint32_t seed)
      : disk_(disk), content_(content), random_(seed), busy_(kDiskBytes / kBlock) {
    for (uint32_t i = 0; i < kDepth; ++i) {
      slots_[i].buffer = disk.client().memory().Allocate(kBlock, 4096).value();
    }
  }

  // `count` requests; `lose` at each completion that is in `losses`, or when the one before is
  // over.
  absl::Status Run(uint64_t count, const std::vector<uint64_t>& losses,
                   const std::function<void()>& lose) {
    count_ = count;
    for (uint64_t tag = 0; tag < kDepth; ++tag) Submit(tag);
    size_t next_loss = 0;
    return disk_.client().bus().WaitUntil(
        [&] {
          const frontend::FrontendBus& bus = disk_.client().bus();
          const bool over = bus.losses() == next_loss && !bus.recovering();
          if (over && next_loss < losses.size() && completed_ >= losses[next_loss] &&
              in_flight_ > 0) {
            ++next_loss;
            lose();
          }
          return in_flight_ == 0;
        },
        After(std::chrono::seconds(120)));
  }
  void OnBlkDone(uint64_t tag, const absl::Status& status) override {
    Slot& slot = slots_[tag];
    --in_flight_;
    ++completed_;
    busy_[slot.block] = false;
    EXPECT_EQ(status, absl::OkStatus());
    if (!status.ok()) return;
    char* const expected = content_.data() + slot.block * kBlock;
    if (slot.write) {
      std::memcpy(expected, slot.buffer.bytes().data(), kBlock);
    } else {
      EXPECT_EQ(std::memcmp(expected, slot.buffer.bytes().data(), kBlock), 0)
          << "block " << slot.block << " at completion " << completed_;
    }
    if (submitted_ < count_) Submit(tag);
  }

 private:
  struct Slot {
    frontend::GuestBlock buffer;
    uint64_t block = 0;
    bool write = false;
  };
  void Submit(uint64_t tag) {
    Slot& slot = slots_[tag];
    do {
      slot.block = random_() % busy_.size();
    } while (busy_[slot.block]);
    busy_[slot.block] = true;
    slot.write = random_() % 2 == 0;
    for (size_t i = 0; i < kBlock; i += 4) {
      const uint32_t word = slot.write ? random_() : 0;
      std::memcpy(slot.buffer.bytes().data() + i, &word, 4);
    }
    const uint64_t at = slot.block * kBlock;
    EXPECT_EQ(slot.write ? disk_.SubmitWrite(at, slot.buffer.address(), kBlock, this, tag)
                         : disk_.SubmitRead(at, slot.buffer.address(), kBlock, this, tag),
              absl::OkStatus());
    ++submitted_;
    ++in_flight_;
  }

  BlkDriver& disk_;
  std::string& content_;
  std::mt19937 random_;
  std::vector<bool> busy_;  // by block: one request each, so that its outcome is known
  Slot slots_[kDepth];
  uint64_t count_ = 0, submitted_ = 0, completed_ = 0;
  uint32_t in_flight_ = 0;
};

TEST_F(ResumeTest, VerifiedRequestsInFlightSurviveVmsgdsDeathAtManyPoints) {
  Connect();
  auto disk = BlkDriver::Create(Probe(0), {.depth = Workload::kDepth, .queue_size = 64});
  ASSERT_TRUE(disk.ok()) << disk.status();
  std::mt19937 random(5);
  std::vector<uint64_t> losses;
  for (uint64_t at = 0; losses.size() < 25; at += 1 + random() % 60) losses.push_back(at);
  auto load = std::make_unique<Workload>(**disk, content_, 6);
  size_t lost = 0;
  ASSERT_EQ(load->Run(2000, losses, [&] { Restart(lost++ % 5 == 4 ? SIGTERM : SIGKILL); }),
            absl::OkStatus())
      << machine_->service_log();
  EXPECT_EQ(lost, losses.size());
  ASSERT_EQ((*disk)->Flush(After(std::chrono::seconds(60))), absl::OkStatus());
  disk->reset();
  load.reset();
  EXPECT_TRUE(Machine::Content(machine_->PathOf("g1.img")) == content_);
  EXPECT_FALSE(connection_->memory().frozen());
  EXPECT_EQ(connection_->Close(), absl::OkStatus());
  EXPECT_EQ(notices_.size(), 2 * losses.size()) << "each loss and each return is told once";
  EXPECT_THAT(machine_->service_log(), testing::Not(HasSubstr("broken chain")));
}

TEST_F(ResumeTest, AllDevicesOfABusGoOnAndSoDoesAWindowWithParts) {
  Connect({.pages = 200});
  // Parts behind a hole: the offsets stay what they are.
  const auto deadline = After(std::chrono::seconds(60));
  const auto gap = connection_->ExtendWindow(16, deadline);
  ASSERT_TRUE(gap.ok()) << gap.status();
  const auto part = connection_->ExtendWindow(64, deadline);
  ASSERT_TRUE(part.ok()) << part.status();
  ASSERT_EQ(connection_->WithdrawWindow(*gap, 16, deadline), absl::OkStatus());
  auto disk = BlkDriver::Create(Probe(0), {.depth = 4, .queue_size = 16});
  auto rng = frontend::RngDriver::Create(Probe(1));
  auto console = frontend::ConsoleDriver::Create(Probe(2));
  ASSERT_TRUE(disk.ok() && rng.ok() && console.ok());
  // In the last part.
  frontend::GuestBlock block =
      connection_->memory().Allocate(8192, 4096, uint64_t{*part} * 4096).value();
  ASSERT_GE(block.address(), uint64_t{*part} * 4096);
  for (int loss = 0; loss < 3; ++loss) {
    Restart(SIGKILL);
    std::array<std::byte, 10000> bytes{};
    ASSERT_EQ((*rng)->Fill(bytes, After(std::chrono::seconds(60))), absl::OkStatus())
        << machine_->service_log();
    std::memset(block.bytes().data(), 0, 8192);
    ASSERT_EQ((*disk)->Read(4096, block.address(), 8192, After(std::chrono::seconds(60))),
              absl::OkStatus());
    EXPECT_EQ(std::memcmp(block.bytes().data(), content_.data() + 4096, 8192), 0);
    ASSERT_TRUE((*console)->TrySend("text").ok());
    EXPECT_EQ((*console)->failure(), absl::OkStatus());
  }
  EXPECT_EQ(connection_->bus().losses(), 3u);
  block.Reset();
  disk->reset();
  rng->reset();
  console->reset();
  // The parts are what they were.
  ASSERT_EQ(connection_->WithdrawWindow(*part, 64, After(std::chrono::seconds(60))),
            absl::OkStatus());
  EXPECT_EQ(connection_->Close(), absl::OkStatus());
}

TEST_F(ResumeTest, AFrontendThatDoesNotAskForItIsNotGivenAQueueThatWasInUse) {
  Connect({.pages = 200, .queue_resume = false});
  auto disk = BlkDriver::Create(Probe(0), {.depth = 4, .queue_size = 16});
  ASSERT_TRUE(disk.ok()) << disk.status();
  Restart(SIGKILL);
  EXPECT_EQ((*disk)->Flush(After(std::chrono::seconds(60))).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ResumeTest, ABusThatIsDetachedIsNotWaitedFor) {
  Connect();
  std::thread toolstack([&] {
    auto detached = machine_->Ctl({"detach", "g1", "all", "--force"});
    EXPECT_TRUE(detached.ok() && detached->exit_status == 0);
  });
  const absl::Status status =
      connection_->bus().WaitUntil([] { return false; }, After(std::chrono::seconds(60)));
  toolstack.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST_F(ResumeTest, VerifyOfTheProgramSurvives) {
  const Finished verified = RunUnderLosses([&] {
    return machine_->Frontend(guest_, {"blk", "verify", "--seed=3"});
  });
  EXPECT_EQ(verified.exit_status, 0) << verified.err << machine_->service_log();
  EXPECT_THAT(verified.out, HasSubstr(absl::StrCat("verified ", kDiskBytes, " bytes")));
}

TEST_F(ResumeTest, BenchOfTheProgramSurvives) {
  const Finished bench = RunUnderLosses([&] {
    return machine_->Frontend(
        guest_, {"blk", "bench", "--rw=randwrite", "--depth=16", "--count=20000", "--json"});
  });
  EXPECT_EQ(bench.exit_status, 0) << bench.err << machine_->service_log();
  EXPECT_THAT(bench.out, HasSubstr("\"count\":20000"));
}

TEST_F(ResumeTest, RandomBytesOfTheProgramSurvive) {
  const Finished bytes = RunUnderLosses([&] {
    return machine_->Frontend(guest_, {"rng", "--bytes=2M"});
  });
  EXPECT_EQ(bytes.exit_status, 0) << bytes.err << machine_->service_log();
  EXPECT_EQ(bytes.out.size(), size_t{2} << 20);
}

TEST_F(ResumeTest, PingsOfTheProgramSurvive) {
  for (int i = 0; i < 5; ++i) {
    const Finished listed = RunUnderLosses([&] {
      return machine_->Frontend(guest_, {"ping", "--count=3000"});
    });
    EXPECT_EQ(listed.exit_status, 0) << listed.err << machine_->service_log();
  }
}

}  // namespace
}  // namespace vmsg::test
