// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/console/output_backlog.h"

#include <algorithm>
#include <utility>

#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {

uint64_t OutputBacklog::Add(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length) {
  // Not zeroed: pages that nothing is written to are not there.
  if (bytes_ == nullptr) bytes_ = std::make_unique_for_overwrite<std::byte[]>(kCapacity);
  const size_t added = static_cast<size_t>(std::min<uint64_t>(length, kCapacity));
  const size_t lost = added > room() ? added - room() : 0;
  begin_ = (begin_ + lost) % kCapacity;
  size_ -= lost;
  for (size_t done = 0; done < added;) {
    const size_t at = (begin_ + size_) % kCapacity;
    const size_t part = std::min(added - done, kCapacity - at);
    ReadGuest(pieces, offset + done, {bytes_.get() + at, part});
    size_ += part;
    done += part;
  }
  return lost;
}

iovec OutputBacklog::Oldest() const {
  return {.iov_base = bytes_.get() + begin_, .iov_len = std::min(size_, kCapacity - begin_)};
}

void OutputBacklog::Consume(size_t bytes) {
  begin_ = (begin_ + bytes) % kCapacity;
  size_ -= bytes;
}

uint64_t OutputBacklog::Clear() {
  bytes_.reset();
  begin_ = 0;
  return std::exchange(size_, 0);
}

}  // namespace vmsg::backend
