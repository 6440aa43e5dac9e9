// SPDX-License-Identifier: Apache-2.0
// The ways in which memory goes back to the driver (docs/binding.md, "The end of access"), each
// with a disk's reads and writes in flight: the answer waits for them, and what the driver does
// with its memory afterwards stays as it is and reaches no image.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/devices/blk/blk_device.h"
#include "tests/backend/bus/bus_rig.h"
#include "tests/devices/held_file_io.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::testing {
namespace {

using ::testing::IsEmpty;
using wire::MessageId;

enum class Way {
  kReset,
  kQueueReset,
  kQueueSetAnew,
  kWithdrawal,
  kPoliteRemoval,
  kTimedOutRemoval,
  kForcedRemoval,
  kResetDuringForcedRemoval,
  kEndOfTheBus,
};

class EndsOfAccessTest : public BusRig, public ::testing::WithParamInterface<Way> {
 protected:
  static constexpr uint16_t kDisk = 1;
  static constexpr uint16_t kAnswer = 999;  // token of the request that gives the memory back
  static constexpr uint64_t kDiskBytes = 256 * 1024;
  static constexpr uint32_t kExtensionPages = 32;
  static constexpr uint64_t kExtension = uint64_t{128} * 4096;
  static constexpr uint32_t kTransfer = 16 * 1024;
  static constexpr char kPoison = '\xee';

  ~EndsOfAccessTest() override {
    io_.CompleteAll();
    if (endpoint_ != nullptr) Run();
    CloseEndpoint();
  }

  // A disk whose I/O ends when the test says so, two reads and two writes of it in flight.
  RingDriver MakeBusyDisk() {
    grants::GrantMapping extension = pages_.MapPages(kExtensionPages);
    extension_ = extension.bytes().data();
    Send(0, 50, wire::WindowExtendRequest{1000, kExtensionPages});
    AnswerMap(std::move(extension));
    EXPECT_EQ(ReceiveOne().As<wire::WindowExtendResponse>().first_page, kExtension / 4096);
    backend::BlkImage image;
    image.bytes = kDiskBytes;
    EXPECT_TRUE(endpoint_
                    ->AddDevice(kDisk, std::make_unique<backend::BlkDevice>(std::move(image), &io_),
                                /*announce=*/false)
                    .ok());
    RingDriver ring = GoLive(kDisk);
    for (uint16_t i = 0; i < 4; ++i)
      Request(ring, i, i % 2 == 0 ? wire::kBlkRequestIn : wire::kBlkRequestOut);
    Send(kDisk, 0, wire::EventAvail{0, 0});
    EXPECT_EQ(io_.pending(), 4u);
    return ring;
  }
  // Buffers lie in the extension, the ring in the initial window.
  void Request(RingDriver& ring, uint16_t number, uint32_t type) {
    const uint64_t header = kExtension + 64 * number;
    const uint64_t data = kExtension + 4096 + kTransfer * number;
    const wire::BlkRequestHeader bytes{type, 0, uint64_t{number} * kTransfer / 512};
    std::memcpy(At(header), &bytes, sizeof bytes);
    std::memset(At(data), 'w', kTransfer);
    const bool read = type == wire::kBlkRequestIn;
    ring.WriteChain(static_cast<uint16_t>(3 * number),
                    {{.address = header, .length = 16},
                     {.address = data, .length = kTransfer, .flags = read ? kWrite : uint16_t{0}},
                     {.address = header + 32, .length = 1, .flags = kWrite}});
    ring.MakeAvailable(static_cast<uint16_t>(3 * number));
  }
  std::byte* At(uint64_t address) {
    return address < kExtension ? memory_.At(address) : extension_ + (address - kExtension);
  }

