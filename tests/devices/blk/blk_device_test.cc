// SPDX-License-Identifier: Apache-2.0
// The block device's execution of requests: data, errors, identity, configuration, reset.
#include "tests/devices/blk/blk_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class BlkDeviceTest : public BlkTest {};

TEST_P(BlkDeviceTest, ReadsAndWrites) {
  rig->Put(kData, std::string(1024, 'w'));
  const uint16_t write = Submit(wire::kBlkRequestOut, 3, {{kData, 1024, false}});
  EXPECT_FALSE(rig->Kick(0));
  EXPECT_EQ(io.submits, 1);
  ASSERT_EQ(io.pending(), 1u);
  EXPECT_EQ(Status(0), kUnwritten);
  EXPECT_THAT(rig->Used(0), IsEmpty());
  io.Complete();
  EXPECT_EQ(Status(0), wire::kBlkStatusOk);
  EXPECT_THAT(rig->Used(0), ElementsAre(UsedEntry{write, 1}));
  EXPECT_EQ(io.cached.substr(3 * 512, 1024), std::string(1024, 'w'));
  EXPECT_EQ(io.cached[3 * 512 - 1], '\0');

  const uint16_t read =
      Submit(wire::kBlkRequestIn, 4, {{kData + 8192, 100, true}, {kData + 12288, 412, true}});
  rig->Kick(0);
  io.Complete();
  EXPECT_EQ(Status(1), wire::kBlkStatusOk);
  EXPECT_THAT(rig->Used(0), ElementsAre(UsedEntry{read, 513}));
  EXPECT_EQ(rig->Get(kData + 8192, 100) + rig->Get(kData + 12288, 412), std::string(512, 'w'));
}

TEST_P(BlkDeviceTest, AwaitsStorageUntilTheLastRequestHasEnded) {
  EXPECT_FALSE(rig->device().AwaitsStorage());
  for (int i = 0; i < 2; ++i) Submit(wire::kBlkRequestIn, i, {{kData + 512u * i, 512, true}});
  rig->Kick(0);
  io.Complete();
  EXPECT_TRUE(rig->device().AwaitsStorage());
  io.Complete();
  EXPECT_FALSE(rig->device().AwaitsStorage());
}

TEST_P(BlkDeviceTest, ABatchIsOneSubmissionAndItsCompletionsNotify) {
  for (int i = 0; i < 5; ++i) Submit(wire::kBlkRequestIn, i, {{kData + 512u * i, 512, true}});
  rig->Kick(0);
  EXPECT_EQ(io.submits, 1);
  EXPECT_EQ(io.pending(), 5u);
  io.Complete(3);  // in any order
  io.CompleteAll();
  EXPECT_EQ(rig->Used(0).size(), 5u);
  EXPECT_GE(rig->notified(0), 1);
}

// So that the disk works on the first, and the guest on what the disk has done, while the rest is
// taken.
TEST_P(BlkDeviceTest, ALargeBatchIsTakenInTurns) {
  for (int i = 0; i < 20; ++i) Submit(wire::kBlkRequestIn, 0, {{kData, 512, true}});
  EXPECT_TRUE(rig->Kick(0)) << "the rest is for the next turn";
  EXPECT_EQ(io.pending(), 8u);
  EXPECT_EQ(io.submits, 1);
  EXPECT_TRUE(rig->Kick(0));
  EXPECT_FALSE(rig->Kick(0));
  EXPECT_EQ(io.pending(), 20u);
  EXPECT_EQ(io.submits, 3);
}

TEST_P(BlkDeviceTest, TheBudgetIsKept) {
  for (int i = 0; i < 5; ++i) Submit(wire::kBlkRequestIn, i, {{kData, 512, true}});
  EXPECT_TRUE(rig->Kick(0, 2));
  EXPECT_EQ(io.pending(), 2u);
  EXPECT_FALSE(rig->Kick(0, 64));
  EXPECT_EQ(io.pending(), 5u);
}

// A guest that has pages copied, cleared or pinned without end would keep the thread from others.
TEST_P(BlkDeviceTest, ATurnEndsAfterSomeBytes) {
  for (int i = 0; i < 4; ++i) Submit(wire::kBlkRequestIn, UINT64_MAX, {{kData, 64 << 10, true}});
  Submit(wire::kBlkRequestIn, UINT64_MAX, {{kData, 1 << 20, true}});
  EXPECT_TRUE(rig->Kick(0)) << "the rest is for the next turn";
  EXPECT_EQ(rig->Used(0).size(), 2u);
  EXPECT_TRUE(rig->Kick(0));
  EXPECT_EQ(rig->Used(0).size(), 2u);
  EXPECT_FALSE(rig->Kick(0));
  EXPECT_EQ(rig->Used(0).size(), 1u);
}

