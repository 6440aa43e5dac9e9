// SPDX-License-Identifier: Apache-2.0
// Nothing of the service's memory reaches a guest (XSA-216). One conversation with a bus and three
// devices is held twice, with heap and stack poisoned by two different patterns: whatever byte the
// guest can see then - ring halves, cursors, used rings, buffers - must be the same both times.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "backend/devices/blk/blk_device.h"
#include "backend/devices/console/console_device.h"
#include "backend/devices/rng/rng.h"
#include "tests/backend/bus/bus_rig.h"
#include "tests/backend/bus/poisoned_heap.h"
#include "tests/devices/held_file_io.h"

namespace vmsg::testing {
namespace {

constexpr size_t kDiskBytes = size_t{64} * 512;
constexpr uint64_t kData = uint64_t{96} * 4096;  // of the window: what devices write into
constexpr uint16_t kBlk = 1, kRng = 2, kConsole = 3, kNobody = 99;

// What the stack of a later call starts out as.
__attribute__((noinline)) void PoisonStack() {
  volatile unsigned char frame[64 * 1024];
  for (size_t i = 0; i < sizeof(frame); ++i) frame[i] = heap_poison;
}

// Sixty bytes of 'r', then nothing for now, and so on.
bool random_is_due = false;
ssize_t ShortRandom(void* bytes, size_t size) {
  random_is_due = !random_is_due;
  if (!random_is_due) {
    errno = EAGAIN;
    return -1;
  }
  const size_t given = std::min<size_t>(size, 60);
  memset(bytes, 'r', given);
  return static_cast<ssize_t>(given);
}

// Somebody who typed five characters.
class ShortTerminal final : public backend::Terminal {
 public:
  backend::WindowSize window_size() const override { return {}; }
  void Start(backend::TerminalListener*) override {}
  void Stop() override {}
  bool attached() const override { return true; }
  ssize_t Write(absl::Span<const iovec> pieces) override {
    ssize_t all = 0;
    for (const iovec& piece : pieces) all += static_cast<ssize_t>(piece.iov_len);
    return all;
  }
  ssize_t Read(absl::Span<const iovec> pieces) override {
    if (std::exchange(read_, true)) return 0;
    memcpy(pieces[0].iov_base, "hello", 5);
    return 5;
  }
  void WantInput(bool) override {}

 private:
  bool read_ = false;
};

class Conversation : public BusRig {
 public:
  void TestBody() override {}

  // Everything the guest can see afterwards.
  std::vector<std::byte> Hold() {
    Add(kBlk, std::make_unique<backend::BlkDevice>(
                  backend::BlkImage{.bytes = kDiskBytes, .serial = "disk"}, &disk_));
    Add(kRng, backend::NewRngDevice(&loop_, ShortRandom));
    Add(kConsole,
        std::make_unique<backend::ConsoleDevice>(std::make_unique<ShortTerminal>(), &loop_));
    for (const uint16_t device : {kBlk, kRng, kConsole, kNobody}) AskDevice(device);
    AskTheBus();
    UseDisk();
    UseRng();
    UseConsole();
    for (const uint16_t device : {kBlk, kRng, kConsole}) AskDevice(device);
    Say(0, wire::WindowExtendRequest{100, kMaxPages});
    Say(0, wire::WindowWithdrawRequest{1, 1});
    for (const uint16_t device : {kBlk, kRng, kConsole}) {
      endpoint_->RemoveDevice(device, [] {});
      disk_.CompleteAll();
      Turn();
    }
    std::vector<std::byte> seen(messages_);
    const auto* const cursors = reinterpret_cast<const std::byte*>(interface_.get());
    seen.insert(seen.end(), cursors, cursors + 2 * sizeof(wire::RingDirection));
    const auto ring = Bytes(in_);
    seen.insert(seen.end(), ring.begin(), ring.end());
    seen.insert(seen.end(), memory_.At(0), memory_.At(0) + memory_.size());
    return seen;
  }
  size_t answered() const { return answered_; }

 private:
  void Add(uint16_t number, std::unique_ptr<backend::Device> device) {
    ASSERT_TRUE(endpoint_->AddDevice(number, std::move(device), true).ok());
    Turn();
  }
  // Lets the endpoint run on a poisoned stack, then takes what is in the ring, padding included:
  // the ring wraps, so what is left at the end would not be all.
  void Turn() {
    PoisonStack();
    Run();
    const auto ring = Bytes(in_);
    messages_.insert(messages_.end(), ring.begin(), ring.end());
    answered_ += Receive().size();
    PoisonStack();
    Run();
  }
  template <class Body>
  void Say(uint16_t device, const Body& body) {
    Push(device, ++token_, body);
    if (to_.Publish()) doorbell_.Raise();
    Turn();
  }

