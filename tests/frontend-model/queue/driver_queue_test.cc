// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/queue/driver_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>
#include <thread>

#include "tests/frontend-model/device_side_ring.h"

namespace vmsg::frontend {
namespace {

class DriverQueueTest : public testing::Test {
 protected:
  void Create(DriverQueueOptions options) {
    constexpr size_t kBytes = 1024 * 4096;
    backing_.reset(new std::byte[kBytes + 4096]);
    const auto address = reinterpret_cast<uintptr_t>(backing_.get());
    std::byte* const aligned = backing_.get() + (4096 - address % 4096) % 4096;
    ASSERT_TRUE(memory_.AddMemory(0, {aligned, kBytes}).ok());
    absl::StatusOr<std::unique_ptr<DriverQueue>> queue = DriverQueue::Create(memory_, options);
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
    device_.emplace(memory_, *queue_, options.event_idx);
  }
  // Adds a chain of `readable` and `writable` buffers of 64 bytes.
  bool Add(uint32_t readable, uint32_t writable, uint64_t cookie) {
    std::vector<Buffer> buffers;
    for (uint32_t i = 0; i < readable + writable; ++i) {
      buffers.push_back({.address = 0x1000 + 64 * i, .size = 64, .device_writes = i >= readable});
    }
    absl::StatusOr<bool> added = queue_->Add(buffers, cookie);
    EXPECT_TRUE(added.ok()) << added.status();
    return added.value_or(false);
  }
  std::unique_ptr<std::byte[]> backing_;
  GuestMemory memory_;
  std::unique_ptr<DriverQueue> queue_;
  std::optional<DeviceSideRing> device_;
};

TEST_F(DriverQueueTest, TheDeviceSeesTheChainAsAdded) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 2, 42));
  EXPECT_FALSE(device_->HasAvailable());
  EXPECT_TRUE(queue_->Publish());
  ASSERT_TRUE(device_->HasAvailable());
  const DeviceSideRing::Chain chain = device_->Take();
  ASSERT_EQ(chain.pieces.size(), 3u);
  EXPECT_FALSE(chain.indirect);
  EXPECT_EQ(chain.pieces[0].flags & 2, 0);
  EXPECT_EQ(chain.pieces[1].address, 0x1040u);
  EXPECT_EQ(chain.pieces[2].flags & 3, 2);
  EXPECT_TRUE(device_->Return(chain.head, 100));
  const auto completion = queue_->Pop().value();
  ASSERT_TRUE(completion.has_value());
  EXPECT_EQ(completion->cookie, 42u);
  EXPECT_EQ(completion->written, 100u);
  EXPECT_EQ(queue_->free_descriptors(), 8u);
  EXPECT_FALSE(queue_->Pop().value().has_value());
}

TEST_F(DriverQueueTest, AnIndirectChainTakesOneDescriptor) {
  Create({.size = 8, .indirect = true, .indirect_entries = 4});
  ASSERT_TRUE(Add(2, 2, 1));
  EXPECT_EQ(queue_->free_descriptors(), 7u);
  ASSERT_TRUE(Add(1, 0, 2));  // a single buffer needs no table
  ASSERT_TRUE(Add(3, 2, 3));  // more than a table holds
  EXPECT_EQ(queue_->free_descriptors(), 1u);
  EXPECT_TRUE(queue_->Publish());
  const DeviceSideRing::Chain chain = device_->Take();
  EXPECT_TRUE(chain.indirect);
  EXPECT_EQ(chain.pieces.size(), 4u);
  EXPECT_FALSE(device_->Take().indirect);
  EXPECT_EQ(device_->Take().pieces.size(), 5u);
}

TEST_F(DriverQueueTest, AFullQueueSaysSoAndTakesNothing) {
  Create({.size = 4});
  ASSERT_TRUE(Add(2, 1, 1));
  EXPECT_FALSE(Add(1, 1, 2));
  EXPECT_EQ(queue_->free_descriptors(), 1u);
  EXPECT_TRUE(Add(1, 0, 3));
  EXPECT_EQ(queue_->in_flight(), 2u);
}

TEST_F(DriverQueueTest, BadChainsAreRefused) {
  Create({.size = 4});
  EXPECT_FALSE(queue_->Add({}, 0).ok());
  EXPECT_FALSE(queue_->Add({{.address = 16, .size = 0}}, 0).ok());
  EXPECT_FALSE(
      queue_
          ->Add({{.address = 16, .size = 1, .device_writes = true}, {.address = 32, .size = 1}}, 0)
          .ok());
  EXPECT_FALSE(queue_->Add(std::vector<Buffer>(5, {.address = 16, .size = 1}), 0).ok());
  EXPECT_EQ(queue_->free_descriptors(), 4u);
}