TEST_P(BlkDeviceTest, OutOfRangeAndOverflowingSectorsAreErrors) {
  Submit(wire::kBlkRequestIn, kDiskBytes / 512, {{kData, 512, true}});
  Submit(wire::kBlkRequestOut, kDiskBytes / 512 - 1, {{kData, 1024, false}});
  Submit(wire::kBlkRequestOut, UINT64_MAX, {{kData, 512, false}});
  Submit(wire::kBlkRequestOut, UINT64_MAX / 512 + 1, {{kData, 512, false}});
  Submit(wire::kBlkRequestIn, 0, {{kData, 100, true}});
  rig->Kick(0);
  EXPECT_EQ(io.pending(), 0u) << "nothing reaches the disk";
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Status(i), wire::kBlkStatusIoError) << i;
  EXPECT_EQ(rig->Used(0).size(), 5u);
  // Such as a driver meets whose image was cut: whoever looks after it finds out why, once.
  ASSERT_EQ(rig->reports().size(), 1u);
  EXPECT_EQ(rig->reports()[0].message(),
            "read of 512 bytes at sector 256 refused: not whole sectors of the 256 that the disk "
            "has");
}

TEST_P(BlkDeviceTest, UnknownTypesAreUnsupported) {
  for (const uint32_t type : {2u, wire::kBlkRequestDiscard, wire::kBlkRequestWriteZeroes,
                              wire::kBlkRequestSecureErase, 16u, UINT32_MAX}) {
    Submit(type, 0, {});
    rig->Kick(0);
    EXPECT_EQ(Status(requests_ - 1), wire::kBlkStatusUnsupported) << type;
  }
  EXPECT_EQ(io.pending(), 0u);
}

TEST_P(BlkDeviceTest, AHeaderTooShortIsAnErrorAndAMissingStatusIsReturnedEmpty) {
  rig->Put(kStatus, "\xee");
  const uint16_t no_header = rig->Submit(0, {{kHeader, 15, false}, {kStatus, 1, true}});
  const uint16_t no_status = rig->Submit(0, {{kHeader, 16, false}});
  const uint16_t after = Submit(wire::kBlkRequestFlush, 0, {});
  rig->Put(kStatus, "\xee");
  rig->Kick(0);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
  io.CompleteAll();
  EXPECT_THAT(rig->Used(0),
              ElementsAre(UsedEntry{no_header, 1}, UsedEntry{no_status, 0}, UsedEntry{after, 1}));
}

// [device:Device Types / Block Device / Device Operation] a write to a read-only device fails and
// writes nothing.
TEST_P(BlkDeviceTest, ReadOnly) {
  Build({.read_only = true});
  EXPECT_NE(rig->device().identity().features & wire::kBlkFeatureReadOnly, 0u);
  Submit(wire::kBlkRequestOut, 0, {{kData, 512, false}});
  rig->Kick(0);
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
  Submit(wire::kBlkRequestIn, 0, {{kData, 512, true}});
  rig->Kick(0);
  io.Complete();
  EXPECT_EQ(Status(1), wire::kBlkStatusOk);
}

TEST_P(BlkDeviceTest, GetId) {
  Build({.serial = "disk-42"});
  rig->Put(kData, std::string(20, 'x'));
  const uint16_t head = Submit(wire::kBlkRequestGetId, 0, {{kData, 20, true}});
  rig->Kick(0);
  EXPECT_EQ(Status(0), wire::kBlkStatusOk);
  EXPECT_EQ(rig->Get(kData, 20), std::string("disk-42") + std::string(13, '\0'));
  EXPECT_THAT(rig->Used(0), ElementsAre(UsedEntry{head, 21}));
}

TEST_P(BlkDeviceTest, GetIdIntoTooSmallABufferIsAnError) {
  Submit(wire::kBlkRequestGetId, 0, {{kData, 19, true}});
  rig->Kick(0);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
}

