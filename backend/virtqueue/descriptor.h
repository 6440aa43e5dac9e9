// SPDX-License-Identifier: Apache-2.0
// One entry of a descriptor table, copied out of guest memory (virtio 1.4, "The Virtqueue
// Descriptor Table": le64 addr, le32 len, le16 flags, le16 next).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "backend/virtqueue/guest_bytes.h"
#include "grants/window.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::backend {

struct Descriptor {
  uint64_t address = 0;
  uint32_t length = 0;
  uint16_t flags = 0;
  uint16_t next = 0;

  static Descriptor FromWords(uint64_t low, uint64_t high) {
    return Descriptor{.address = low,
                      .length = static_cast<uint32_t>(high),
                      .flags = static_cast<uint16_t>(high >> 32),
                      .next = static_cast<uint16_t>(high >> 48)};
  }

  // From a table whose start is 8-byte aligned. Two loads, each once.
  static Descriptor Load(const grants::GuestArea& table, size_t index) {
    return FromWords(table.Load<uint64_t>(index * sizeof(wire::SplitDescriptor)),
                     table.Load<uint64_t>(index * sizeof(wire::SplitDescriptor) + 8));
  }

  // From a table in any number of pieces, of any alignment. Each byte is read once.
  static Descriptor Load(absl::Span<const iovec> table, size_t index) {
    uint64_t words[2];
    ReadGuest(table, index * sizeof(wire::SplitDescriptor),
              std::as_writable_bytes(std::span(words)));
    return FromWords(words[0], words[1]);
  }
};

}  // namespace vmsg::backend
