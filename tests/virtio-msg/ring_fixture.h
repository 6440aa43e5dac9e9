// SPDX-License-Identifier: Apache-2.0
// One direction of a ring in this process's memory, and records to send through it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::wire {

struct RingMemory {
  explicit RingMemory(size_t bytes) : words(bytes / 8) {}

  std::span<std::byte> data() { return std::as_writable_bytes(std::span(words)); }
  // What a peer does to the words of the interface page, and sees in them.
  static void Set(uint32_t& word, uint32_t value) { std::atomic_ref(word).store(value); }
  static uint32_t Get(uint32_t& word) { return std::atomic_ref(word).load(); }

  // Puts a record where a peer would, whatever its header says.
  void Put(uint32_t cursor, uint16_t msg_size, uint8_t fill = 0) {
    uint64_t header = uint64_t{msg_size} << 48 | fill;
    std::memcpy(&words[cursor / 8 % words.size()], &header, 8);
  }

  RingDirection shared{};
  std::vector<uint64_t> words;
};

// A record of `size` bytes (8 or more) whose content follows from `seed`.
inline std::vector<std::byte> Record(size_t size, uint32_t seed) {
  std::vector<std::byte> record(size);
  for (size_t i = 0; i < size; ++i) record[i] = std::byte((seed * 31 + i * 7 + 1) & 0xff);
  record[6] = std::byte(size & 0xff);
  record[7] = std::byte(size >> 8);
  return record;
}

}  // namespace vmsg::wire
