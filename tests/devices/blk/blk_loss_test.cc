// SPDX-License-Identifier: Apache-2.0
// What a guest and an administrator are told when something that was written is lost, and the
// flushes that the device owes by itself.
#include <thread>

#include "tests/devices/blk/blk_rig.h"

namespace vmsg::testing {
namespace {

using backend::DeviceHealth;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kFlush = wire::kBlkFeatureFlush;
constexpr uint64_t kWce = wire::kBlkFeatureConfigWce;

class BlkLossTest : public BlkTest {
 protected:
  void SetUp() override { Attach({}); }
  // As after it was attached anew: nothing is known of what was before.
  void Attach(backend::BlkImage image, uint64_t features = kAllBlkFeatures) {
    health_ = std::make_shared<DeviceHealth>();
    Connect(std::move(image), features);
  }
  // The same attachment, given to another session.
  void Connect(backend::BlkImage image, uint64_t features = kAllBlkFeatures) {
    image.health = health_;
    Build(std::move(image), features);
  }
  // Direct I/O for whole blocks of 1,024 bytes.
  backend::BlkImage WithDirect() {
    return {.buffered = backend::UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)),
            .direct = backend::UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)),
            .offset_alignment = 1024};
  }
  void Write(uint64_t sector = 0, uint32_t size = 512) {
    Submit(wire::kBlkRequestOut, sector, {{kData, size, false}});
    rig->Kick(0);
  }
  void Flush() {
    Submit(wire::kBlkRequestFlush, 0, {});
    rig->Kick(0);
  }
  int LastStatus() { return Status(requests_ - 1); }
  bool AtTheDisk(backend::FileOperation::Kind kind) {
    return io.pending() == 1 && io.At(0).kind == kind;
  }
  bool FlushWorks() {
    Flush();
    io.CompleteAll();
    return LastStatus() == wire::kBlkStatusOk;
  }
  void SetWriteback(uint8_t value) {
    const std::byte bytes[] = {std::byte{value}};
    ASSERT_TRUE(rig->device().WriteConfig(offsetof(wire::BlkConfig, writeback), bytes).ok());
  }

  static constexpr auto kRead = backend::FileOperation::Kind::kRead;
  static constexpr auto kWrite = backend::FileOperation::Kind::kWrite;
  static constexpr auto kSync = backend::FileOperation::Kind::kSync;
  std::shared_ptr<DeviceHealth> health_;
};

// The kernel reports a lost write to one fsync; the next would say that all is well.
TEST_P(BlkLossTest, AfterAFlushThatFailedEveryFlushFails) {
  Write();
  io.CompleteAll();
  Flush();
  io.Complete(0, EIO);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  for (int i = 0; i < 3; ++i) {
    Flush();
    EXPECT_EQ(io.pending(), 0u) << "the disk is not asked";
    EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  }
  Submit(wire::kBlkRequestIn, 0, {{kData, 512, true}});
  rig->Kick(0);
  io.CompleteAll();
  EXPECT_EQ(LastStatus(), wire::kBlkStatusOk) << "what is there can be read";
}

TEST_P(BlkLossTest, NeitherAResetNorAnotherConnectionForgetsIt) {
  Flush();
  io.Complete(0, EIO);
  rig->Reset();
  rig->Start(kAllBlkFeatures);
  EXPECT_FALSE(FlushWorks());
  Connect({});
  EXPECT_FALSE(FlushWorks());
  Attach({});
  EXPECT_TRUE(FlushWorks()) << "only attaching anew does";
}

TEST_P(BlkLossTest, AFlushThatComesMeanwhileWaitsForTheNext) {
  Flush();
  ASSERT_TRUE(AtTheDisk(kSync));
  Flush();
  Flush();
  EXPECT_EQ(io.pending(), 1u) << "of two at once, the kernel tells one";
  io.Complete();
  EXPECT_EQ(Status(0), wire::kBlkStatusOk);
  EXPECT_EQ(Status(1), kUnwritten);
  ASSERT_TRUE(AtTheDisk(kSync)) << "one for both";
  io.Complete();
  EXPECT_EQ(Status(1), wire::kBlkStatusOk);
  EXPECT_EQ(Status(2), wire::kBlkStatusOk);
}

TEST_P(BlkLossTest, WhatWaitedBehindAFlushThatFailedFails) {
  Flush();
  Flush();
  io.Complete(0, EIO);
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
  EXPECT_EQ(Status(1), wire::kBlkStatusIoError);
  EXPECT_EQ(rig->Used(0).size(), 2u);
}

TEST_P(BlkLossTest, ResetDropsAFlushThatHasNotBegun) {
  Flush();
  Flush();
  rig->BeginReset();
  EXPECT_EQ(io.pending(), 1u);
  io.Complete();
  EXPECT_TRUE(rig->Drained());
  EXPECT_EQ(io.pending(), 0u);
  rig->EndReset();
  rig->Start(kAllBlkFeatures);
}

// The driver knows of exactly that one.
TEST_P(BlkLossTest, AnOrdinaryWriteThatFailsLosesNothing) {
  Attach(WithDirect());
  for (const uint32_t size : {1024, 512}) {
    Write(0, size);
    io.Complete(0, EIO);
    EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  }
  EXPECT_TRUE(FlushWorks());
}

