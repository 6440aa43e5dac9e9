// SPDX-License-Identifier: Apache-2.0
// Queues: set up, run, reset, message by message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/transport/transport_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TransportQueuesTest : public TransportRig {
 protected:
  void ExpectRefused(const backend::QueueLayout& layout, const std::string& reason) {
    problems_.clear();
    EXPECT_TRUE(SetQueue(0, layout)) << "every request has its response";
    EXPECT_EQ(GetQueue(0).cur_size, 0u) << reason;
    EXPECT_THAT(problems_, ElementsAre(HasSubstr(reason)));
  }
};

// [device:Device Initialization / Virtqueue Configuration / Device]
// [device:Transport Messages / VIRTIO_MSG_GET_VQUEUE / Device]
TEST_F(TransportQueuesTest, QueueReportsItsMaximumAndZeroUntilItIsSet) {
  const auto response = GetQueue(1);
  EXPECT_EQ(response.index, 1u);
  EXPECT_EQ(response.max_size, 16u);
  EXPECT_EQ(response.cur_size, 0u);
  EXPECT_EQ(response.desc_addr, 0u);
}

TEST_F(TransportQueuesTest, UnknownQueueIsAnsweredWithZeros) {
  const auto response = GetQueue(2);
  EXPECT_EQ(response.index, 2u);
  EXPECT_EQ(response.max_size, 0u);
  EXPECT_TRUE(SetQueue(2, ring0_.layout()));
  EXPECT_TRUE(SetQueue(0xffffffff, ring0_.layout()));
  EXPECT_TRUE(ResetQueue(2));
}

// [device:Device Initialization / Virtqueue Configuration / Device]
// [device:Transport Messages / VIRTIO_MSG_SET_VQUEUE / Device]
TEST_F(TransportQueuesTest, QueueKeepsTheParametersItWasGiven) {
  Negotiate();
  EXPECT_TRUE(SetQueue(0, ring0_.layout()));
  const auto response = GetQueue(0);
  EXPECT_EQ(response.cur_size, 16u);
  EXPECT_EQ(response.desc_addr, ring0_.layout().desc);
  EXPECT_EQ(response.driver_addr, ring0_.layout().driver);
  EXPECT_EQ(response.device_addr, ring0_.layout().device);
}

// [device:Transport Messages / VIRTIO_MSG_SET_VQUEUE / Device]
TEST_F(TransportQueuesTest, BadParametersLeaveTheQueueInactive) {
  Negotiate();
  const backend::QueueLayout good = ring0_.layout();
  backend::QueueLayout bad = good;
  for (uint32_t size : {0u, 3u, 32u, 0x10000u, 0xffffffffu}) {
    bad.size = size;
    ExpectRefused(bad, "size " + std::to_string(size));
  }
  bad = good;
  bad.desc = 0;
  ExpectRefused(bad, "queue 0 refused");
  bad = good;
  bad.desc += 8;
  ExpectRefused(bad, "queue 0 refused");
  bad = good;
  bad.driver = memory_.size() - 2;
  ExpectRefused(bad, "queue 0 refused");
  bad = good;
  bad.device = ~uint64_t{3};
  ExpectRefused(bad, "queue 0 refused");
  bad = good;
  bad.device = good.desc;
  ExpectRefused(bad, "queue 0 refused");
  EXPECT_TRUE(SetQueue(0, good));
  EXPECT_EQ(GetQueue(0).cur_size, 16u);
}

TEST_F(TransportQueuesTest, BadParametersTakeAnActiveQueueOutOfUse) {
  GoLive();
  backend::QueueLayout bad = ring0_.layout();
  bad.size = 5;
  ExpectRefused(bad, "size 5");
  OfferAndKick();
  EXPECT_THAT(device_->held, IsEmpty());
}

TEST_F(TransportQueuesTest, QueueBeforeFeaturesOkIsRefused) {
  SetStatus(kAck | kDriver);
  ExpectRefused(ring0_.layout(), "FEATURES_OK comes first");
}

