// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/rng/rng.h"

#include <cerrno>

#include "tests/devices/device_rig.h"
#include "tests/devices/manual_loop.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What the next calls of the source give: a count of bytes, or a negative errno.
int source_limit = 0;
ssize_t Source(void* bytes, size_t size) {
  if (source_limit < 0) {
    errno = -source_limit;
    return -1;
  }
  const size_t given = source_limit == 0 ? size : std::min<size_t>(size, source_limit);
  std::memset(bytes, 'r', given);
  return static_cast<ssize_t>(given);
}

class RngTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kBuffer = DeviceRig::kBuffers;
  void SetUp() override {
    source_limit = 0;
    rig_ = std::make_unique<DeviceRig>(backend::NewRngDevice(&loop_, Source));
    rig_->Start(0);
  }
  ManualLoop loop_;
  std::unique_ptr<DeviceRig> rig_;
};

TEST_F(RngTest, FillsAllBuffers) {
  const uint16_t head = rig_->Submit(0, {{kBuffer, 100, true}, {kBuffer + 4096, 7, true}});
  EXPECT_FALSE(rig_->Kick(0));
  EXPECT_THAT(rig_->Used(0), ElementsAre(UsedEntry{head, 107}));
  EXPECT_EQ(rig_->Get(kBuffer, 101), std::string(100, 'r') + '\0');
  EXPECT_EQ(rig_->Get(kBuffer + 4096, 8), std::string(7, 'r') + '\0');
}

TEST_F(RngTest, ARequestIsCapped) {
  const uint32_t wanted = 2 * backend::kRngMaxBytesPerRequest;
  const uint16_t head = rig_->Submit(0, {{kBuffer, wanted, true}});
  rig_->Kick(0);
  EXPECT_THAT(rig_->Used(0), ElementsAre(UsedEntry{head, backend::kRngMaxBytesPerRequest}));
  EXPECT_EQ(rig_->Get(kBuffer + backend::kRngMaxBytesPerRequest, 1)[0], '\0');
}

TEST_F(RngTest, ATurnIsCapped) {
  constexpr size_t kInATurn = backend::kRngMaxBytesPerTurn / backend::kRngMaxBytesPerRequest;
  for (size_t i = 0; i < kInATurn + 1; ++i) {
    rig_->Submit(0, {{kBuffer, backend::kRngMaxBytesPerRequest, true}});
  }
  EXPECT_TRUE(rig_->Kick(0)) << "the rest is for the next turn";
  EXPECT_EQ(rig_->Used(0).size(), kInATurn);
  EXPECT_FALSE(rig_->Kick(0));
  EXPECT_EQ(rig_->Used(0).size(), 1u);
}

TEST_F(RngTest, ShortAnswersAreContinued) {
  source_limit = 10;
  const uint16_t head = rig_->Submit(0, {{kBuffer, 25, true}});
  rig_->Kick(0);
  EXPECT_THAT(rig_->Used(0), ElementsAre(UsedEntry{head, 25}));
}

TEST_F(RngTest, ReadableBuffersStayAsTheyAre) {
  rig_->Put(kBuffer, "keep");
  const uint16_t with_both = rig_->Submit(0, {{kBuffer, 4, false}, {kBuffer + 100, 4, true}});
  const uint16_t without_room = rig_->Submit(0, {{kBuffer, 4, false}});
  rig_->Kick(0);
  EXPECT_THAT(rig_->Used(0), ElementsAre(UsedEntry{with_both, 4}, UsedEntry{without_room, 0}));
  EXPECT_EQ(rig_->Get(kBuffer, 4), "keep");
}

// [device:Device Types / Entropy Device / Device Operation] at least one byte: without any, the
// request waits, and nothing blocks or spins.
TEST_F(RngTest, WithoutRandomnessTheRequestWaits) {
  source_limit = -EAGAIN;
  const uint16_t first = rig_->Submit(0, {{kBuffer, 8, true}});
  const uint16_t second = rig_->Submit(0, {{kBuffer + 8, 8, true}});
  EXPECT_FALSE(rig_->Kick(0));
  EXPECT_THAT(rig_->Used(0), IsEmpty());
  EXPECT_EQ(rig_->queue(0)->in_flight(), 1u);
  loop_.Advance(absl::Seconds(1));
  EXPECT_THAT(rig_->Used(0), IsEmpty());
  EXPECT_EQ(loop_.timers(), 1u);
  source_limit = 0;
  loop_.Advance(absl::Seconds(1));
  EXPECT_THAT(rig_->Used(0), ElementsAre(UsedEntry{first, 8}, UsedEntry{second, 8}));
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(RngTest, ResetReturnsAWaitingRequest) {
  source_limit = -EAGAIN;
  rig_->Submit(0, {{kBuffer, 8, true}});
  rig_->Kick(0);
  rig_->Reset();
  EXPECT_EQ(loop_.timers(), 0u);
  source_limit = 0;
  rig_->Start(0);
  rig_->Submit(0, {{kBuffer, 8, true}});
  rig_->Kick(0);
  EXPECT_EQ(rig_->Used(0).size(), 1u);
}

TEST_F(RngTest, ABrokenAvailableIndexNeedsAReset) {
  rig_->driver(0).ExposeIdx(1000);
  EXPECT_FALSE(rig_->Kick(0));
  EXPECT_EQ(rig_->needs_reset().size(), 1u);
}

TEST(RngFromTheKernel, GivesDifferentBytes) {
  ManualLoop loop;
  auto device = backend::CreateDevice({.type = "rng"}, {.loop = &loop});
  ASSERT_TRUE(device.ok());
  DeviceRig rig(*std::move(device));
  rig.Start(0);
  rig.Submit(0, {{DeviceRig::kBuffers, 32, true}});
  rig.Submit(0, {{DeviceRig::kBuffers + 32, 32, true}});
  rig.Kick(0);
  ASSERT_EQ(rig.Used(0).size(), 2u);
  EXPECT_NE(rig.Get(DeviceRig::kBuffers, 32), rig.Get(DeviceRig::kBuffers + 32, 32));
}

}  // namespace
}  // namespace vmsg::testing