TEST_P(BlkLossTest, AWritethroughWriteThatFailsAtTheDiskLosesData) {
  Attach(WithDirect(), /*features=*/0);
  Write(0, 1024);
  ASSERT_TRUE(AtTheDisk(kWrite));
  EXPECT_TRUE(io.At(0).dsync);
  io.Complete(0, EIO);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  Write(0, 1024);
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError) << "nothing is said to be stable any more";
  Connect({}, kFlush);
  EXPECT_FALSE(FlushWorks());
}

TEST_P(BlkLossTest, AWritethroughWriteWithoutSpaceLosesNothing) {
  Attach(WithDirect(), kWce);
  Write(0, 1024);
  io.Complete(0, ENOSPC);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  Write(0, 1024);
  io.CompleteAll();
  EXPECT_EQ(LastStatus(), wire::kBlkStatusOk);
}

// A synchronous write there would be told of the loss instead of the flush.
TEST_P(BlkLossTest, ThroughTheCacheAWritethroughWriteIsAWriteAndAFlush) {
  Attach({}, /*features=*/0);
  Write();
  ASSERT_TRUE(AtTheDisk(kWrite));
  EXPECT_FALSE(io.At(0).dsync);
  io.Complete();
  EXPECT_EQ(LastStatus(), kUnwritten);
  ASSERT_TRUE(AtTheDisk(kSync));
  io.Complete();
  EXPECT_EQ(LastStatus(), wire::kBlkStatusOk);
  Write();
  io.Complete(0, ENOSPC);
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  Write();
  io.Complete();
  io.Complete(0, EIO);
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError);
  EXPECT_TRUE(health_->data_lost());
}

// A driver that sees writethrough sends no flush.
TEST_P(BlkLossTest, TheDeviceFlushesWhenTheCacheBecomesWritethrough) {
  Write();
  io.CompleteAll();
  SetWriteback(0);
  ASSERT_TRUE(AtTheDisk(kSync));
  io.Complete();
  SetWriteback(1);
  SetWriteback(0);
  EXPECT_EQ(io.pending(), 0u) << "nothing was written since";
}

TEST_P(BlkLossTest, TheDeviceFlushesForADriverThatCannot) {
  Write();
  io.CompleteAll();
  rig->Reset();
  EXPECT_EQ(io.pending(), 0u) << "the cache is writeback after the reset";
  rig->Start(/*features=*/0);
  EXPECT_TRUE(AtTheDisk(kSync));
  io.Complete(0, EIO);
  Write();
  EXPECT_EQ(LastStatus(), wire::kBlkStatusIoError) << "that is how it is told";
}

TEST_P(BlkLossTest, TheDeviceFlushesForAnotherConnectionThatCannot) {
  Write();
  io.CompleteAll();
  Connect({}, /*features=*/0);
  EXPECT_TRUE(AtTheDisk(kSync));
}

TEST_P(BlkLossTest, AResetToWritethroughWaitsForTheFlushThatItOwes) {
  Attach({.writethrough = true});
  EXPECT_EQ(rig->Config<uint8_t>(offsetof(wire::BlkConfig, writeback)), 0);
  SetWriteback(1);
  Write();
  io.CompleteAll();
  EXPECT_EQ(LastStatus(), wire::kBlkStatusOk);
  rig->BeginReset();
  EXPECT_TRUE(rig->Drained());
  EXPECT_FALSE(rig->device().Settle(*rig));
  ASSERT_TRUE(AtTheDisk(kSync));
  EXPECT_EQ(rig->settled(), 0);
  io.Complete();
  EXPECT_EQ(rig->settled(), 1);
  rig->EndReset();
  rig->Start(kAllBlkFeatures);
}

TEST_P(BlkLossTest, FailuresAreCountedAndTheLastIsTold) {
  EXPECT_THAT(health_->Read().last, IsEmpty());
  Write(8, 1024);
  io.Complete(0, ENOSPC);
  EXPECT_EQ(health_->Read().failures, 1u);
  EXPECT_EQ(health_->Read().last, "write of 1024 bytes at 4096: No space left on device (ENOSPC)");
  Submit(wire::kBlkRequestIn, 2, {{kData, 512, true}});
  rig->Kick(0);
  io.Complete(0, 0, 100);
  EXPECT_EQ(health_->Read().last, "read of 512 bytes at 1024: the file ends before");
  Flush();
  io.Complete(0, EIO);
  EXPECT_THAT(health_->Read().last,
              AllOf(HasSubstr("flush: Input/output error (EIO)"), HasSubstr("attached anew")));
  EXPECT_EQ(health_->Read().failures, 3u);
  Submit(wire::kBlkRequestIn, UINT64_MAX, {{kData, 512, true}});
  Flush();
  EXPECT_EQ(health_->Read().failures, 3u) << "the guest's errors are not the disk's";
}

INSTANTIATE_TEST_SUITE_P(Bounce, BlkLossTest, ::testing::Bool());

TEST(DeviceHealthTest, ManyFailuresAreAnnouncedOnceUntilItIsReadAndRearmed) {
  DeviceHealth health;
  int announced = 0;
  health.OnFailure([&] { ++announced; });
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) health.Record({.operation = "read", .bytes = 1, .error = EIO});
  });
  for (int i = 0; i < 100; ++i) health.Record({.operation = "write", .bytes = 1, .error = EIO});
  other.join();
  EXPECT_EQ(announced, 1);
  EXPECT_TRUE(health.Rearm()) << "there is something to tell";
  EXPECT_EQ(health.Read().failures, 200u);
  EXPECT_FALSE(health.Rearm());
  health.Record({.operation = "read", .bytes = 1, .error = EIO});
  EXPECT_EQ(announced, 2);
}

}  // namespace
}  // namespace vmsg::testing
