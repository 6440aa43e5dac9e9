// SPDX-License-Identifier: Apache-2.0
// What is on stable storage when, for every way to negotiate the cache; and that direct and cached
// accesses never run next to each other.
#include "tests/devices/blk/blk_rig.h"

namespace vmsg::testing {
namespace {

class BlkDurabilityTest : public BlkTest {
 protected:
  static constexpr uint64_t kFlush = wire::kBlkFeatureFlush;
  static constexpr uint64_t kWce = wire::kBlkFeatureConfigWce;

  void Write(uint64_t sector, char fill, uint32_t size = 512) {
    // No two share a buffer.
    const uint64_t address = kData + 4096 * (requests_ + 1);
    rig->Put(address, std::string(size, fill));
    Submit(wire::kBlkRequestOut, sector, {{address, size, false}});
    rig->Kick(0);
  }
  // A file whose blocks are of 1,024 bytes: requests of one sector go through the cache.
  void BuildDirect() { Build({.buffered = AnyFd(), .direct = AnyFd(), .offset_alignment = 1024}); }
  // Whether a completed write survives a power cut without a flush.
  bool WriteIsStable() {
    Write(0, 's');
    io.CompleteAll();
    EXPECT_EQ(Status(requests_ - 1), wire::kBlkStatusOk);
    return io.stable[0] == 's';
  }
  void SetWriteback(uint8_t value) {
    const std::byte bytes[] = {std::byte{value}};
    ASSERT_TRUE(rig->device().WriteConfig(offsetof(wire::BlkConfig, writeback), bytes).ok());
  }
  backend::UniqueFd AnyFd() { return backend::UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)); }
};

// [device:Device Types / Block Device / Device Operation] what completed before a flush is stable
// when the flush completes.
TEST_P(BlkDurabilityTest, FlushMakesEarlierWritesStable) {
  Write(1, 'a');
  io.Complete();
  EXPECT_EQ(io.stable[512], '\0') << "writeback: not yet";
  Submit(wire::kBlkRequestFlush, 0, {});
  rig->Kick(0);
  EXPECT_EQ(Status(1), kUnwritten);
  io.Complete();
  EXPECT_EQ(Status(1), wire::kBlkStatusOk);
  EXPECT_EQ(io.stable[512], 'a');
}

TEST_P(BlkDurabilityTest, AFlushThatFailsSaysSo) {
  Submit(wire::kBlkRequestFlush, 0, {});
  rig->Kick(0);
  io.Complete(0, EIO);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
}

// [device:Device Types / Block Device / Device Operation] neither FLUSH nor CONFIG_WCE: each write
// is stable when it completes.
TEST_P(BlkDurabilityTest, WithoutFlushEachWriteIsStable) {
  Build({}, 0);
  EXPECT_TRUE(WriteIsStable());
}

TEST_P(BlkDurabilityTest, WithFlushAloneWritesAreVolatile) {
  Build({}, kFlush);
  EXPECT_FALSE(WriteIsStable());
}

TEST_P(BlkDurabilityTest, WritethroughByTheAdministrator) {
  Build({.writethrough = true}, kFlush);
  EXPECT_TRUE(WriteIsStable());
}

// [device:Device Types / Block Device / Device Operation] writeback 0: stable when it completes.
TEST_P(BlkDurabilityTest, TheDriverChangesTheCacheMode) {
  Build({}, kFlush | kWce);
  EXPECT_FALSE(WriteIsStable());
  SetWriteback(0);
  EXPECT_TRUE(WriteIsStable());
  SetWriteback(1);
  io.stable[0] = '\0';
  EXPECT_FALSE(WriteIsStable());
}

// [device:Device Types / Block Device / Device Initialization] CONFIG_WCE without FLUSH: writeback
// starts at 0; CONFIG_WCE is not offered without FLUSH.
TEST_P(BlkDurabilityTest, ConfigWceWithoutFlushStartsAsWritethrough) {
  Build({}, kWce);
  EXPECT_EQ(rig->Config<uint8_t>(offsetof(wire::BlkConfig, writeback)), 0);
  EXPECT_TRUE(WriteIsStable());
  EXPECT_NE(rig->device().identity().features & kFlush, 0u);
}