  void AskTheBus() {
    Say(0, wire::PingRequest{7});
    for (const uint16_t count : {0, 8, 64, 1024, 65528}) {
      Say(0, wire::GetDevicesRequest{0, count});
      Say(0, wire::GetDevicesRequest{65528, count});
      Say(0, wire::GetDevicesRequest{3, count});
    }
  }
  void AskDevice(uint16_t device) {
    using namespace wire;  // NOLINT
    Say(device, GetDeviceInfoRequest{});
    // The longest first: what they leave in a buffer of ours would hide what was there.
    for (const uint32_t offset : {4096u, 0u, 1u, 7u, 12u, 57u, 96u, UINT32_MAX}) {
      for (const uint32_t length : {244u, 0u, 1u, 3u, 8u, 61u, 245u, UINT32_MAX}) {
        Say(device, GetConfigRequest{offset, length});
      }
    }
    for (const uint32_t blocks : {0u, 1u, 2u, 7u, 61u, 1000u}) {
      Say(device, GetDeviceFeaturesRequest{0, blocks});
      Say(device, GetDeviceFeaturesRequest{3, blocks});
    }
    std::vector<std::byte> data(8, std::byte{9});
    Say(device, SetConfigRequest{0, 0, 8, data});
    Say(device, SetConfigRequest{77, 0, 8, data});
    Say(device, SetConfigRequest{0, 4000, 8, data});
    Say(device, GetDeviceStatusRequest{});
    for (const uint32_t index : {0u, 1u, 2u, 16u, UINT32_MAX}) {
      Say(device, GetVqueueRequest{index});
      Say(device, GetShmRequest{index});
    }
    Say(device, ResetVqueueRequest{1});
  }

  // A queue of 16 at `base`.
  RingDriver Start(uint16_t device, uint64_t base, uint32_t queues = 1) {
    using namespace wire;  // NOLINT
    Say(device, SetDeviceStatusRequest{0});
    constexpr uint32_t kReady = kStatusAcknowledge | kStatusDriver;
    Say(device, SetDeviceStatusRequest{kReady});
    std::vector<std::byte> words(8);
    memcpy(words.data(), &kFeatureVersion1, 8);
    Say(device, SetDriverFeaturesRequest{0, 2, WordView(words)});
    Say(device, SetDeviceStatusRequest{kReady | kStatusFeaturesOk});
    RingDriver ring(memory_, 16, base);
    for (uint32_t queue = 0; queue < queues; ++queue) {
      const RingDriver here(memory_, 16, base + uint64_t{queue} * 16 * 4096);
      const auto& layout = here.layout();
      Say(device, SetVqueueRequest{queue, layout.size, layout.desc, layout.driver, layout.device});
    }
    Say(device, SetDeviceStatusRequest{kReady | kStatusFeaturesOk | kStatusDriverOk});
    return ring;
  }
  void Request(RingDriver& ring, uint32_t type, uint64_t sector, uint32_t bytes) {
    const uint16_t head = next_;
    next_ = (next_ + 3) % 15;
    const uint64_t header = data_;
    const uint64_t buffer = data_ + 64;
    data_ += 2048;
    const wire::BlkRequestHeader words{type, 0, sector};
    memcpy(memory_.At(header), &words, sizeof(words));
    ring.WriteChain(head, {{.address = header, .length = 16},
                           {.address = buffer, .length = bytes, .flags = kWrite},
                           {.address = buffer + bytes, .length = 1, .flags = kWrite}});
    ring.MakeAvailable(head);
    Say(kBlk, wire::EventAvail{0, 0});
  }
  void UseDisk() {
    RingDriver ring = Start(kBlk, 4096);
    Request(ring, wire::kBlkRequestIn, 0, 512);
    disk_.CompleteAll();
    Request(ring, wire::kBlkRequestIn, 1, 1024);
    disk_.Complete(0, EIO);
    Request(ring, wire::kBlkRequestIn, 2, 1024);
    disk_.Complete(0, 0, 300);  // the file ends early
    Request(ring, wire::kBlkRequestIn, UINT64_MAX, 512);
    Request(ring, wire::kBlkRequestIn, kDiskBytes / 512 - 1, 1024);
    Request(ring, wire::kBlkRequestGetId, 0, 20);
    Request(ring, wire::kBlkRequestGetId, 0, 64);
    Request(ring, wire::kBlkRequestGetId, 0, 7);
    Request(ring, 0x7777, 0, 100);
    disk_.CompleteAll();
    Turn();
    EXPECT_EQ(ring.TakeAllUsed().size(), 9u);
  }
  void Offer(RingDriver& ring, uint16_t device, uint32_t length) {
    ring.WriteDesc(0, {.address = data_, .length = length, .flags = kWrite});
    data_ += 4096;
    ring.MakeAvailable(0);
    Say(device, wire::EventAvail{0, 0});
  }
  void UseRng() {
    RingDriver ring = Start(kRng, uint64_t{16} * 4096);
    Offer(ring, kRng, 100);
    loop_.Advance(absl::Seconds(1));
    Turn();
    EXPECT_EQ(ring.TakeAllUsed().size(), 1u);
  }
  void UseConsole() {
    RingDriver ring = Start(kConsole, uint64_t{32} * 4096, 2);
    Offer(ring, kConsole, 200);
    Turn();
    EXPECT_THAT(ring.TakeAllUsed(), ::testing::ElementsAre(UsedEntry{0, 5}));
  }

  HeldFileIo disk_{kDiskBytes};
  std::vector<std::byte> messages_;
  size_t answered_ = 0;
  uint16_t token_ = 0;
  uint16_t next_ = 0;
  uint64_t data_ = kData;
};

TEST(ReplyBytes, NothingOfOurMemoryReachesAGuest) {
  std::vector<std::byte> seen[2];
  for (int round = 0; round < 2; ++round) {
    heap_poison = round == 0 ? 0x5a : 0xa5;
    random_is_due = false;
    Conversation conversation;
    seen[round] = conversation.Hold();
    EXPECT_GT(conversation.answered(), 500u);
  }
  ASSERT_EQ(seen[0].size(), seen[1].size());
  for (size_t i = 0; i < seen[0].size(); ++i) {
    ASSERT_EQ(seen[0][i], seen[1][i]) << "byte " << i << " of " << seen[0].size();
  }
}

}  // namespace
}  // namespace vmsg::testing
