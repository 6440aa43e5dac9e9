// SPDX-License-Identifier: Apache-2.0
// feature-queue-resume: a queue that goes on where its used ring says, whatever became of the
// device before.
#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "tests/virtio-msg/watched_memory.h"
#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ResumeTest : public QueueTest {
 protected:
  void SetUp() override { Build(8, {.event_idx = true, .resume = true}); }

  void StoreUsedIdx(uint16_t idx) {
    memory->Store<uint16_t>(driver->layout().device + wire::kUsedIdxOffset, idx);
  }
  absl::Status Recreate(backend::QueueFeatures features = {.event_idx = true, .resume = true}) {
    auto made = backend::SplitQueue::Create(memory->window(), driver->layout(), features);
    if (made.ok()) queue = *std::move(made);
    return made.status();
  }
  // The device goes as it does at the end of a connection: what it took drains, unpublished.
  void Lose() {
    queue->Stop([] {});
    for (backend::DescriptorChain& chain : held) queue->Return(std::move(chain), 0);
    held.clear();
    queue.reset();
  }
  // The head of the next chain; -1: there is none.
  int PopHead() {
    std::optional<backend::DescriptorChain> chain = Pop();
    if (!chain.has_value()) return -1;
    const int head = chain->head;
    held.push_back(*std::move(chain));
    return head;
  }
  void ReturnAll(uint32_t written) {
    for (backend::DescriptorChain& chain : held) queue->Return(std::move(chain), written);
    held.clear();
  }
};

TEST_F(ResumeTest, GoesOnWhereTheUsedRingIs) {
  for (uint16_t head = 0; head < 8; ++head) driver->WriteDesc(head, {kBuffers, 16, 0, 0});
  driver->Offer(5);
  driver->Offer(6);
  driver->Expose();
  EXPECT_EQ(PopHead(), 5);
  ReturnAll(0);
  (void)queue->Publish();
  EXPECT_EQ(PopHead(), 6);  // taken and not published: the next device gets it again
  Lose();
  EXPECT_THAT(driver->TakeAllUsed(), ElementsAre(UsedEntry{5, 0}));
  ASSERT_EQ(Recreate(), absl::OkStatus());
  EXPECT_EQ(PopHead(), 6);
  EXPECT_EQ(PopHead(), -1);
  ReturnAll(0);
  (void)queue->Publish();
  EXPECT_THAT(driver->TakeAllUsed(), ElementsAre(UsedEntry{6, 0}));
}

TEST_F(ResumeTest, WithoutTheFeatureARingThatWasInUseIsRefused) {
  queue.reset();
  StoreUsedIdx(3);
  const absl::Status status = Recreate({.event_idx = true});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("used index"), HasSubstr(" is 3"),
                                                   HasSubstr("feature-queue-resume")));
  // Nothing stays pinned: the window can go.
  StoreUsedIdx(0);
  EXPECT_EQ(Recreate({.event_idx = true}), absl::OkStatus());
}

TEST_F(ResumeTest, AnAvailableIndexBehindOrTooFarAheadIsALie) {
  for (const uint16_t available : {uint16_t{99}, uint16_t{109}}) {
    queue.reset();
    StoreUsedIdx(100);
    ASSERT_EQ(Recreate(), absl::OkStatus());
    driver->ExposeIdx(available);
    EXPECT_EQ(queue->Pop().status().code(), absl::StatusCode::kDataLoss) << available;
  }
}

// At each size the whole ring may be in flight, and both indexes pass 65535.
TEST_F(ResumeTest, AFullRingGoesOnAtEverySizeAndAcrossTheWrap) {
  for (const uint32_t size : {1u, 2u, 8u, 32768u}) {
    const size_t pages = size > 1024 ? 1024 : 128;
    Build(size, {.event_idx = true, .resume = true}, pages);
    const uint64_t buffer = driver->end();
    for (const uint16_t start :
         {uint16_t{0}, uint16_t{1}, uint16_t(65536 - size), uint16_t{65535}}) {
      SCOPED_TRACE(absl::StrCat("size ", size, " from ", start));
      queue.reset();
      StoreUsedIdx(start);
      const uint16_t mask = static_cast<uint16_t>(size - 1);
      for (uint32_t i = 0; i < size; ++i) {
        driver->WriteDesc(i, {buffer, 16, 0, 0});
        memory->Store<uint16_t>(driver->layout().driver + wire::kAvailableRingOffset +
                                    uint64_t{2} * ((start + i) & mask),
                                i);
      }
      driver->ExposeIdx(static_cast<uint16_t>(start + size));
      ASSERT_EQ(Recreate(), absl::OkStatus());
      for (uint32_t i = 0; i < size; ++i) ASSERT_EQ(PopHead(), static_cast<int>(i));
      ASSERT_EQ(PopHead(), -1);
      ReturnAll(7);
      EXPECT_TRUE(queue->Publish());
      EXPECT_EQ(memory->Load<uint16_t>(driver->layout().device + wire::kUsedIdxOffset),
                static_cast<uint16_t>(start + size));
      for (uint32_t i = 0; i < size; ++i) {
        const uint64_t entry =
            driver->layout().device + wire::kUsedRingOffset + uint64_t{8} * ((start + i) & mask);
        ASSERT_EQ(memory->Load<uint32_t>(entry), i);
        ASSERT_EQ(memory->Load<uint32_t>(entry + 4), 7u);
      }
    }
  }
}

