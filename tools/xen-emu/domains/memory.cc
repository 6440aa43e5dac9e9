// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/domains/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "grants/xen_types.h"

namespace vmsg::emu {
namespace {

constexpr size_t kPageSize = grants::kPageSize;

absl::Status MemoryFailed(absl::string_view what) {
  return absl::ResourceExhaustedError(absl::StrCat("xen-emu: ", what, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<OwnedFd> CreateSealedFile(const char* name, size_t size) {
  OwnedFd file(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return MemoryFailed("no memory file");
  if (ftruncate(file.get(), static_cast<off_t>(size)) != 0) return MemoryFailed("no memory file");
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return MemoryFailed("the memory file cannot be sealed");
  }
  return file;
}

absl::StatusOr<OwnedFd> ReopenReadOnly(const OwnedFd& file) {
  OwnedFd reopened(open(absl::StrCat("/proc/self/fd/", file.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!reopened) return MemoryFailed("the memory file cannot be opened read-only");
  return reopened;
}

absl::StatusOr<std::unique_ptr<DomainMemory>> DomainMemory::Create(uint64_t serial,
                                                                   uint32_t pages) {
  auto memory = std::unique_ptr<DomainMemory>(new DomainMemory(serial, pages));
  auto file = CreateSealedFile("xen-emu-domain", size_t{pages} * kPageSize);
  if (!file.ok()) return file.status();
  memory->file_ = *std::move(file);
  auto read_only = ReopenReadOnly(memory->file_);
  if (!read_only.ok()) return read_only.status();
  memory->read_only_ = *std::move(read_only);
  return memory;
}

std::vector<uint32_t> DomainMemory::Allocate(uint32_t pages) {
  std::vector<uint32_t> frames;
  if (pages > pages_ - used_) return frames;
  frames.reserve(pages);
  uint32_t length = 0;
  for (uint32_t frame = lowest_free_; frame < pages_ && length < pages; ++frame) {
    length = taken_[frame] ? 0 : length + 1;
    if (length == pages) {
      for (uint32_t i = frame + 1 - pages; i <= frame; ++i) frames.push_back(i);
    }
  }
  for (uint32_t frame = lowest_free_; frames.size() < pages; ++frame) {
    if (!taken_[frame]) frames.push_back(frame);
  }
  for (const uint32_t frame : frames) taken_[frame] = true;
  used_ += pages;
  while (lowest_free_ < pages_ && taken_[lowest_free_]) ++lowest_free_;
  return frames;
}

void DomainMemory::Free(uint32_t frame) {
  fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(frame * kPageSize), kPageSize);
  taken_[frame] = false;
  --used_;
  lowest_free_ = std::min(lowest_free_, frame);
}

}  // namespace vmsg::emu
