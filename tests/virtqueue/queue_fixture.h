// SPDX-License-Identifier: Apache-2.0
// A queue, its guest's memory and the driver's side of it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backend/virtqueue/split_queue.h"
#include "tests/virtqueue/guest_memory.h"
#include "tests/virtqueue/ring_driver.h"

namespace vmsg::testing {

class QueueTest : public ::testing::Test {
 protected:
  // Buffers of tests are at kBuffers and above.
  static constexpr uint64_t kBuffers = 64 * 4096;

  void SetUp() override { Build(8, {.event_idx = false, .indirect = true}); }
  void TearDown() override {
    if (queue == nullptr) return;
    for (backend::DescriptorChain& chain : held) queue->Return(std::move(chain), 0);
    queue.reset();
  }

  void Build(uint32_t size, backend::QueueFeatures features, size_t pages = 128,
             size_t segments = 1) {
    queue.reset();
    memory = std::make_unique<GuestMemory>(pages, segments);
    driver = std::make_unique<RingDriver>(*memory, size, 4096, features.event_idx);
    auto made = backend::SplitQueue::Create(memory->window(), driver->layout(), features);
    ASSERT_TRUE(made.ok()) << made.status();
    queue = *std::move(made);
  }

  // The next chain; fails the test if the queue is dead.
  std::optional<backend::DescriptorChain> Pop() {
    auto chain = queue->Pop();
    EXPECT_TRUE(chain.ok()) << chain.status();
    if (!chain.ok()) return std::nullopt;
    return *std::move(chain);
  }

  // The one chain made available is refused, counted, and its head returned once with length 0; the
  // chain behind it is served.
  void ExpectBroken(uint16_t head, const std::string& reason) {
    const uint64_t before = queue->broken_chains();
    const uint16_t good = static_cast<uint16_t>(driver->layout().size - 1);
    driver->WriteDesc(good, {.address = kBuffers, .length = 16});
    driver->Offer(head);
    driver->Offer(good);
    driver->Expose();
    std::optional<backend::DescriptorChain> next = Pop();
    ASSERT_TRUE(next.has_value()) << "the chain behind the broken one must be served";
    EXPECT_EQ(next->head, good);
    EXPECT_EQ(queue->broken_chains(), before + 1);
    EXPECT_THAT(std::string(queue->last_broken().message()), ::testing::HasSubstr(reason));
    EXPECT_EQ(queue->in_flight(), 1u);
    queue->Return(*std::move(next), 0);
    (void)queue->Publish();
    EXPECT_THAT(driver->TakeAllUsed(),
                ::testing::ElementsAre(UsedEntry{head, 0}, UsedEntry{good, 0}));
    EXPECT_FALSE(Pop().has_value());
  }

  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<RingDriver> driver;
  std::unique_ptr<backend::SplitQueue> queue;
  std::vector<backend::DescriptorChain> held;
};

}  // namespace vmsg::testing