TEST_P(BlkDeviceTest, DiskErrorsAreReportedAndTheBufferHoldsNothingOfOurs) {
  rig->Put(kData, std::string(1024, 'x'));
  Submit(wire::kBlkRequestOut, 0, {{kData, 512, false}});
  const uint16_t read = Submit(wire::kBlkRequestIn, 0, {{kData + 512, 512, true}});
  Submit(wire::kBlkRequestFlush, 0, {});
  rig->Kick(0);
  io.Complete(0, EIO);
  io.Complete(0, EIO);
  io.Complete(0, ENOSPC);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Status(i), wire::kBlkStatusIoError) << i;
  EXPECT_EQ(rig->Get(kData, 512), std::string(512, 'x')) << "readable buffers stay";
  EXPECT_EQ(rig->Get(kData + 512, 512), std::string(512, '\0'));
  EXPECT_EQ(rig->Used(0)[1], (UsedEntry{read, 513}));
}

TEST_P(BlkDeviceTest, ALargeBufferIsNotClearedAndNotVouchedFor) {
  rig->Put(kData, "x");
  const uint16_t read =
      Submit(wire::kBlkRequestIn, UINT64_MAX, {{kData, 4096, true}, {kData, 1 << 20, true}});
  rig->Kick(0);
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
  EXPECT_THAT(rig->Used(0), ElementsAre(UsedEntry{read, 0}));
  EXPECT_EQ(rig->Get(kData, 1), "x");
}

TEST_P(BlkDeviceTest, AReadThatEndsEarlyIsAnError) {
  Submit(wire::kBlkRequestIn, 0, {{kData, 1024, true}});
  rig->Kick(0);
  io.Complete(0, 0, 512);  // the file was truncated
  EXPECT_EQ(Status(0), wire::kBlkStatusIoError);
}

TEST_P(BlkDeviceTest, AnEmptyTransferSucceeds) {
  Submit(wire::kBlkRequestIn, 0, {});
  rig->Kick(0);
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_EQ(Status(0), wire::kBlkStatusOk);
}

TEST_P(BlkDeviceTest, Configuration) {
  Build({.logical_block = 512, .physical_block = 4096});
  EXPECT_EQ(rig->Config<uint64_t>(0), kDiskBytes / 512);
  EXPECT_EQ(rig->Config<uint32_t>(offsetof(wire::BlkConfig, seg_max)), backend::kBlkMaxSegments);
  EXPECT_EQ(rig->Config<uint32_t>(offsetof(wire::BlkConfig, size_max)), 1u << 20);
  EXPECT_EQ(rig->device().identity().max_queue_sizes, std::vector<uint32_t>{256})
      << "what a guest can make us hold grows with its square";
  EXPECT_EQ(rig->Config<uint32_t>(offsetof(wire::BlkConfig, blk_size)), 512u);
  EXPECT_EQ(rig->Config<uint8_t>(offsetof(wire::BlkConfig, physical_block_exp)), 3);
  EXPECT_EQ(rig->Config<uint8_t>(offsetof(wire::BlkConfig, writeback)), 1);
  // [device:Device Types / Block Device / Device Initialization] padding is zero.
  EXPECT_EQ(rig->Config<uint8_t>(offsetof(wire::BlkConfig, unused0)), 0);
  EXPECT_EQ(rig->Config<uint16_t>(offsetof(wire::BlkConfig, num_queues)), 1);
}

TEST_P(BlkDeviceTest, SeveralQueues) {
  Build({.queues = 3});
  EXPECT_EQ(rig->device().identity().max_queue_sizes.size(), 3u);
  EXPECT_NE(rig->device().identity().features & wire::kBlkFeatureMultiQueue, 0u);
  EXPECT_EQ(rig->Config<uint16_t>(offsetof(wire::BlkConfig, num_queues)), 3);
  wire::BlkRequestHeader header{wire::kBlkRequestFlush, 0, 0};
  rig->Put(kHeader, std::string(reinterpret_cast<char*>(&header), sizeof header));
  rig->Submit(2, {{kHeader, 16, false}, {kStatus, 1, true}});
  rig->Kick(2);
  io.Complete();
  EXPECT_EQ(rig->Used(2).size(), 1u);
}

