// SPDX-License-Identifier: Apache-2.0
// Random chains, valid and broken, against a plain model of the rules: what the queue gives is what
// the model gives, and every head that was made available comes back exactly once.
#include <map>
#include <random>

#include "tests/virtqueue/queue_fixture.h"

namespace vmsg::testing {
namespace {

struct Expected {
  bool valid = true;
  uint64_t readable = 0;
  uint64_t writable = 0;
};

class ChainProperty : public QueueTest, public ::testing::WithParamInterface<int> {
 protected:
  static constexpr uint16_t kSize = 16;

  bool Inside(const Desc& desc) {
    return desc.length > 0 && desc.address < memory->size() &&
           desc.length <= memory->size() - desc.address;
  }

  // The rules once more, written from the specification without the code under test.
  Expected Judge(const std::map<uint16_t, Desc>& table,
                 const std::map<uint64_t, std::vector<Desc>>& indirect, uint16_t head) {
    Expected result;
    std::vector<Desc> flat;
    uint16_t index = head;
    for (uint32_t steps = 0;; ++steps) {
      if (steps == kSize || index >= kSize) return {.valid = false};
      const Desc desc = table.at(index);
      if (desc.flags & kIndirect) {
        if ((desc.flags & kNext) || desc.length == 0 || desc.length % 16 != 0 ||
            desc.length / 16 > kSize || !Inside(desc)) {
          return {.valid = false};
        }
        const std::vector<Desc>& entries = indirect.at(desc.address);
        const uint32_t count = desc.length / 16;
        uint16_t at = 0;
        for (uint32_t inner = 0;; ++inner) {
          if (inner == count || at >= count) return {.valid = false};
          if (entries[at].flags & kIndirect) return {.valid = false};
          flat.push_back(entries[at]);
          if (!(entries[at].flags & kNext)) break;
          at = entries[at].next;
        }
        break;
      }
      flat.push_back(desc);
      if (!(desc.flags & kNext)) break;
      index = desc.next;
    }
    if (flat.size() > kSize) return {.valid = false};
    for (const Desc& desc : flat) {
      if (!Inside(desc)) return {.valid = false};
      if (desc.flags & kWrite) {
        result.writable += desc.length;
      } else if (result.writable > 0) {
        return {.valid = false};
      } else {
        result.readable += desc.length;
      }
    }
    return result;
  }
};

TEST_P(ChainProperty, WhatIsGivenIsWhatTheRulesSay) {
  Build(kSize, {.event_idx = false, .indirect = true});
  std::mt19937 random(GetParam());
  const auto chance = [&random](int percent) { return int(random() % 100) < percent; };
  uint32_t valid = 0;
  uint32_t broken = 0;

  const auto any_buffer = [&]() -> Desc {
    Desc desc{.address = kBuffers + random() % 65536, .length = uint32_t(1 + random() % 4096)};
    if (chance(2)) desc.length = 0;
    if (chance(2)) desc.address = memory->size() - random() % 8192;
    if (chance(1)) desc.address = UINT64_MAX - random() % 16;
    if (chance(1)) desc.length = UINT32_MAX - random() % 16;
    return desc;
  };

  for (int round = 0; round < 20000; ++round) {
    std::map<uint16_t, Desc> table;
    std::map<uint64_t, std::vector<Desc>> indirect;
    const uint16_t writable_from = random() % (kSize + 1);
    for (uint16_t i = 0; i < kSize; ++i) {
      Desc desc = any_buffer();
      if (i >= writable_from) desc.flags |= kWrite;
      if (chance(70)) {
        desc.flags |= kNext;
        desc.next = chance(90) ? i + 1 : random() % (kSize + 2);
      }
      if (chance(15)) {
        const uint64_t at = kBuffers + 65536 + i * 4096;
        std::vector<Desc>& entries = indirect[at];
        const uint32_t count = 1 + random() % kSize;
        for (uint32_t e = 0; e < kSize; ++e) {
          Desc entry = any_buffer();
          if (e >= writable_from) entry.flags |= kWrite;
          if (e + 1 < count) entry.flags |= kNext;
          entry.next = chance(97) ? e + 1 : random() % (kSize + 2);
          if (chance(1)) entry.flags |= kIndirect;
          entries.push_back(entry);
          driver->WriteTableEntry(at, e, entry);
        }
        desc.address = at;
        desc.length = chance(95) ? count * 16 : random() % 300;
        desc.flags = chance(95) ? kIndirect : kIndirect | kNext;
      }
      table[i] = desc;
      driver->WriteDesc(i, desc);
    }
    // Distinct heads, in any order.
    std::vector<uint16_t> heads;
    for (uint16_t i = 0; i < kSize; ++i) heads.push_back(i);
    std::shuffle(heads.begin(), heads.end(), random);
    heads.resize(1 + random() % kSize);
    std::map<uint16_t, int> due;
    for (const uint16_t head : heads) {
      driver->Offer(head);
      ++due[head];
    }
    driver->Expose();

    std::map<uint16_t, Expected> given;
    while (queue->HasAvailable()) {
      std::optional<backend::DescriptorChain> chain = Pop();
      if (!chain.has_value()) continue;
      given[chain->head] = {true, chain->readable_bytes, chain->writable_bytes};
      held.push_back(*std::move(chain));
    }
    for (const uint16_t head : heads) {
      const Expected expected = Judge(table, indirect, head);
      ASSERT_EQ(given.contains(head), expected.valid)
          << "round " << round << " head " << head << ": " << queue->last_broken();
      if (!expected.valid) {
        ++broken;
        continue;
      }
      ++valid;
      ASSERT_EQ(given[head].readable, expected.readable);
      ASSERT_EQ(given[head].writable, expected.writable);
    }
    std::shuffle(held.begin(), held.end(), random);
    for (backend::DescriptorChain& chain : held) queue->Return(std::move(chain), 1);
    held.clear();
    (void)queue->Publish();
    for (const UsedEntry& used : driver->TakeAllUsed()) {
      --due[used.id];
      ASSERT_EQ(used.len, given.contains(used.id) ? 1u : 0u);
    }
    for (const auto& [head, left] : due) ASSERT_EQ(left, 0) << "head " << head;
  }
  EXPECT_GT(valid, 10000u);
  EXPECT_GT(broken, 10000u);
  EXPECT_EQ(queue->broken_chains(), broken);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ChainProperty, ::testing::Values(1, 2, 3));

}  // namespace
}  // namespace vmsg::testing
