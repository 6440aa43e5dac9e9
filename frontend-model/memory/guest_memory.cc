// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/memory/guest_memory.h"

#include <cassert>

#include "absl/strings/str_cat.h"
#include "grants/directory.h"

namespace vmsg::frontend {
namespace {

constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

GuestBlock& GuestBlock::operator=(GuestBlock&& other) noexcept {
  if (this != &other) {
    Reset();
    memory_ = std::exchange(other.memory_, nullptr);
    address_ = std::exchange(other.address_, 0);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

void GuestBlock::Reset() {
  if (memory_ == nullptr) return;
  std::exchange(memory_, nullptr)->Release(address_, bytes_.size());
  bytes_ = {};
}

absl::StatusOr<GuestMemory::Grant> GuestMemory::Share(grants::GrantSharer& sharer,
                                                      grants::DomainId backend, uint32_t pages) {
  Grant grant;
  absl::StatusOr<grants::SharedPages> window =
      sharer.Share(backend, pages, grants::Access::kReadWrite);
  if (!window.ok()) return window.status();
  grant.window = *std::move(window);
  absl::StatusOr<grants::SharedPages> directory =
      sharer.Share(backend, grants::DirectoryPagesFor(pages), grants::Access::kReadOnly);
  if (!directory.ok()) return directory.status();
  grant.directory = *std::move(directory);
  if (absl::Status status = grants::WriteDirectory(grant.window.refs(), grant.directory.bytes(),
                                                   grant.directory.refs());
      !status.ok()) {
    return status;
  }
  return grant;
}

absl::Status GuestMemory::AddSegment(uint32_t first_page, Grant grant) {
  const std::span<std::byte> bytes = grant.window.bytes();
  return Add(first_page, std::move(grant.window), bytes);
}

absl::Status GuestMemory::AddMemory(uint32_t first_page, std::span<std::byte> bytes) {
  return Add(first_page, {}, bytes);
}

absl::Status GuestMemory::Add(uint32_t first_page, grants::SharedPages owned,
                              std::span<std::byte> bytes) {
  const uint64_t first = uint64_t{first_page} * grants::kPageSize;
  auto next = segments_.lower_bound(first);
  bool overlaps = next != segments_.end() && next->first < first + bytes.size();
  if (next != segments_.begin()) {
    auto before = std::prev(next);
    overlaps |= before->first + before->second.bytes.size() > first;
  }
  if (overlaps || bytes.empty() || bytes.size() % grants::kPageSize != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("window segment at page ", first_page, " of ", bytes.size(),
                     " bytes overlaps another, or is not a number of whole pages"));
  }
  Segment& segment = segments_[first];
  segment.owned = std::move(owned);
  segment.bytes = bytes;
  free_[first] = bytes.size();
  return absl::OkStatus();
}

absl::Status GuestMemory::RetireSegment(uint32_t first_page, uint32_t pages) {
  const uint64_t first = uint64_t{first_page} * grants::kPageSize;
  auto segment = segments_.find(first);
  if (segment == segments_.end() || segment->second.retired ||
      segment->second.bytes.size() != uint64_t{pages} * grants::kPageSize) {
    return absl::NotFoundError(absl::StrCat("no window segment is exactly pages ", first_page,
                                            " to ", uint64_t{first_page} + pages));
  }
  auto range = free_.find(first);
  if (range == free_.end() || range->second != segment->second.bytes.size()) {
    return absl::FailedPreconditionError(absl::StrCat("buffers in window pages ", first_page,
                                                      " to ", uint64_t{first_page} + pages,
                                                      " are still in use: free them first"));
  }
  free_.erase(range);
  segment->second.retired = true;
  return absl::OkStatus();
}

void GuestMemory::DropSegment(uint32_t first_page) {
  segments_.erase(uint64_t{first_page} * grants::kPageSize);
}

void GuestMemory::ReviveSegment(uint32_t first_page) {
  auto segment = segments_.find(uint64_t{first_page} * grants::kPageSize);
  if (segment == segments_.end() || !segment->second.retired) return;
  segment->second.retired = false;
  free_[segment->first] = segment->second.bytes.size();
}

absl::StatusOr<GuestBlock> GuestMemory::Allocate(uint64_t size, uint64_t alignment,
                                                 uint64_t lowest) {
  assert((alignment & (alignment - 1)) == 0);
  if (alignment < kGranule) alignment = kGranule;
  if (size == 0 || size > uint64_t{1} << 40) {
    return absl::InvalidArgumentError(absl::StrCat("a block of ", size, " bytes"));
  }
  const uint64_t want = AlignUp(size, kGranule);
  for (auto range = free_.begin(); range != free_.end(); ++range) {
    const uint64_t begin = range->first;
    const uint64_t end = begin + range->second;
    const uint64_t start = AlignUp(begin < lowest ? lowest : begin, alignment);
    if (start > end || want > end - start) continue;
    free_.erase(range);
    if (start > begin) free_[begin] = start - begin;
    if (start + want < end) free_[start + want] = end - (start + want);
    return GuestBlock(this, start, std::span(At(start, want), want));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("no ", size, " contiguous bytes left in a window of ", pages(), " pages (",
                   free_bytes(), " bytes free in all): use a larger window (--pages)"));
}

absl::StatusOr<grants::SharedPages> GuestMemory::ListAgain(grants::GrantSharer& sharer,
                                                           grants::DomainId backend,
                                                           uint32_t first_page) const {
  const auto segment = segments_.find(uint64_t{first_page} * grants::kPageSize);
  if (segment == segments_.end() || segment->second.owned.refs().empty()) {
    return absl::NotFoundError(absl::StrCat("no granted window segment at page ", first_page));
  }
  const std::vector<grants::GrantRef>& refs = segment->second.owned.refs();
  absl::StatusOr<grants::SharedPages> directory =
      sharer.Share(backend, grants::DirectoryPagesFor(static_cast<uint32_t>(refs.size())),
                   grants::Access::kReadOnly);
  if (!directory.ok()) return directory.status();
  absl::Status status = grants::WriteDirectory(refs, directory->bytes(), directory->refs());
  if (!status.ok()) return status;
  return directory;
}

std::vector<GuestMemory::SegmentRange> GuestMemory::segments() const {
  std::vector<SegmentRange> ranges;
  for (const auto& [first, segment] : segments_) {
    ranges.push_back({.first_page = static_cast<uint32_t>(first / grants::kPageSize),
                      .pages = static_cast<uint32_t>(segment.bytes.size() / grants::kPageSize)});
  }
  return ranges;
}

void GuestMemory::Thaw() {
  frozen_ = false;
  for (const auto& [address, size] : std::exchange(limbo_, {})) Free(address, size);
  std::erase_if(segments_, [](const auto& segment) { return segment.second.retired; });
}

void GuestMemory::Release(uint64_t address, uint64_t size) {
  if (frozen_) {
    limbo_.emplace_back(address, size);
  } else {
    Free(address, size);
  }
}

void GuestMemory::Free(uint64_t address, uint64_t size) {
  auto segment = std::prev(segments_.upper_bound(address));
  auto next = free_.lower_bound(address);
  const uint64_t segment_end = segment->first + segment->second.bytes.size();
  if (next != free_.end() && next->first == address + size && next->first < segment_end) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == address && before->first >= segment->first) {
      before->second += size;
      return;
    }
  }
  free_[address] = size;
}

std::byte* GuestMemory::At(uint64_t address, uint64_t size) const {
  auto next = segments_.upper_bound(address);
  if (next == segments_.begin()) return nullptr;
  const auto& [first, segment] = *std::prev(next);
  const uint64_t offset = address - first;
  if (offset > segment.bytes.size() || size > segment.bytes.size() - offset) return nullptr;
  return segment.bytes.data() + offset;
}

uint32_t GuestMemory::pages() const {
  uint64_t bytes = 0;
  for (const auto& [first, segment] : segments_) bytes += segment.bytes.size();
  return static_cast<uint32_t>(bytes / grants::kPageSize);
}

uint64_t GuestMemory::free_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [first, size] : free_) bytes += size;
  return bytes;
}

}  // namespace vmsg::frontend
