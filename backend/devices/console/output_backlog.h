// SPDX-License-Identifier: Apache-2.0
// Output that a terminal has not taken yet: the newest bytes of it, because a guest's kernel waits
// for each of its buffers to be used, with a lock held, and nothing else of it runs meanwhile. What
// does not fit pushes out the oldest.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"

namespace vmsg::backend {

class OutputBacklog {
 public:
  // A large Linux guest's boot with debugging on. Memory of the host is taken for what there is.
  static constexpr size_t kCapacity = size_t{1} << 20;

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  size_t room() const { return kCapacity - size_; }

  // Takes bytes [offset, offset + length) of the guest's pieces, at most kCapacity of them. Returns
  // how many older bytes they pushed out.
  uint64_t Add(absl::Span<const iovec> pieces, uint64_t offset, uint64_t length);
  // The oldest bytes: not all of them where the buffer wraps. Not when it is empty.
  iovec Oldest() const;
  void Consume(size_t bytes);
  // Lets go of everything, the memory too. Returns how many bytes there were.
  uint64_t Clear();

 private:
  std::unique_ptr<std::byte[]> bytes_;
  size_t begin_ = 0;
  size_t size_ = 0;
};

}  // namespace vmsg::backend