// [device:Device Initialization / Finalizing Initialization / Device]
TEST_F(TransportQueuesTest, NothingIsTakenBeforeDriverOkAndEverythingAfter) {
  Negotiate();
  SetQueue(0, ring0_.layout());
  OfferAndKick();
  EXPECT_EQ(device_->on_queue_calls, 0u);
  SetStatus(kAck | kDriver | kFeaturesOk | kDriverOk);
  RunToRest();
  EXPECT_EQ(device_->held.size(), 1u) << "its EVENT_AVAIL came before";
}

TEST_F(TransportQueuesTest, ARingThatWasInUseIsRefusedWithoutResume) {
  Negotiate();
  memory_.Store<uint16_t>(ring0_.layout().device + wire::kUsedIdxOffset, 5);
  EXPECT_TRUE(SetQueue(0, ring0_.layout()));
  EXPECT_EQ(GetQueue(0).cur_size, 0u);
  ASSERT_EQ(problems_.size(), 1u);
  EXPECT_THAT(problems_[0], HasSubstr("SET_VQUEUE of queue 0 refused: the used index"));
  EXPECT_THAT(problems_[0], HasSubstr("feature-queue-resume"));
}

TEST_F(TransportQueuesTest, ARingThatWasInUseGoesOnWithResume) {
  Make(/*queue_resume=*/true);
  Negotiate();
  memory_.Store<uint16_t>(ring0_.layout().device + wire::kUsedIdxOffset, 65535);
  ring0_.WriteDesc(4, {.address = kBuffer, .length = 64, .flags = kWrite});
  memory_.Store<uint16_t>(ring0_.layout().driver + wire::kAvailableRingOffset + 2 * 15, 4);
  ring0_.ExposeIdx(0);
  EXPECT_TRUE(SetQueue(0, ring0_.layout()));
  SetStatus(kAck | kDriver | kFeaturesOk | kDriverOk);
  RunToRest();
  ASSERT_EQ(device_->held.size(), 1u) << "without an EVENT_AVAIL";
  device_->ReturnOne(17);
  EXPECT_THAT(used_events_, ElementsAre(0u));
  EXPECT_EQ(memory_.Load<uint16_t>(ring0_.layout().device + wire::kUsedIdxOffset), 0);
  EXPECT_EQ(memory_.Load<uint32_t>(ring0_.layout().device + wire::kUsedRingOffset + 8 * 15), 4u);
}

