// SPDX-License-Identifier: Apache-2.0
// Copying small things between private memory and a chain's buffers. The guest may change its bytes
// at any moment, so a byte is read exactly once and what was read is what is used: a plain memcpy
// would allow the compiler to read the guest's copy again later.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/types/span.h"
#include "grants/window.h"

namespace vmsg::backend {

// Copies out.size() bytes that start `offset` bytes into the pieces. Returns how many there were.
size_t ReadGuest(absl::Span<const iovec> pieces, uint64_t offset, std::span<std::byte> out);

// Copies `data` to `offset` bytes into the pieces. Returns how many fitted.
size_t WriteGuest(absl::Span<const iovec> pieces, uint64_t offset, std::span<const std::byte> data);

// The first `length` bytes of the pieces, for data that nobody looks at: each byte may be read more
// than once. Returns how many there were.
size_t CopyGuestData(absl::Span<const iovec> pieces, uint64_t length, std::byte* to);

// Sets bytes [offset, offset + length) of the pieces to zero, as far as there are pieces.
void ZeroGuest(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length);

// Replaces `out` by the pieces of [offset, offset + length). False: there are not that many bytes.
bool SlicePieces(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length,
                 grants::IoVector* out);

}  // namespace vmsg::backend
