// SPDX-License-Identifier: Apache-2.0
// EVENT_AVAIL, EVENT_USED, EVENT_CONFIG and the event channel: coalescing, suppression, storms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/bus/bus_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using wire::MessageId;

class BusEventsTest : public BusRig {
 protected:
  explicit BusEventsTest(size_t half = 8192, bool suppression = true) : BusRig(half, suppression) {}

  size_t pings_ = 0;
  // Pings until the `in` half is full.
  void FillRing() {
    uint64_t before;
    do {
      before = endpoint_->counters().messages_sent;
      Push(0, 1, wire::PingRequest{1});
      ++pings_;
      Publish();
    } while (endpoint_->counters().messages_sent != before);
  }
};

// [device:Basic Concepts / Common Message Format / Device]
// [device:Device Operation / Device Notifications / Device]
// [bus:Device Operation / Device Notifications / Bus]
TEST_F(BusEventsTest, ReturnedBufferIsAnnounced) {
  AddDevice(4);
  RingDriver ring = GoLive(4);
  Offer(ring, 4, 2);
  devices_[4]->ReturnOne(64);
  Run();
  const Received event = ReceiveOne();
  EXPECT_EQ(event.id(), MessageId::kEventUsed);
  EXPECT_EQ(event.device(), 4);
  EXPECT_EQ(event.As<wire::EventUsed>().vq_index, 0u);
  EXPECT_THAT(ring.TakeAllUsed(), ElementsAre(UsedEntry{2, 64}));
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST_F(BusEventsTest, EventsAreNeverAnswered) {
  AddDevice(4);
  GoLive(4);
  for (int i = 0; i < 10; ++i) Send(4, 99, wire::EventAvail{0, 0});
  Send(4, 99, wire::EventAvail{77, 0});
  EXPECT_THAT(Receive(), IsEmpty());
}

TEST_F(BusEventsTest, BuffersReturnedTogetherCostOneEventAndOneNotification) {
  AddDevice(4);
  RingDriver ring = GoLive(4);
  for (uint16_t head = 0; head < 8; ++head) {
    ring.WriteDesc(head, {.address = kBuffer, .length = 64, .flags = kWrite});
    ring.Offer(head);
  }
  ring.Expose();
  Send(4, 0, wire::EventAvail{0, 0});
  const int notified = doorbell_.notified;
  while (!devices_[4]->held.empty()) devices_[4]->ReturnOne();
  Run();
  EXPECT_EQ(Receive().size(), 1u);
  EXPECT_EQ(doorbell_.notified, notified + 1);
  EXPECT_EQ(endpoint_->counters().events_coalesced, 7u);
  EXPECT_EQ(ring.TakeAllUsed().size(), 8u);
}

// [bus:Device Operation / Driver Notifications / Bus]
TEST_F(BusEventsTest, BuffersAreTakenAndReturnedInTheTurnOfTheirEvent) {
  AddDevice(4);
  devices_[4]->answers_at_once = true;
  RingDriver ring = GoLive(4);
  for (uint16_t head = 0; head < 10; ++head) {
    Offer(ring, 4, head);
    EXPECT_EQ(ReceiveOne().id(), MessageId::kEventUsed);
  }
}

TEST_F(BusEventsTest, ABusWaitsForStorageWhileOneOfItsDevicesDoes) {
  AddDevice(4);
  AddDevice(5);
  RingDriver ring = GoLive(5);
  EXPECT_FALSE(endpoint_->AwaitsStorage());
  Offer(ring, 5, 0);
  EXPECT_TRUE(endpoint_->AwaitsStorage());
  devices_[5]->ReturnOne(64);
  EXPECT_FALSE(endpoint_->AwaitsStorage());
}

TEST_F(BusEventsTest, DriverNeedNotAnnounceWhatItAddsWhileTheBackendLooks) {
  AddDevice(4);
  devices_[4]->answers_at_once = true;
  RingDriver ring = GoLive(4);
  ring.WriteDesc(0, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring.MakeAvailable(0);
  Push(4, 0, wire::EventAvail{0, 0});
  if (to_.Publish()) doorbell_.Raise();
  // One turn, not to rest: the queue is being looked at, and the driver sees that.
  EXPECT_TRUE(loop_.RunUntilIdle(1) || true);
  EXPECT_FALSE(ring.MustKick(1, 2));
  ring.WriteDesc(1, {.address = kBuffer, .length = 64, .flags = kWrite});
  ring.MakeAvailable(1);
  Run();
  EXPECT_EQ(ring.TakeAllUsed().size(), 2u);
  EXPECT_TRUE(ring.MustKick(2, 3));
}

// [device:Device Operation / Device Notifications / Device]
// [bus:Device Operation / Device Notifications / Bus]
// [device:Transport Messages / VIRTIO_MSG_EVENT_CONFIG / Device]
TEST_F(BusEventsTest, ConfigChangeIsSentWithItsData) {
  AddDevice(4);
  GoLive(4);
  devices_[4]->host->ChangeConfig(1, 2, [&] { devices_[4]->config[1] = std::byte{0x99}; });
  Run();
  const Received received = ReceiveOne();
  const auto event = received.As<wire::EventConfig>();
  EXPECT_EQ(received.device(), 4);
  EXPECT_EQ(event.offset, 1u);
  ASSERT_EQ(event.length, 2u);
  EXPECT_EQ(event.data[0], std::byte{0x99});
}

// [device:Device Operation / Device Notifications / Device]
// [device:Device Operation / Reset / Device]
TEST_F(BusEventsTest, DeviceThatNeedsAResetTellsTheDriver) {
  AddDevice(4);
  RingDriver ring = GoLive(4);
  ring.ExposeIdx(40);
  Send(4, 0, wire::EventAvail{0, 0});
  const auto event = ReceiveOne().As<wire::EventConfig>();
  EXPECT_NE(event.device_status & wire::kStatusDeviceNeedsReset, 0u);
}

class FullRingTest : public BusEventsTest {
 protected:
  explicit FullRingTest(bool suppression = true) : BusEventsTest(1024, suppression) {}

  void Flow() {
    AddDevice(4);
    RingDriver ring = GoLive(4);
    for (uint16_t head = 0; head < 10; ++head) Offer(ring, 4, head);
    ASSERT_EQ(devices_[4]->held.size(), 10u);
    FillRing();
    const uint64_t sent = endpoint_->counters().messages_sent;
    // Everything the device does meanwhile becomes due once.
    for (uint32_t round = 0; round < 10; ++round) {
      devices_[4]->ReturnOne();
      if (round < 8) devices_[4]->host->ChangeConfig(round, 1, [] {});
      Run();
    }
    // This is left in the ring until there is room to answer what it might be.
    Offer(ring, 4, 10);
    EXPECT_THAT(devices_[4]->held, IsEmpty());
    EXPECT_LE(endpoint_->counters().messages_sent, sent + 2);
    std::vector<Received> all;
    for (std::vector<Received> some = Receive(3); !some.empty(); some = Receive(3)) {
      while (!devices_[4]->held.empty()) devices_[4]->ReturnOne();
      Run();
      all.insert(all.end(), some.begin(), some.end());
    }
    size_t used = 0, config = 0, pongs = 0;
    for (const Received& one : all) {
      used += one.id() == MessageId::kEventUsed;
      pongs += one.id() == MessageId::kPing;
      if (one.id() != MessageId::kEventConfig) continue;
      ++config;
      EXPECT_EQ(one.As<wire::EventConfig>().length, 8u);
      EXPECT_EQ(one.As<wire::EventConfig>().generation, 8u);
    }
    EXPECT_EQ(used, 2u);
    EXPECT_EQ(config, 1u);
    EXPECT_EQ(pongs, pings_) << "also the one that found no room";
    EXPECT_EQ(ring.TakeAllUsed().size(), 11u);
    EXPECT_GT(endpoint_->counters().ring_full, 0u);
  }
};

// [bus:Device Operation / Driver Notifications / Bus]
// [bus:Device Operation / Device Notifications / Bus]
TEST_F(FullRingTest, NothingIsLostAndEventsCoalesce) { Flow(); }

class FullRingWithoutSuppressionTest : public FullRingTest {
 protected:
  FullRingWithoutSuppressionTest() : FullRingTest(false) {}
};

TEST_F(FullRingWithoutSuppressionTest, NothingIsLostAndEventsCoalesce) { Flow(); }

TEST_F(BusEventsTest, IdleBusMakesNoWakeUps) {
  AddDevice(4);
  GoLive(4);
  EXPECT_FALSE(loop_.is_active(endpoint_.get()));
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_FALSE(doorbell_.masked());
}

TEST_F(BusEventsTest, SpuriousEventIsHarmless) {
  doorbell_.Raise();
  Run();
  EXPECT_FALSE(doorbell_.masked());
  EXPECT_EQ(endpoint_->counters().spurious_wakeups, 1u);
  EXPECT_EQ(Call<wire::PingResponse>(0, wire::PingRequest{5}).data, 5u);
}

TEST_F(BusEventsTest, PortStaysMaskedWhileThereIsWork) {
  Push(0, 1, wire::PingRequest{1});
  if (to_.Publish()) doorbell_.Raise();
  EXPECT_TRUE(doorbell_.masked());
  loop_.RunUntilIdle(1);
  EXPECT_TRUE(doorbell_.masked());
  Run();
  EXPECT_FALSE(doorbell_.masked());
}

TEST_F(BusEventsTest, StormOfEmptyEventsIsUnmaskedLate) {
  const uint64_t before = endpoint_->counters().wakeups;
  for (int i = 0; i < 100'000; ++i) {
    doorbell_.Raise();
    Run();
  }
  EXPECT_LE(endpoint_->counters().wakeups - before, backend::kSpuriousWakeups + 1u);
  // Time passes: one wake-up each interval, however often it is raised.
  const uint64_t late = endpoint_->counters().wakeups;
  for (int i = 0; i < 10; ++i) {
    for (int j = 0; j < 1000; ++j) {
      doorbell_.Raise();
      Run();
    }
    loop_.Advance(backend::kSpuriousDelay);
    Run();
  }
  EXPECT_LE(endpoint_->counters().wakeups - late, 11u);
  // A guest that has something to say again is served, and at once from then on.
  loop_.Advance(backend::kSpuriousDelay);
  Push(0, 9, wire::PingRequest{1});
  Publish();
  loop_.Advance(backend::kSpuriousDelay);
  EXPECT_EQ(ReceiveOne().token(), 9);
  EXPECT_EQ(Call<wire::PingResponse>(0, wire::PingRequest{5}).data, 5u);
}

TEST_F(BusEventsTest, FloodOfEventAvailIsTakenInBoundedTurns) {
  AddDevice(4);
  GoLive(4);
  const uint64_t before = endpoint_->counters().messages_received;
  for (int i = 0; i < 400; ++i) Push(4, 0, wire::EventAvail{0, 0});
  if (to_.Publish()) doorbell_.Raise();
  loop_.Activate(endpoint_.get());
  loop_.PollOnce();
  EXPECT_EQ(endpoint_->counters().messages_received - before, backend::kRecordsPerTurn);
  Run();
  EXPECT_EQ(endpoint_->counters().messages_received - before, 400u);
}

TEST_F(BusEventsTest, OneNotificationForABatch) {
  for (uint16_t token = 0; token < 20; ++token) Push(0, token, wire::PingRequest{1});
  const int before = doorbell_.notified;
  Publish();
  EXPECT_EQ(doorbell_.notified, before + 1);
  EXPECT_EQ(Receive().size(), 20u);
}

}  // namespace
}  // namespace vmsg::testing
