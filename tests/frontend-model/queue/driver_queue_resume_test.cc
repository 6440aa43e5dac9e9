// SPDX-License-Identifier: Apache-2.0
// A driver's queue that goes from one device to the next.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "frontend-model/queue/driver_queue.h"
#include "tests/frontend-model/device_side_ring.h"

namespace vmsg::frontend {
namespace {

using testing::HasSubstr;

class DriverQueueResumeTest : public testing::Test {
 protected:
  DriverQueueResumeTest() : backing_(new std::byte[65 * 4096]()) {
    const auto address = reinterpret_cast<uintptr_t>(backing_.get());
    EXPECT_TRUE(
        memory_.AddMemory(0, {backing_.get() + (4096 - address % 4096) % 4096, size_t{64} * 4096})
            .ok());
  }
  void Create(uint32_t size, bool event_idx = true) {
    event_idx_ = event_idx;
    auto queue = DriverQueue::Create(memory_, {.size = size, .event_idx = event_idx});
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
    NewDevice();
  }
  void NewDevice() { device_ = std::make_unique<DeviceSideRing>(memory_, *queue_, event_idx_); }
  bool Add(uint64_t cookie) {
    const Buffer buffer = {.address = 16, .size = 1};
    auto added = queue_->Add({&buffer, 1}, cookie);
    EXPECT_TRUE(added.ok()) << added.status();
    return added.ok() && *added;
  }

  std::unique_ptr<std::byte[]> backing_;
  GuestMemory memory_;
  bool event_idx_ = true;
  std::unique_ptr<DriverQueue> queue_;
  std::unique_ptr<DeviceSideRing> device_;
};

TEST_F(DriverQueueResumeTest, WhatWasNotReturnedIsAvailableAgainInItsOrder) {
  Create(8);
  for (uint64_t cookie = 0; cookie < 5; ++cookie) ASSERT_TRUE(Add(cookie));
  (void)queue_->Publish();
  std::vector<uint16_t> heads;
  for (int i = 0; i < 4; ++i) heads.push_back(device_->Take().head);
  device_->Return(heads[2], 0);
  device_->Return(heads[0], 0);
  ASSERT_EQ(queue_->Pop().value()->cookie, 2u);  // and the other one is not taken yet
  ASSERT_TRUE(Add(5));                           // nor this one shown
  ASSERT_EQ(queue_->Resume(), absl::OkStatus());
  NewDevice();
  std::vector<uint16_t> again;
  while (device_->HasAvailable()) again.push_back(device_->Take().head);
  ASSERT_EQ(again.size(), 4u);
  EXPECT_EQ(again[0], heads[1]);
  EXPECT_EQ(again[1], heads[3]);
  for (const uint16_t head : again) device_->Return(head, 0);
  std::vector<uint64_t> cookies;
  for (auto one = queue_->Pop().value(); one.has_value(); one = queue_->Pop().value()) {
    cookies.push_back(one->cookie);
  }
  EXPECT_THAT(cookies, testing::ElementsAre(0, 1, 3, 4, 5));
  EXPECT_EQ(queue_->in_flight(), 0u);
}

TEST_F(DriverQueueResumeTest, ADeviceThatLiedBeforeItWentEndsTheQueue) {
  struct Lie {
    const char* what;
    std::vector<uint32_t> ids;
    int extra;  // added to the used index
    const char* text;
  };
  for (const Lie& lie :
       {Lie{"twice", {1, 1}, 0, "one twice"}, Lie{"no head", {99}, 0, "id 99"},
        Lie{"not in flight", {5}, 0, "id 5"}, Lie{"too many", {}, 3, "is possible"},
        Lie{"back", {}, -1, "is possible"}}) {
    SCOPED_TRACE(lie.what);
    Create(8);
    ASSERT_TRUE(Add(1));
    ASSERT_TRUE(Add(2));
    (void)queue_->Publish();
    for (const uint32_t id : lie.ids) device_->Return(id, 0);
    if (lie.extra != 0) device_->SetUsedIndex(static_cast<uint16_t>(lie.extra));
    const absl::Status status = queue_->Resume();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr(lie.text));
  }
}

class DriverQueueResumeProperty : public DriverQueueResumeTest,
                                  public testing::WithParamInterface<int> {};

// Against a list of what is outstanding: devices go at any moment, and each chain comes back once,
// and is seen by each device in the order in which it was added.
TEST_P(DriverQueueResumeProperty, EachChainComesBackOnce) {
  std::mt19937 random(GetParam());
  Create(uint32_t{1} << (random() % 6), (random() & 1) != 0);
  std::set<uint64_t> outstanding;
  std::vector<uint16_t> taken;
  uint64_t next = 0, back = 0;
  for (int step = 0; step < 400'000; ++step) {
    switch (random() % 5) {
      case 0:
        if (Add(next)) outstanding.insert(next++);
        break;
      case 1:
        (void)queue_->Publish();
        break;
      case 2:
        if (device_->HasAvailable()) taken.push_back(device_->Take().head);
        break;
      case 3:
        if (taken.empty()) break;
        std::swap(taken[random() % taken.size()], taken.back());
        device_->Return(taken.back(), 0);
        taken.pop_back();
        break;
      case 4: {
        const auto completion = queue_->Pop();
        ASSERT_TRUE(completion.ok()) << completion.status();
        if (completion->has_value()) {
          ASSERT_EQ(outstanding.erase((*completion)->cookie), 1u);
          ++back;
        }
        if (random() % 64 != 0) break;
        ASSERT_EQ(queue_->Resume(), absl::OkStatus());
        NewDevice();
        taken.clear();
        break;
      }
    }
  }
  ASSERT_EQ(queue_->Resume(), absl::OkStatus());
  NewDevice();
  while (device_->HasAvailable()) device_->Return(device_->Take().head, 0);
  for (auto one = queue_->Pop(); one.ok() && one->has_value(); one = queue_->Pop()) {
    ASSERT_EQ(outstanding.erase((**one).cookie), 1u);
  }
  EXPECT_TRUE(outstanding.empty());
  EXPECT_GT(back, 1000u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, DriverQueueResumeProperty, testing::Range(1, 7));

}  // namespace
}  // namespace vmsg::frontend
