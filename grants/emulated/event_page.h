// SPDX-License-Identifier: Apache-2.0
// The memory through which events pass between two processes without a third one.
//
// Every event-channel handle owns an event page, which the handles at the other end of its ports
// map and write: a slot is one port of the handle, with a pending and a masked bit. Whoever raises
// an event sets the pending bit and writes the handle's eventfd, unless the bit was set or the slot
// masked: then the owner will look without being told. The owner keeps its own record of what is
// bound and masked, so a peer that scribbles on the page can only cause or lose events.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmsg::emu {

inline constexpr uint32_t kEventSlots = 4096;  // ports of one handle
inline constexpr uint32_t kEventWords = kEventSlots / 64;

struct EventPage {
  uint64_t pending[kEventWords];
  uint64_t masked[kEventWords];

  static constexpr uint64_t Bit(uint32_t slot) { return uint64_t{1} << (slot % 64); }
  // Sequentially consistent throughout: raising sets pending, then reads masked; unmasking clears
  // masked, then reads pending. One of the two must see the other.
  std::atomic_ref<uint64_t> pending_word(uint32_t slot) {
    return std::atomic_ref<uint64_t>(pending[slot / 64]);
  }
  std::atomic_ref<uint64_t> masked_word(uint32_t slot) {
    return std::atomic_ref<uint64_t>(masked[slot / 64]);
  }

  // Raises the event of `slot`; true when the owner's eventfd must be written.
  bool Raise(uint32_t slot) {
    if ((pending_word(slot).fetch_or(Bit(slot)) & Bit(slot)) != 0) return false;
    return (masked_word(slot).load() & Bit(slot)) == 0;
  }
};
static_assert(sizeof(EventPage) <= 4096);
inline constexpr size_t kEventPageSize = 4096;

// Written by xen-emu, read by the handle alone (the peers do not have it).
struct SlotControl {
  // Changes whenever the other end of the slot's port is bound or closed; odd: there is one.
  uint32_t generation;
  // Fault injection: as many of the next notifications sent through this port are lost.
  uint32_t lose;

  std::atomic_ref<uint32_t> generation_word() { return std::atomic_ref<uint32_t>(generation); }
  std::atomic_ref<uint32_t> lose_word() { return std::atomic_ref<uint32_t>(lose); }
};
struct ControlPage {
  SlotControl slots[kEventSlots];
};
inline constexpr size_t kControlPageSize = sizeof(ControlPage);

// The counter of an eventfd that is full or gone says the same as one written: someone will wake.
inline void SignalEventFd(int fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof(one));
}
inline void DrainEventFd(int fd) {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = read(fd, &count, sizeof(count));
}

}  // namespace vmsg::emu