TEST_P(BlkDurabilityTest, AlignedRequestsGoDirectOthersThroughTheCache) {
  backend::BlkImage image{.buffered = AnyFd(), .direct = AnyFd()};
  const int direct = image.direct.get();
  const int buffered = image.buffered.get();
  Build(std::move(image));
  Submit(wire::kBlkRequestIn, 0, {{kData, 512, true}});
  Submit(wire::kBlkRequestIn, 0, {{kData, 100, true}, {kData + 512, 412, true}});
  Submit(wire::kBlkRequestIn, 0, {{kData + 8, 512, true}});
  rig->Kick(0);
  ASSERT_EQ(io.pending(), 3u);
  EXPECT_EQ(io.At(0).fd, direct);
  // What is copied lies as the disk wants it.
  EXPECT_EQ(io.At(1).fd, GetParam() ? direct : buffered);
  EXPECT_EQ(io.At(2).fd, GetParam() ? direct : buffered);
}

TEST_P(BlkDurabilityTest, OffsetsAndLengthsMustSuitTheFileSystemToo) {
  backend::BlkImage image{.buffered = AnyFd(), .direct = AnyFd(), .offset_alignment = 4096};
  const int direct = image.direct.get();
  const int buffered = image.buffered.get();
  Build(std::move(image));
  Submit(wire::kBlkRequestIn, 8, {{kData, 4096, true}});
  Submit(wire::kBlkRequestIn, 7, {{kData, 4096, true}});
  Submit(wire::kBlkRequestIn, 8, {{kData, 512, true}});
  rig->Kick(0);
  EXPECT_EQ(io.At(0).fd, direct);
  EXPECT_EQ(io.At(1).fd, buffered);
  EXPECT_EQ(io.At(2).fd, buffered);
}

TEST_P(BlkDurabilityTest, CachedAccessesWaitForDirectWritesAndTheOtherWayRound) {
  BuildDirect();
  Write(0, 'd', 1024);                                             // direct
  Write(2, 'c');                                                   // cached: must wait
  Write(4, 'e', 1024);                                             // direct: behind the cached one
  Submit(wire::kBlkRequestIn, 10, {{kData + 65536, 1024, true}});  // direct read: free
  rig->Kick(0);
  ASSERT_EQ(io.pending(), 2u) << "the first write and the read";
  io.Complete(0);
  ASSERT_EQ(io.pending(), 2u);
  EXPECT_EQ(io.At(1).offset, 1024u) << "now the cached one";
  io.Complete(1);
  ASSERT_EQ(io.pending(), 2u);
  EXPECT_EQ(io.At(1).offset, 2048u) << "and then the direct one, or it would starve";
  io.CompleteAll();
  EXPECT_EQ(rig->Used(0).size(), 4u);
  EXPECT_EQ(io.cached.substr(0, 3072), std::string(1024, 'd') + std::string(512, 'c') +
                                           std::string(512, '\0') + std::string(1024, 'e'));
}

TEST_P(BlkDurabilityTest, ResetDropsWhatWaitsForItsTurn) {
  BuildDirect();
  Write(0, 'd', 1024);
  Write(2, 'c');
  rig->BeginReset();
  EXPECT_FALSE(rig->Drained()) << "the first is at the disk";
  EXPECT_EQ(io.pending(), 1u);
  io.Complete();
  EXPECT_TRUE(rig->Drained());
  EXPECT_EQ(io.cached[1024], '\0');
  rig->EndReset();
  rig->Start(kAllBlkFeatures);
  Write(3, 'n');
  EXPECT_EQ(io.pending(), 1u) << "the gate is open again";
}

TEST_P(BlkDurabilityTest, ErrorsOpenTheGateToo) {
  BuildDirect();
  Write(0, 'd', 1024);
  Write(2, 'c');
  io.Complete(0, EIO);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
  ASSERT_EQ(io.pending(), 1u);
  io.Complete();
  EXPECT_EQ(Status(1), wire::kBlkStatusOk);
}

INSTANTIATE_TEST_SUITE_P(Bounce, BlkDurabilityTest, ::testing::Bool());

}  // namespace
}  // namespace vmsg::testing