// [device:Device Operation / Virtqueue Changes During Operation / Device]
TEST_F(TransportQueuesTest, QueueCanBeSetUpWhileTheDeviceRuns) {
  GoLive();
  ring1_.WriteDesc(0, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring1_.MakeAvailable(0);
  EXPECT_TRUE(SetQueue(1, ring1_.layout()));
  RunToRest();
  ASSERT_EQ(device_->held.size(), 1u);
  EXPECT_EQ(device_->held.front().queue, 1u);
}

// [device:Transport Messages / VIRTIO_MSG_EVENT_USED / Device]
TEST_F(TransportQueuesTest, ReturnedBufferIsPublishedAndAnnounced) {
  GoLive();
  OfferAndKick(3);
  device_->ReturnOne(17);
  EXPECT_THAT(used_events_, ElementsAre(0u));
  EXPECT_THAT(ring0_.TakeAllUsed(), ElementsAre(UsedEntry{3, 17}));
}

// [device:Transport Messages / VIRTIO_MSG_EVENT_USED / Device]
TEST_F(TransportQueuesTest, DriverThatWantsNoNotificationGetsNone) {
  GoLive();
  ring0_.SetNoInterrupt(true);
  OfferAndKick();
  device_->ReturnOne();
  EXPECT_THAT(used_events_, IsEmpty());
  EXPECT_EQ(ring0_.TakeAllUsed().size(), 1u);
}

TEST_F(TransportQueuesTest, KicksAreOffWhileTheQueueIsLookedAtAndOnAfterwards) {
  GoLive();
  RunToRest();
  EXPECT_TRUE(ring0_.MustKick(0, 1));
  transport_->HandleEvent(wire::EventAvail{0, 0});
  EXPECT_FALSE(ring0_.MustKick(0, 1));
  RunToRest();
  EXPECT_TRUE(ring0_.MustKick(0, 1));
}

// The driver that waited for it answers with its next request at once, and need not announce it.
TEST_F(TransportQueuesTest, AQueueIsLookedAtAgainWhenSomethingOfItEnds) {
  GoLive();
  OfferAndKick();
  ASSERT_EQ(device_->held.size(), 1u);
  ASSERT_TRUE(ring0_.MustKick(1, 2));
  device_->ReturnOne();
  EXPECT_FALSE(ring0_.MustKick(1, 2));
  ring0_.WriteDesc(1, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring0_.MakeAvailable(1);
  RunToRest();
  EXPECT_EQ(device_->held.size(), 1u);
  EXPECT_TRUE(ring0_.MustKick(2, 3));
}

TEST_F(TransportQueuesTest, BuffersThatComeWhileGoingToSleepAreSeen) {
  GoLive();
  transport_->HandleEvent(wire::EventAvail{0, 0});
  EXPECT_FALSE(transport_->RunQueues(8));
  // No kick: the driver saw that they are off.
  ring0_.WriteDesc(0, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring0_.MakeAvailable(0);
  EXPECT_TRUE(transport_->ArmQueues());
  RunToRest();
  EXPECT_EQ(device_->held.size(), 1u);
}

TEST_F(TransportQueuesTest, DeviceThatLeavesBuffersInTheQueueIsNotAskedAgainAndAgain) {
  GoLive();
  device_->takes_chains = false;
  device_->on_queue_calls = 0;
  OfferAndKick();
  EXPECT_LE(device_->on_queue_calls, 2u);
  EXPECT_FALSE(transport_->has_running_queues());
  EXPECT_TRUE(ring0_.MustKick(1, 2)) << "the driver announces the next one";
}

TEST_F(TransportQueuesTest, BudgetBoundsATurnAndTheRestComesInTheNext) {
  GoLive();
  for (uint16_t head = 0; head < 10; ++head) {
    ring0_.WriteDesc(head, {.address = kBuffer, .length = 64, .flags = kWrite});
    ring0_.Offer(head);
  }
  ring0_.Expose();
  transport_->HandleEvent(wire::EventAvail{0, 0});
  EXPECT_TRUE(transport_->RunQueues(4));
  EXPECT_EQ(device_->held.size(), 4u);
  RunToRest();
  EXPECT_EQ(device_->held.size(), 10u);
}

TEST_F(TransportQueuesTest, BrokenChainIsReportedAndTheNextOneServed) {
  GoLive();
  ring0_.WriteDesc(0, {.address = memory_.size(), .length = 64, .flags = kWrite});
  ring0_.Offer(0);
  ring0_.WriteDesc(1, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring0_.Offer(1);
  ring0_.Expose();
  Kick(0);
  ASSERT_EQ(device_->held.size(), 1u);
  EXPECT_EQ(device_->held.front().chain.head, 1u);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("queue 0: ")));
}

// [device:Basic Concepts / Error Signaling / Device]
// [device:Transport Messages / VIRTIO_MSG_GET_DEVICE_STATUS / Device]
TEST_F(TransportQueuesTest, LyingAvailableIndexStopsTheDeviceUntilReset) {
  GoLive();
  ring0_.ExposeIdx(17);
  Kick(0);
  EXPECT_EQ(config_events_, 1);
  EXPECT_NE(Status() & wire::kStatusDeviceNeedsReset, 0u);
}

TEST_F(TransportQueuesTest, EventForAnUnknownQueueIsDropped) {
  GoLive();
  Kick(2);
  Kick(0xffffffff);
  EXPECT_EQ(problems_.size(), 2u);
}

TEST_F(TransportQueuesTest, NotificationDataIsAcceptedAndNotTrusted) {
  GoLive(wire::kFeatureVersion1 | wire::kFeatureNotificationData);
  transport_->HandleEvent(wire::EventAvail{0, 0xffffffff});
  RunToRest();
  EXPECT_THAT(device_->held, IsEmpty());
  OfferAndKick();
  EXPECT_EQ(device_->held.size(), 1u);
}

// [device:Device Initialization / Virtqueue Configuration / Device]
// [device:Device Operation / Virtqueue Changes During Operation / Device]
// [device:Transport Messages / VIRTIO_MSG_RESET_VQUEUE / Device]
TEST_F(TransportQueuesTest, QueueResetIsAnsweredWhenTheQueueHasDrained) {
  GoLive();
  OfferAndKick();
  auto answered = std::make_shared<bool>(false);
  EXPECT_FALSE(ResetQueue(0, answered));
  EXPECT_THAT(device_->log, ElementsAre("features", "start", "stopping 0"));
  transport_->Advance();
  EXPECT_FALSE(*answered);
  device_->ReturnOne(64);
  transport_->Advance();
  EXPECT_TRUE(*answered);
  EXPECT_EQ(GetQueue(0).cur_size, 0u);
  EXPECT_THAT(ring0_.TakeAllUsed(), IsEmpty());
  EXPECT_NE(Status() & kDriverOk, 0u) << "the device runs on";
}

// [device:Device Initialization / Virtqueue Configuration / Device]
// [device:Device Operation / Virtqueue Changes During Operation / Device]
TEST_F(TransportQueuesTest, QueueIsSetUpAgainAfterItsReset) {
  GoLive();
  ASSERT_TRUE(ResetQueue(0));
  ring0_ = RingDriver(memory_, 8, 32 * 4096);
  EXPECT_TRUE(SetQueue(0, ring0_.layout()));
  OfferAndKick();
  EXPECT_EQ(device_->held.size(), 1u);
}

// [device:Basic Concepts / Versioning and Forward Compatibility / Device]
TEST_F(TransportQueuesTest, QueueResetThatWasNotNegotiatedHasNoEffect) {
  GoLive(wire::kFeatureVersion1);
  EXPECT_TRUE(ResetQueue(0));
  EXPECT_EQ(GetQueue(0).cur_size, 16u);
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("RING_RESET")));
}

