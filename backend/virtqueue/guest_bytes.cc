// SPDX-License-Identifier: Apache-2.0
#include "backend/virtqueue/guest_bytes.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace vmsg::backend {
namespace {

// Calls visit(bytes, length) for the parts of [offset, offset + length); returns bytes visited.
template <class Visit>
uint64_t ForEachPart(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length,
                     Visit visit) {
  uint64_t done = 0;
  for (const iovec& piece : pieces) {
    if (done == length) break;
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const size_t part = std::min<uint64_t>(piece.iov_len - offset, length - done);
    visit(static_cast<unsigned char*>(piece.iov_base) + offset, part);
    done += part;
    offset = 0;
  }
  return done;
}

}  // namespace

size_t ReadGuest(absl::Span<const iovec> pieces, uint64_t offset, std::span<std::byte> out) {
  auto* to = reinterpret_cast<unsigned char*>(out.data());
  return ForEachPart(pieces, offset, out.size(), [&to](unsigned char* from, size_t length) {
    for (size_t i = 0; i < length; ++i) {
      *to++ = std::atomic_ref<unsigned char>(from[i]).load(std::memory_order_relaxed);
    }
  });
}

size_t WriteGuest(absl::Span<const iovec> pieces, uint64_t offset,
                  std::span<const std::byte> data) {
  const auto* from = reinterpret_cast<const unsigned char*>(data.data());
  return ForEachPart(pieces, offset, data.size(), [&from](unsigned char* to, size_t length) {
    std::memcpy(to, from, length);
    from += length;
  });
}

size_t CopyGuestData(absl::Span<const iovec> pieces, uint64_t length, std::byte* to) {
  return ForEachPart(pieces, 0, length, [&to](const unsigned char* from, size_t part) {
    std::memcpy(to, from, part);
    to += part;
  });
}

void ZeroGuest(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length) {
  ForEachPart(pieces, offset, length,
              [](unsigned char* to, size_t part) { std::memset(to, 0, part); });
}

bool SlicePieces(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length,
                 grants::IoVector* out) {
  out->clear();
  return ForEachPart(pieces, offset, length, [out](unsigned char* start, size_t part) {
           out->push_back(iovec{start, part});
         }) == length;
}

}  // namespace vmsg::backend