TEST_P(BlkDeviceTest, OnlyWritebackCanBeWrittenAndOnlyZeroOrOne) {
  const auto write = [&](uint32_t offset, std::vector<std::byte> bytes) {
    return rig->device().WriteConfig(offset, bytes);
  };
  EXPECT_TRUE(write(32, {std::byte{0}}).ok());
  EXPECT_EQ(rig->Config<uint8_t>(32), 0);
  EXPECT_EQ(write(32, {std::byte{2}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(write(0, {std::byte{1}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(write(32, {std::byte{1}, std::byte{0}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(rig->Config<uint8_t>(32), 0) << "a refused write changes nothing";
  rig->Reset();
  EXPECT_EQ(rig->Config<uint8_t>(32), 1) << "as new after reset";
  rig->Start(kAllBlkFeatures);
}

TEST_P(BlkDeviceTest, ABrokenAvailableIndexNeedsAReset) {
  rig->driver(0).ExposeIdx(1000);
  EXPECT_FALSE(rig->Kick(0));
  ASSERT_EQ(rig->needs_reset().size(), 1u);
  EXPECT_THAT(std::string(rig->needs_reset()[0].message()), HasSubstr("available index"));
}

TEST_P(BlkDeviceTest, ABrokenChainIsPublishedAtOnce) {
  const uint16_t head = rig->Submit(0, {{UINT64_MAX, 16, false}});
  rig->Kick(0);
  EXPECT_THAT(rig->Used(0), ElementsAre(UsedEntry{head, 0}));
}

TEST_P(BlkDeviceTest, ResetWaitsForTheDiskAndTellsTheDriverNothing) {
  Submit(wire::kBlkRequestIn, 0, {{kData, 512, true}});
  Submit(wire::kBlkRequestIn, 1, {{kData, 512, true}});
  rig->Kick(0);
  rig->BeginReset();
  EXPECT_FALSE(rig->Drained());
  io.Complete();
  EXPECT_FALSE(rig->Drained());
  io.Complete(0, EIO);
  EXPECT_TRUE(rig->Drained());
  EXPECT_THAT(rig->Used(0), IsEmpty());
  EXPECT_EQ(rig->notified(0), 0);
  rig->EndReset();
  // And it works again.
  rig->Start(kAllBlkFeatures);
  Submit(wire::kBlkRequestIn, 1, {{kData, 512, true}});
  rig->Kick(0);
  io.Complete();
  EXPECT_EQ(rig->Used(0).size(), 1u);
}

TEST_P(BlkDeviceTest, NoNewRequestsAfterReset) {
  rig->Reset();
  EXPECT_FALSE(rig->device().OnQueue(0, 64));
  rig->Start(kAllBlkFeatures);
}

TEST_P(BlkDeviceTest, WhatIsLargerThanOfferedIsAnError) {
  Build({.bytes = uint64_t{1} << 40});
  const auto run = [this](std::vector<DeviceRig::Buffer> data) {
    Submit(wire::kBlkRequestIn, 0, std::move(data));
    while (rig->Kick(0)) {
    }
    const bool begun = io.pending() > 0;
    while (io.pending() > 0) io.Complete(0, EIO);
    return begun;
  };
  EXPECT_TRUE(run({{kData, 1 << 20, true}}));
  EXPECT_FALSE(run({{kData, (1 << 20) + 512, true}}));
  EXPECT_EQ(Status(1), wire::kBlkStatusIoError);
  Build({.bytes = uint64_t{1} << 40}, kAllBlkFeatures & ~wire::kBlkFeatureSizeMax);
  EXPECT_TRUE(run({{kData, 4 << 20, true}})) << "the driver was not told";
  EXPECT_TRUE(run(std::vector<DeviceRig::Buffer>(50, {kData, 5 << 20, true})));
  EXPECT_FALSE(run(std::vector<DeviceRig::Buffer>(51, {kData, 5 << 20, true})))
      << "but nothing is over 254 MiB";
}

// A driver that is gone waits for none of it, and a dead guest would stay a zombie for so long.
TEST_P(BlkDeviceTest, WhatContinuesStopsWithItsQueue) {
  constexpr uint32_t kRequests = 5;
  Build({.bytes = 8 << 20});
  io.cached.resize(8 << 20);
  for (uint32_t i = 0; i < kRequests; ++i) {
    const std::vector<DeviceRig::Buffer> data(5, {kData, 1 << 20, true});
    Submit(wire::kBlkRequestIn, 0, data);
  }
  while (rig->Kick(0)) {
  }
  const size_t at_work = io.pending();
  EXPECT_EQ(at_work, kRequests) << "a part of each";
  rig->BeginReset();
  EXPECT_EQ(io.pending(), at_work) << "nothing new begins";
  for (size_t i = 0; i < at_work; ++i) io.Complete();
  EXPECT_EQ(io.pending(), 0u);
  EXPECT_TRUE(rig->Drained());
  EXPECT_THAT(rig->Used(0), IsEmpty());
  rig->EndReset();
  rig->Start(kAllBlkFeatures);
}

INSTANTIATE_TEST_SUITE_P(Bounce, BlkDeviceTest, ::testing::Bool());

}  // namespace
}  // namespace vmsg::testing