// The driver asked for an event at what the lost device published and did not announce.
TEST_F(ResumeTest, TheFirstPublicationIsAnnouncedWhateverTheDriverWished) {
  for (const bool event_idx : {true, false}) {
    Build(8, {.event_idx = event_idx, .resume = true});
    for (uint16_t head = 0; head < 8; ++head) driver->WriteDesc(head, {kBuffers, 16, 0, 0});
    driver->SetUsedEvent(0);
    driver->SetNoInterrupt(!event_idx);
    driver->Offer(0);
    driver->Offer(1);
    driver->Offer(2);
    driver->Expose();
    EXPECT_EQ(PopHead(), 0);
    ReturnAll(0);
    EXPECT_TRUE(queue->Publish());  // and the event is lost with the device
    Lose();
    ASSERT_EQ(Recreate({.event_idx = event_idx, .resume = true}), absl::OkStatus());
    EXPECT_EQ(PopHead(), 1);
    ReturnAll(0);
    EXPECT_TRUE(queue->Publish());
    EXPECT_EQ(PopHead(), 2);
    ReturnAll(0);
    EXPECT_FALSE(queue->Publish()) << "from here on the driver's wish counts again";
  }
}

// The lost device's wish for kicks stands in the ring: ahead, when it had taken more than it
// returned.
TEST_F(ResumeTest, ArmingAsksForTheKickThatComesNext) {
  for (const bool event_idx : {true, false}) {
    Build(8, {.event_idx = event_idx, .resume = true});
    for (uint16_t head = 0; head < 8; ++head) driver->WriteDesc(head, {kBuffers, 16, 0, 0});
    for (const uint16_t head : {0, 1, 2}) driver->Offer(head);
    driver->Expose();
    while (PopHead() >= 0) {
    }
    queue->DisableKicks();
    EXPECT_FALSE(queue->EnableKicks());
    if (!event_idx) queue->DisableKicks();
    Lose();
    ASSERT_EQ(Recreate({.event_idx = event_idx, .resume = true}), absl::OkStatus());
    queue->DisableKicks();
    EXPECT_TRUE(queue->EnableKicks()) << "three chains are in the ring";
    for (const int head : {0, 1, 2}) EXPECT_EQ(PopHead(), head);
    EXPECT_FALSE(queue->EnableKicks());
    driver->MakeAvailable(3);
    EXPECT_TRUE(driver->MustKick(3, 4));
    EXPECT_EQ(PopHead(), 3);
    ReturnAll(0);
  }
}

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
TEST_F(ResumeTest, TheUsedIndexIsReadOnceAndNothingElse) {
  queue.reset();
  StoreUsedIdx(40);
  const uint64_t device = driver->layout().device;
  std::map<uint64_t, int> accesses;
  {
    WatchedMemory watched(std::span(memory->At(4096), driver->end() - 4096),
                          [](std::byte* accessed) { *accessed ^= std::byte{2}; });
    ASSERT_EQ(Recreate(), absl::OkStatus());
    watched.Stop();
    for (uint64_t at = 4096; at < driver->end(); ++at) {
      if (watched.accesses(at - 4096) > 0) accesses[at] = watched.accesses(at - 4096);
    }
  }
  EXPECT_EQ(accesses, (std::map<uint64_t, int>{{device + wire::kUsedIdxOffset, 1}}));
  driver->WriteDesc(1, {kBuffers, 16, 0, 0});
  memory->Store<uint16_t>(driver->layout().driver + wire::kAvailableRingOffset, 1);
  driver->ExposeIdx(41);
  EXPECT_EQ(PopHead(), 1) << "from 40 on, as it was read";
}
#endif

// What a transport in the guest knows without asking the driver above it: each head toggles a bit
// at its entry in the available and in the used ring.
class TransportModel {
 public:
  TransportModel(GuestMemory& memory, const backend::QueueLayout& layout, uint16_t start)
      : memory_(memory), layout_(layout), available_(start), used_(start) {}