  void Begin(const RingDriver& ring) {
    switch (GetParam()) {
      case Way::kReset:
        return Send(kDisk, kAnswer, wire::SetDeviceStatusRequest{0});
      case Way::kQueueReset:
        return Send(kDisk, kAnswer, wire::ResetVqueueRequest{0});
      case Way::kQueueSetAnew: {
        const backend::QueueLayout& layout = ring.layout();
        return Send(kDisk, kAnswer,
                    wire::SetVqueueRequest{0, layout.size, uint64_t{32} * 4096, uint64_t{33} * 4096,
                                           uint64_t{34} * 4096});
      }
      case Way::kWithdrawal:
        return Send(0, kAnswer, wire::WindowWithdrawRequest{kExtension / 4096, kExtensionPages});
      case Way::kPoliteRemoval:
        EXPECT_TRUE(endpoint_->AskForRemoval(kDisk).ok());
        Run();
        EXPECT_EQ(Receive().front().id(), MessageId::kEventDevice);
        return Send(kDisk, kAnswer, wire::SetDeviceStatusRequest{0});
      case Way::kTimedOutRemoval:
        EXPECT_TRUE(endpoint_->AskForRemoval(kDisk).ok());
        Run();
        EXPECT_EQ(Receive().front().id(), MessageId::kEventDevice);
        [[fallthrough]];
      case Way::kForcedRemoval:
        endpoint_->RemoveDevice(kDisk, [] {});
        return Run();
      case Way::kResetDuringForcedRemoval:
        endpoint_->RemoveDevice(kDisk, [] {});
        return Send(kDisk, kAnswer, wire::SetDeviceStatusRequest{0});
      case Way::kEndOfTheBus:
        endpoint_->Close([this] { answered_ = true; });
        return Run();
    }
  }
  // What came: the answer, or the event that stands for one. EVENT_USED of what ended before is
  // all that may come besides.
  bool Answered() {
    for (const Received& received : Receive()) {
      if (answered_) late_.push_back(received.id());
      const bool removed =
          received.id() == MessageId::kEventDevice &&
          received.As<wire::EventDevice>().device_bus_state == wire::kDeviceRemoved;
      if (received.token() == kAnswer || (removed && ByRemoved())) answered_ = true;
      if (received.id() == MessageId::kWindowWithdraw) {
        EXPECT_EQ(received.As<wire::WindowWithdrawResponse>().result, 0u);
      }
    }
    if (!mapper_.unmaps.empty()) {
      AnswerUnmap();
      return Answered();
    }
    return answered_;
  }
  static bool ByRemoved() {
    return GetParam() == Way::kTimedOutRemoval || GetParam() == Way::kForcedRemoval;
  }

  // The driver uses what it has back for something else. What was withdrawn is unmapped: to touch
  // it would be a fault.
  void Poison() {
    std::memset(memory_.At(0), kPoison, InitialBytes());
    if (GetParam() != Way::kWithdrawal) {
      std::memset(extension_, kPoison, kExtensionPages * 4096);
    }
  }
  bool StillPoisoned() {
    const auto all = [](const std::byte* bytes, size_t size) {
      return std::all_of(bytes, bytes + size,
                         [](std::byte byte) { return byte == std::byte{0xee}; });
    };
    return all(memory_.At(0), InitialBytes()) &&
           (GetParam() == Way::kWithdrawal || all(extension_, kExtensionPages * 4096));
  }

  // The queue that is set anew has its areas further up.
  uint64_t InitialBytes() const {
    return GetParam() == Way::kQueueSetAnew ? uint64_t{32} * 4096 : memory_.size();
  }

  HeldFileIo io_{kDiskBytes};
  std::byte* extension_ = nullptr;
  bool answered_ = false;
  std::vector<MessageId> late_;
};

// [device:Device Operation / Reset / Device]
// [device:Transport Messages / VIRTIO_MSG_RESET_VQUEUE / Device]
TEST_P(EndsOfAccessTest, TheAnswerWaitsForTheDiskAndNothingIsTouchedAfterwards) {
  RingDriver ring = MakeBusyDisk();
  io_.Complete();  // one has ended, and its EVENT_USED may be due
  Begin(ring);
  while (!Answered()) {
    ASSERT_GT(io_.pending(), 0u) << "nothing is in flight and no answer comes";
    io_.Complete();
    Run();
  }
  EXPECT_EQ(io_.pending(), 0u) << "the disk still works on memory that the driver has back";
  if (GetParam() != Way::kWithdrawal) Poison();
  io_.CompleteAll();
  if (GetParam() == Way::kEndOfTheBus) endpoint_.reset();
  // A driver that is late with its event, and whatever the backend has still to do.
  if (endpoint_ != nullptr && GetParam() != Way::kWithdrawal) {
    Send(kDisk, 0, wire::EventAvail{0, 0});
  }
  EXPECT_TRUE(Answered());
  EXPECT_EQ(io_.cached.find(kPoison), std::string::npos) << "reached the image";
  EXPECT_TRUE(GetParam() == Way::kWithdrawal || StillPoisoned());
  const bool removed_follows = GetParam() == Way::kResetDuringForcedRemoval;
  EXPECT_EQ(late_,
            removed_follows ? std::vector{MessageId::kEventDevice} : std::vector<MessageId>{});
}

std::string NameOf(const ::testing::TestParamInfo<Way>& way) {
  constexpr const char* kNames[] = {
      "Reset",         "QueueReset",      "QueueSetAnew",  "Withdrawal",
      "PoliteRemoval", "TimedOutRemoval", "ForcedRemoval", "ResetDuringForcedRemoval",
      "EndOfTheBus"};
  return kNames[static_cast<int>(way.param)];
}

INSTANTIATE_TEST_SUITE_P(Ways, EndsOfAccessTest,
                         ::testing::Values(Way::kReset, Way::kQueueReset, Way::kQueueSetAnew,
                                           Way::kWithdrawal, Way::kPoliteRemoval,
                                           Way::kTimedOutRemoval, Way::kForcedRemoval,
                                           Way::kResetDuringForcedRemoval, Way::kEndOfTheBus),
                         NameOf);

}  // namespace
}  // namespace vmsg::testing