TEST_F(DriverQueueTest, SizesThatAreNoPowerOfTwoAreRefused) {
  Create({.size = 1});
  for (const uint32_t size : {0u, 3u, 65536u}) {
    EXPECT_EQ(DriverQueue::Create(memory_, {.size = size}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// [driver:Device Initialization / Virtqueue Configuration / Driver]
// [driver:Transport Messages / VIRTIO_MSG_SET_VQUEUE / Driver]
TEST_F(DriverQueueTest, AreasAreAlignedAndNotAtZero) {
  Create({.size = 32768, .event_idx = true});
  EXPECT_NE(queue_->desc_address(), 0u);
  EXPECT_EQ(queue_->desc_address() % 16, 0u);
  EXPECT_EQ(queue_->driver_address() % 2, 0u);
  EXPECT_EQ(queue_->device_address() % 4, 0u);
}

// What a device that lies about its used ring gets: the queue ends with the reason.
TEST_F(DriverQueueTest, UsedIndexBeyondWhatIsInFlightIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 0, 1));
  (void)queue_->Publish();
  device_->SetUsedIndex(2);
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
  device_->SetUsedIndex(0);
  EXPECT_FALSE(queue_->Pop().ok());  // for good
  EXPECT_FALSE(queue_->Add({{.address = 16, .size = 1}}, 0).ok());
}

TEST_F(DriverQueueTest, UsedIndexThatGoesBackIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 0, 1));
  ASSERT_TRUE(Add(1, 0, 2));
  (void)queue_->Publish();
  device_->Return(device_->Take().head, 0);
  ASSERT_TRUE(queue_->Pop().value().has_value());
  device_->SetUsedIndex(0);
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DriverQueueTest, UsedIdOutOfRangeIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 0, 1));
  (void)queue_->Publish();
  device_->Return(8, 0);
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DriverQueueTest, UsedIdTwiceIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 0, 1));
  ASSERT_TRUE(Add(1, 0, 2));
  (void)queue_->Publish();
  const uint16_t head = device_->Take().head;
  device_->Return(head, 0);
  device_->Return(head, 0);
  EXPECT_TRUE(queue_->Pop().ok());
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DriverQueueTest, UsedIdThatIsNoHeadIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(2, 0, 1));
  (void)queue_->Publish();
  const uint16_t head = device_->Take().head;
  device_->Return(head + 1, 0);
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DriverQueueTest, MoreWrittenThanWritableIsRefused) {
  Create({.size = 8});
  ASSERT_TRUE(Add(1, 1, 1));
  (void)queue_->Publish();
  device_->Return(device_->Take().head, 65);
  EXPECT_EQ(queue_->Pop().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DriverQueueTest, DescriptorsTheDeviceScribblesOnDoNotConfuseTheDriver) {
  Create({.size = 8});
  ASSERT_TRUE(Add(2, 2, 1));
  (void)queue_->Publish();
  const uint16_t head = device_->Take().head;
  std::memset(memory_.At(queue_->desc_address(), 128), 0xff, 128);
  device_->Return(head, 10);
  ASSERT_TRUE(queue_->Pop().value().has_value());
  std::set<bool> added;
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(Add(1, 0, i));
  EXPECT_FALSE(Add(1, 0, 9));
}

// [driver:Device Operation / Driver Notifications / Driver]
TEST_F(DriverQueueTest, WithoutEventIdxTheFlagsRuleBothWays) {
  Create({.size = 8});
  device_->RefuseKicks();
  ASSERT_TRUE(Add(1, 0, 1));
  EXPECT_FALSE(queue_->Publish());
  device_->AskForKick();
  ASSERT_TRUE(Add(1, 0, 2));
  EXPECT_TRUE(queue_->Publish());
  queue_->DisableNotifications();
  EXPECT_FALSE(device_->Return(device_->Take().head, 0));
  EXPECT_TRUE(queue_->EnableNotifications());
  EXPECT_TRUE(device_->Return(device_->Take().head, 0));
}

TEST_F(DriverQueueTest, NotificationDataIsTheAvailableIndexWithItsTopBitApart) {
  Create({.size = 1});
  for (int i = 0; i < 0x8001; ++i) {
    EXPECT_EQ(queue_->notification_data(), (i & 0x7fffu) | (i >> 15 ? 0x80000000u : 0u));
    ASSERT_TRUE(Add(1, 0, i));
    (void)queue_->Publish();
    device_->Return(device_->Take().head, 0);
    ASSERT_TRUE(queue_->Pop().value().has_value());
  }
}

TEST_F(DriverQueueTest, AbandonedChainsAreReportedOnce) {
  Create({.size = 8});
  ASSERT_TRUE(Add(2, 0, 5));
  ASSERT_TRUE(Add(1, 1, 6));
  std::vector<uint64_t> cookies = queue_->AbandonInFlight();
  EXPECT_EQ(std::set<uint64_t>(cookies.begin(), cookies.end()), (std::set<uint64_t>{5, 6}));
  EXPECT_TRUE(queue_->AbandonInFlight().empty());
  EXPECT_EQ(queue_->free_descriptors(), 8u);
}

struct RandomCase {
  uint32_t size;
  bool event_idx;
  bool indirect;
};
class RandomTraffic : public DriverQueueTest, public testing::WithParamInterface<RandomCase> {};

// Both sides sleep only after they asked to be told, and neither is ever left asleep with work to
// do; every chain comes back once, with its own cookie. Steps far past the index wrap at 65536.
TEST_P(RandomTraffic, NoWakeUpIsLostAndEveryChainComesBackOnce) {
  const RandomCase& param = GetParam();
  Create({.size = param.size, .event_idx = param.event_idx, .indirect = param.indirect});
  std::mt19937 random(param.size);
  bool device_asleep = true, driver_asleep = true;
  std::map<uint64_t, uint32_t> out;  // cookie -> writable bytes
  std::vector<DeviceSideRing::Chain> taken;
  uint64_t next_cookie = 1, returned = 0;
  ASSERT_FALSE(device_->AskForKick());
  ASSERT_FALSE(queue_->EnableNotifications());
  for (int step = 0; returned < 70000; ++step) {
    ASSERT_LT(step, 2'000'000);
    switch (random() % 4) {
      case 0: {  // the driver adds, whether awake or not
        for (uint32_t n = random() % 4; n > 0; --n) {
          const uint32_t readable = random() % 3, writable = random() % 3;
          if (readable + writable == 0 || readable + writable > param.size) continue;
          if (!Add(readable, writable, next_cookie)) break;
          out[next_cookie++] = 64 * writable;
        }
        if (queue_->Publish()) device_asleep = false;
        break;
      }
      case 1: {  // the device takes, then sleeps
        if (device_asleep) break;
        while (device_->HasAvailable()) taken.push_back(device_->Take());
        device_asleep = !device_->AskForKick();
        break;
      }
      case 2: {  // the device returns some, in any order
        for (uint32_t n = random() % 3; n > 0 && !taken.empty(); --n) {
          const size_t which = random() % taken.size();
          uint32_t writable = 0;
          for (const auto& piece : taken[which].pieces) writable += piece.flags & 2 ? 64 : 0;
          if (device_->Return(taken[which].head, writable)) driver_asleep = false;
          taken.erase(taken.begin() + static_cast<ptrdiff_t>(which));
        }
        break;
      }
      case 3: {  // the driver collects, then sleeps
        if (driver_asleep) break;
        if (random() % 2 == 0) queue_->DisableNotifications();
        for (;;) {
          const auto completion = queue_->Pop().value();
          if (!completion.has_value()) break;
          const auto found = out.find(completion->cookie);
          ASSERT_NE(found, out.end());
          EXPECT_EQ(completion->written, found->second);
          out.erase(found);
          ++returned;
        }
        driver_asleep = !queue_->EnableNotifications();
        break;
      }
    }
    // Nobody sleeps while there is something for them.
    ASSERT_FALSE(device_asleep && device_->HasAvailable());
    ASSERT_FALSE(driver_asleep && queue_->HasUsed());
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RandomTraffic,
                         testing::Values(RandomCase{1, true, false}, RandomCase{2, true, true},
                                         RandomCase{8, false, false}, RandomCase{16, true, true},
                                         RandomCase{256, true, false}));

// The same with both sides on threads of their own; run under ThreadSanitizer.
TEST_F(DriverQueueTest, TwoThreadsExchangeEveryChain) {
  Create({.size = 64, .event_idx = true, .indirect = true});
  constexpr uint64_t kChains = 20000;
  std::atomic<bool> stop = false;
  std::thread device([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      while (device_->HasAvailable()) device_->Return(device_->Take().head, 0);
      std::this_thread::yield();
    }
  });
  uint64_t added = 0, popped = 0;
  while (popped < kChains) {
    while (added < kChains && Add(1, 1, added)) ++added;
    (void)queue_->Publish();
    for (;;) {
      const auto completion = queue_->Pop();
      ASSERT_TRUE(completion.ok()) << completion.status();
      if (!completion->has_value()) break;
      EXPECT_EQ((*completion)->cookie, popped++);
    }
  }
  stop = true;
  device.join();
}

}  // namespace
}  // namespace vmsg::frontend
