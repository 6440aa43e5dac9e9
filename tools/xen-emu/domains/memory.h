// SPDX-License-Identifier: Apache-2.0
// A domain's memory: one file in RAM, handed out in page frames.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grants/emulated/connection.h"

namespace vmsg::emu {

// An anonymous file in RAM of a fixed size: it cannot be shrunk, so whoever maps it meets no
// SIGBUS, whatever the other holders do.
absl::StatusOr<OwnedFd> CreateSealedFile(const char* name, size_t size);
// The same file, open for reading only.
absl::StatusOr<OwnedFd> ReopenReadOnly(const OwnedFd& file);

class DomainMemory {
 public:
  static absl::StatusOr<std::unique_ptr<DomainMemory>> Create(uint64_t serial, uint32_t pages);

  uint64_t serial() const { return serial_; }  // never 0, never used twice
  uint32_t pages() const { return pages_; }
  uint32_t used_pages() const { return used_; }
  const OwnedFd& file(bool writable) const { return writable ? file_ : read_only_; }

  // Zeroed frames, consecutive when there is such a stretch, else the lowest ones; none when there
  // are not as many.
  std::vector<uint32_t> Allocate(uint32_t pages);
  // The content is lost: the next owner reads zeros.
  void Free(uint32_t frame);

 private:
  DomainMemory(uint64_t serial, uint32_t pages)
      : serial_(serial), pages_(pages), taken_(pages, false) {}

  const uint64_t serial_;
  const uint32_t pages_;
  OwnedFd file_;
  OwnedFd read_only_;
  std::vector<bool> taken_;
  uint32_t used_ = 0;
  uint32_t lowest_free_ = 0;  // no frame below is free
};

}  // namespace vmsg::emu