// [device:Device Operation / Virtqueue Changes During Operation / Device]
TEST_F(TransportQueuesTest, NewParametersForAQueueInUseWaitForItToDrain) {
  GoLive();
  OfferAndKick();
  const RingDriver other(memory_, 8, 32 * 4096);
  auto answered = std::make_shared<bool>(false);
  EXPECT_FALSE(SetQueue(0, other.layout(), answered));
  device_->ReturnOne(64);
  transport_->Advance();
  EXPECT_TRUE(*answered);
  EXPECT_EQ(GetQueue(0).desc_addr, other.layout().desc);
}

TEST_F(TransportQueuesTest, QueueAreasAreKnownWhileTheQueueExists) {
  EXPECT_FALSE(transport_->QueueAreasIn(0, memory_.size()));
  GoLive();
  const backend::QueueLayout& layout = ring0_.layout();
  EXPECT_TRUE(transport_->QueueAreasIn(layout.desc, 1));
  EXPECT_TRUE(transport_->QueueAreasIn(layout.device, 1));
  EXPECT_FALSE(transport_->QueueAreasIn(0, layout.desc));
  EXPECT_FALSE(transport_->QueueAreasIn(ring0_.end(), 4096));
  SetStatus(0);
  EXPECT_FALSE(transport_->QueueAreasIn(0, memory_.size()));
}

TEST_F(TransportQueuesTest, FailedDriverIsNotServed) {
  GoLive();
  SetStatus(Status() | wire::kStatusFailed);
  OfferAndKick();
  EXPECT_THAT(device_->held, IsEmpty());
}

}  // namespace
}  // namespace vmsg::testing
