// SPDX-License-Identifier: Apache-2.0
// Following a descriptor chain: the one place where a driver's descriptors are checked. Each
// descriptor is copied once and then judged; loops end because every step counts against the queue
// size.
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/virtqueue/descriptor.h"
#include "backend/virtqueue/split_queue.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::backend {
namespace {

// virtio 1.4, "The Virtqueue Descriptor Table": a chain has at most 2^32 bytes.
constexpr uint64_t kMaxChainBytes = uint64_t{1} << 32;

absl::Status Broken(uint16_t head, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("chain of head ", head, ": ", what));
}

}  // namespace

absl::Status SplitQueue::Walk(uint16_t head, DescriptorChain* chain) {
  chain->head = head;
  uint32_t buffers = 0;
  uint16_t index = head;
  for (uint32_t step = 0; step < layout_.size; ++step) {
    const Descriptor descriptor = Descriptor::Load(desc_, index);
    if ((descriptor.flags & wire::kDescriptorIndirect) != 0) {
      if (!features_.indirect) {
        return Broken(head,
                      absl::StrCat("descriptor ", index, " is indirect, which was not negotiated"));
      }
      if ((descriptor.flags & wire::kDescriptorNext) != 0) {
        return Broken(head, absl::StrCat("descriptor ", index, " is indirect and has a next one"));
      }
      return WalkIndirect(descriptor, &buffers, chain);
    }
    if (absl::Status added = AddBuffer(descriptor, &buffers, chain); !added.ok()) return added;
    if ((descriptor.flags & wire::kDescriptorNext) == 0) return absl::OkStatus();
    if (descriptor.next >= layout_.size) {
      return Broken(head, absl::StrCat("descriptor ", index, " continues at ", descriptor.next,
                                       ", which is not below the queue size ", layout_.size));
    }
    index = descriptor.next;
  }
  return Broken(head, absl::StrCat("it has more descriptors than the queue size ", layout_.size,
                                   " (a loop?)"));
}

absl::Status SplitQueue::WalkIndirect(const Descriptor& table, uint32_t* buffers,
                                      DescriptorChain* chain) {
  const uint16_t head = chain->head;
  if (table.length == 0 || table.length % sizeof(wire::SplitDescriptor) != 0) {
    return Broken(head, absl::StrCat("an indirect table of ", table.length,
                                     " bytes is not a multiple of 16 from 16 on"));
  }
  const uint32_t entries = table.length / sizeof(wire::SplitDescriptor);
  if (entries > layout_.size) {
    return Broken(head, absl::StrCat("an indirect table of ", entries,
                                     " entries is larger than the queue size ", layout_.size));
  }
  grants::IoVector pieces;
  if (absl::Status pinned = window_.PinSpans(table.address, table.length, &pieces); !pinned.ok()) {
    return Broken(head, absl::StrCat("its indirect table: ", pinned.ToString()));
  }
  // Read now and never again, so it stays pinned for this walk only.
  absl::Status walked = WalkTable(pieces, entries, buffers, chain);
  window_.Unpin(table.address, table.length);
  return walked;
}

absl::Status SplitQueue::WalkTable(const grants::IoVector& pieces, uint32_t entries,
                                   uint32_t* buffers, DescriptorChain* chain) {
  const uint16_t head = chain->head;
  const bool aligned =
      pieces.size() == 1 && reinterpret_cast<uintptr_t>(pieces[0].iov_base) % sizeof(uint64_t) == 0;
  const grants::GuestArea area(
      aligned ? std::span(static_cast<std::byte*>(pieces[0].iov_base), pieces[0].iov_len)
              : std::span<std::byte>());
  uint16_t index = 0;
  for (uint32_t step = 0; step < entries; ++step) {
    const Descriptor descriptor = aligned
                                      ? Descriptor::Load(area, index)
                                      : Descriptor::Load(absl::Span<const iovec>(pieces), index);
    if ((descriptor.flags & wire::kDescriptorIndirect) != 0) {
      return Broken(head,
                    absl::StrCat("entry ", index, " of its indirect table is itself indirect"));
    }
    if (absl::Status added = AddBuffer(descriptor, buffers, chain); !added.ok()) return added;
    if ((descriptor.flags & wire::kDescriptorNext) == 0) return absl::OkStatus();
    if (descriptor.next >= entries) {
      return Broken(head, absl::StrCat("entry ", index, " of its indirect table continues at ",
                                       descriptor.next, " of ", entries));
    }
    index = descriptor.next;
  }
  return Broken(head, absl::StrCat("its indirect table of ", entries, " entries loops"));
}

absl::Status SplitQueue::AddBuffer(const Descriptor& buffer, uint32_t* buffers,
                                   DescriptorChain* chain) {
  if (++*buffers > layout_.size) {
    return Broken(chain->head,
                  absl::StrCat("it has more buffers than the queue size ", layout_.size));
  }
  if (buffer.length == 0) {
    return Broken(chain->head,
                  absl::StrCat("the buffer at address ", buffer.address, " has length 0"));
  }
  const bool writable = (buffer.flags & wire::kDescriptorWrite) != 0;
  if (!writable && !chain->writable.empty()) {
    return Broken(chain->head, absl::StrCat("the device-readable buffer at address ",
                                            buffer.address, " follows a device-writable one"));
  }
  if (chain->readable_bytes + chain->writable_bytes + buffer.length > kMaxChainBytes) {
    return Broken(chain->head, "it has more than 2^32 bytes");
  }
  grants::IoVector* pieces = writable ? &chain->writable : &chain->readable;
  if (absl::Status pinned = window_.PinSpans(buffer.address, buffer.length, pieces); !pinned.ok()) {
    return Broken(chain->head, pinned.ToString());
  }
  chain->pins.push_back({buffer.address, buffer.length});
  const size_t most_pieces = layout_.size + grants::kMaxWindowSegments;
  if (chain->readable.size() + chain->writable.size() > most_pieces) {
    return Broken(chain->head,
                  absl::StrCat("its buffers lie in more than ", most_pieces,
                               " pieces of window segments (the same pages over and over?)"));
  }
  (writable ? chain->writable_bytes : chain->readable_bytes) += buffer.length;
  return absl::OkStatus();
}

void SplitQueue::UnpinAll(DescriptorChain& chain) {
  for (const DescriptorChain::Pin& pin : chain.pins) window_.Unpin(pin.address, pin.size);
  chain.pins.clear();
}

}  // namespace vmsg::backend
