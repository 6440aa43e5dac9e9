// SPDX-License-Identifier: Apache-2.0
// Two guests on one I/O thread: one raises its event faster than the thread can turn, in each way
// that gives it something to do, and the other one is answered within the turn it asked in
// (XSA-332, XSA-391, XSA-392). Turns are counted, not time: a turn's work is bounded by
// kRecordsPerTurn and kChainsPerQueueTurn.
#include <gtest/gtest.h>

#include <functional>

#include "tests/backend/bus/bus_rig.h"

namespace vmsg::testing {
namespace {

// The guest that minds its own business.
class QuietGuest final : private backend::BusEvents {
 public:
  explicit QuietGuest(backend::SimulatedLoop& loop)
      : doorbell_(loop),
        to_(&interface_->out, std::as_writable_bytes(std::span(out_)), true),
        from_(&interface_->in, std::as_writable_bytes(std::span(in_)), true, TestMessageSize()) {
    endpoint_ = std::make_unique<backend::BusEndpoint>(
        backend::BusEndpoint::Parts{.loop = loop,
                                    .doorbell = doorbell_,
                                    .window = memory_.window(),
                                    .mapper = mapper_,
                                    .events = *this},
        backend::RingMemory{.interface = interface_.get(),
                            .in = std::as_writable_bytes(std::span(in_)),
                            .out = std::as_bytes(std::span(out_))},
        backend::BusOptions{.profile = &wire::Profile::V1(),
                            .message_size = TestMessageSize(),
                            .suppression = true});
    doorbell_.on_event = [this] { endpoint_->OnEvent(); };
  }

  void Ping() {
    std::vector<std::byte> record(wire::kMaxMessageSize);
    auto size = wire::Encode(wire::Profile::V1(), {0, 1}, wire::PingRequest{1}, record);
    record.resize(*size);
    ASSERT_TRUE(*to_.Push(record));
    if (to_.Publish()) doorbell_.Raise();
  }
  bool TakeAnswer() {
    std::vector<std::byte> record(wire::kMaxMessageSize);
    auto size = from_.Pop(record);
    EXPECT_TRUE(size.ok()) << size.status();
    if (!size.ok() || !size->has_value()) return false;
    if (from_.Release()) doorbell_.Raise();
    EXPECT_TRUE(from_.Arm().ok());
    return true;
  }
  void Close(backend::SimulatedLoop& loop) {
    bool closed = false;
    endpoint_->Close([&] { closed = true; });
    EXPECT_TRUE(loop.RunUntilIdle());
    EXPECT_TRUE(closed);
    endpoint_.reset();
  }

 private:
  void OnBusBroken(const absl::Status& why) override { ADD_FAILURE() << why; }
  void OnDeviceReset(uint16_t) override {}
  void OnProblem(int, const absl::Status& what) override { ADD_FAILURE() << what; }

  FakeDoorbell doorbell_;
  HeldMapper mapper_;
  GuestMemory memory_{8};
  std::unique_ptr<wire::RingInterface> interface_ = std::make_unique<wire::RingInterface>();
  std::vector<uint64_t> in_ = std::vector<uint64_t>(512), out_ = std::vector<uint64_t>(512);
  wire::RingProducer to_;
  wire::RingConsumer from_;
  std::unique_ptr<backend::BusEndpoint> endpoint_;
};

class EventStormTest : public BusRig {
 protected:
  // The event's turn, and the one that answers.
  static constexpr int kTurnsToAnswer = 2;

  // `storm` runs before each turn of the loop, and the event is raised.
  void ExpectQuietGuestIsServed(const std::function<void()>& storm) {
    QuietGuest quiet(loop_);
    Run();
    const backend::BusCounters before = endpoint_->counters();
    size_t turns = 0;
    for (int i = 0; i < 2'000; ++i) {
      // Wherever the storm's turns happen to stand.
      for (int lead = 0; lead < i % 5; ++lead, ++turns) Turn(storm);
      quiet.Ping();
      int waited = 0;
      for (bool answered = false; !answered; answered = quiet.TakeAnswer()) {
        ASSERT_LT(waited++, kTurnsToAnswer) << "request " << i;
        Turn(storm);
        ++turns;
      }
    }
    const backend::BusCounters& after = endpoint_->counters();
    EXPECT_LE(after.messages_received - before.messages_received, turns * backend::kRecordsPerTurn);
    EXPECT_LE(after.wakeups - before.wakeups, turns);
    quiet.Close(loop_);
  }
  void Turn(const std::function<void()>& storm) {
    storm();
    doorbell_.Raise();
    // Ten microseconds of a thread, so that what was put off by time comes back too.
    loop_.Advance(absl::Microseconds(10));
    (void)loop_.RunUntilIdle(1);
  }
};

TEST_F(EventStormTest, OfEventsWithNothingToSay) {
  ExpectQuietGuestIsServed([] {});
  EXPECT_LE(endpoint_->counters().wakeups,
            // 2,000 requests in four turns of 10 us each, one wake-up each millisecond.
            backend::kSpuriousWakeups + 2 + 2'000 * 4 * 10 / 1'000);
}

TEST_F(EventStormTest, OfMessagesWhoseAnswersNobodyReads) {
  std::vector<std::byte> record(wire::kMaxMessageSize);
  record.resize(*wire::Encode(wire::Profile::V1(), {0, 9}, wire::PingRequest{1}, record));
  ExpectQuietGuestIsServed([&] {
    while (to_.Push(record).value_or(false)) {
    }
    (void)to_.Publish();
  });
}

TEST_F(EventStormTest, OfMessagesThatAreNone) {
  std::vector<std::byte> record(wire::kMaxMessageSize);
  record.resize(*wire::Encode(wire::Profile::V1(), {0, 9}, wire::PingRequest{1}, record));
  record[1] = std::byte{0x7f};  // an id of no message
  ExpectQuietGuestIsServed([&] {
    while (to_.Push(record).value_or(false)) {
    }
    (void)to_.Publish();
  });
  EXPECT_GT(endpoint_->counters().malformed, 100'000u);
}

TEST_F(EventStormTest, OfBuffersThatNeverEnd) {
  AddDevice(4);
  devices_[4]->answers_at_once = true;
  RingDriver ring = GoLive(4);
  for (uint16_t head = 0; head < 16; ++head) {
    ring.WriteDesc(head, {.address = kBuffer, .length = 64, .flags = kWrite});
  }
  size_t used = 0;
  uint16_t in_flight = 0;
  uint16_t next = 0;
  ExpectQuietGuestIsServed([&] {
    const size_t returned = ring.TakeAllUsed().size();
    used += returned;
    in_flight -= returned;
    for (; in_flight < 16; ++in_flight) ring.Offer(next++ % 16);
    ring.Expose();
    std::vector<std::byte> record(wire::kMaxMessageSize);
    record.resize(*wire::Encode(wire::Profile::V1(), {4, 0}, wire::EventAvail{0, 0}, record));
    while (to_.Push(record).value_or(false)) {
    }
    (void)to_.Publish();
    std::vector<std::byte> event(wire::kMaxMessageSize);
    while (from_.Pop(event)->has_value()) {
    }
    (void)from_.Release();
  });
  EXPECT_GT(used, 10'000u);
}

}  // namespace
}  // namespace vmsg::testing