  // Takes up what happened since the last look. False: the rings contradict each other.
  bool Look() {
    const uint16_t available = memory_.Load<uint16_t>(layout_.driver + wire::kAvailableIdxOffset);
    for (; available_ != available; ++available_) {
      const auto head = memory_.Load<uint16_t>(AvailableEntry(available_));
      if (!in_flight_.insert(head).second) return false;
    }
    const uint16_t used = memory_.Load<uint16_t>(layout_.device + wire::kUsedIdxOffset);
    for (; used_ != used; ++used_) {
      const auto head = memory_.Load<uint32_t>(layout_.device + wire::kUsedRingOffset +
                                               uint64_t{8} * (used_ & (layout_.size - 1)));
      if (in_flight_.erase(head) == 0) return false;
    }
    return in_flight_.size() == static_cast<uint16_t>(available_ - used_);
  }
  // After the loss of a device: what is in flight is available from the used index on.
  void Restore() {
    uint16_t index = used_;
    for (const uint32_t head : in_flight_) {
      memory_.Store<uint16_t>(AvailableEntry(index++), static_cast<uint16_t>(head));
    }
    ASSERT_EQ(index, available_);
  }

 private:
  uint64_t AvailableEntry(uint16_t index) const {
    return layout_.driver + wire::kAvailableRingOffset + uint64_t{2} * (index & (layout_.size - 1));
  }
  GuestMemory& memory_;
  const backend::QueueLayout layout_;
  uint16_t available_, used_;
  std::set<uint32_t> in_flight_;
};

class ResumeProperty : public ResumeTest, public ::testing::WithParamInterface<int> {};

// A driver that knows nothing of it, over devices that go at any moment: each request comes back
// exactly once, and was executed at least once.
TEST_P(ResumeProperty, EachRequestComesBackOnceWhateverBecomesOfTheDevice) {
  std::mt19937 random(GetParam());
  const uint32_t size = uint32_t{1} << (random() % 7);
  const auto start = static_cast<uint16_t>(random());
  Build(size, {.event_idx = true, .resume = true});
  queue.reset();
  StoreUsedIdx(start);
  driver->ExposeIdx(start);
  ASSERT_EQ(Recreate(), absl::OkStatus());
  TransportModel transport(*memory, driver->layout(), start);

  std::vector<uint16_t> free;
  for (uint32_t head = 0; head < size; ++head) free.push_back(static_cast<uint16_t>(head));
  std::map<uint16_t, uint64_t> request_of;  // head -> request, while the driver waits for it
  std::map<uint64_t, int> executed;
  uint16_t available = start, used_seen = start;
  uint64_t next_request = 0, completed = 0;
  int losses = 0;
  for (int step = 0; step < 20000; ++step) {
    switch (random() % 8) {
      case 0:
      case 1: {  // the driver adds
        if (free.empty()) break;
        std::swap(free[random() % free.size()], free.back());
        const uint16_t head = free.back();
        free.pop_back();
        request_of[head] = next_request++;
        driver->WriteDesc(head, {kBuffers, 16, 0, 0});
        memory->Store<uint16_t>(driver->layout().driver + wire::kAvailableRingOffset +
                                    uint64_t{2} * (available & (size - 1)),
                                head);
        driver->ExposeIdx(++available);
        break;
      }
      case 2:
      case 3: {  // the device takes
        const int head = PopHead();
        if (head < 0) break;
        ASSERT_TRUE(request_of.contains(static_cast<uint16_t>(head)));
        ++executed[request_of[static_cast<uint16_t>(head)]];
        break;
      }
      case 4: {  // the device returns one, in any order
        if (held.empty()) break;
        std::swap(held[random() % held.size()], held.back());
        queue->Return(std::move(held.back()), 0);
        held.pop_back();
        break;
      }
      case 5:
        (void)queue->Publish();
        break;
      case 6: {  // the driver takes; its transport looks at the rings before it may use entries
                 // again
        ASSERT_TRUE(transport.Look());
        const uint16_t used =
            memory->Load<uint16_t>(driver->layout().device + wire::kUsedIdxOffset);
        for (; used_seen != used; ++used_seen) {
          const auto head = static_cast<uint16_t>(
              memory->Load<uint32_t>(driver->layout().device + wire::kUsedRingOffset +
                                     uint64_t{8} * (used_seen & (size - 1))));
          ASSERT_TRUE(request_of.contains(head)) << "came back twice, or was never sent";
          ASSERT_GE(executed[request_of[head]], 1);
          executed.erase(request_of[head]);
          request_of.erase(head);
          free.push_back(head);
          ++completed;
        }
        break;
      }
      case 7: {  // the device is lost and another one comes
        if (random() % 8 != 0) break;
        ++losses;
        Lose();
        ASSERT_TRUE(transport.Look());
        ASSERT_EQ(Recreate(), absl::OkStatus());
        transport.Restore();
        break;
      }
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(completed, 100u);
  EXPECT_GT(losses, 100);
  EXPECT_EQ(queue->broken_chains(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ResumeProperty, ::testing::Range(1, 9));

}  // namespace
}  // namespace vmsg::testing
