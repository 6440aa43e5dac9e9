// SPDX-License-Identifier: Apache-2.0
#include "grants/window.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::grants {
namespace {

// Page numbers are 32 bits on the wire (WINDOW_EXTEND, WINDOW_WITHDRAW).
constexpr uint64_t kMaxWindowBytes = (uint64_t{1} << 32) * kPageSize;

}  // namespace

absl::Status Window::CheckAppend(uint64_t pages, uint32_t max_pages) const {
  const uint64_t mapped = mapped_pages();
  if (mapped > max_pages || pages > max_pages - mapped) {
    return absl::ResourceExhaustedError(absl::StrCat("window of ", mapped, " pages and ", pages,
                                                     " more would pass max-window-pages ",
                                                     max_pages, "; withdraw pages first"));
  }
  if (segments_.size() >= kMaxWindowSegments) {
    return absl::ResourceExhaustedError(
        absl::StrCat("window already has ", segments_.size(),
                     " segments, the most there may be; extend it by more pages at a time"));
  }
  if (pages > (kMaxWindowBytes - end_) / kPageSize) {
    return absl::ResourceExhaustedError(
        absl::StrCat("window ends at page ", end_ / kPageSize, ", ", pages,
                     " more would pass 2^32; reconnect to start again at 0"));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Window::Append(GrantMapping mapping, uint32_t max_pages) {
  const uint64_t bytes = mapping.bytes().size();
  if (bytes == 0 || bytes % kPageSize != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a window segment of ", bytes, " bytes; it must be whole pages"));
  }
  if (absl::Status fits = CheckAppend(bytes / kPageSize, max_pages); !fits.ok()) return fits;
  segments_.push_back(
      Segment{.first_byte = end_, .open_bytes = bytes, .pins = 0, .mapping = std::move(mapping)});
  hot_ = &segments_.back();
  return static_cast<uint32_t>(std::exchange(end_, end_ + bytes) / kPageSize);
}

uint32_t Window::mapped_pages() const {
  uint64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.size();
  return static_cast<uint32_t>(bytes / kPageSize);
}

std::vector<Window::Segment>::iterator Window::Find(uint64_t address) {
  auto after = std::upper_bound(
      segments_.begin(), segments_.end(), address,
      [](uint64_t value, const Segment& segment) { return value < segment.first_byte; });
  if (after == segments_.begin()) return segments_.end();
  auto segment = std::prev(after);
  return address - segment->first_byte < segment->size() ? segment : segments_.end();
}

absl::Status Window::Refuse(uint64_t address, uint64_t size) const {
  if (size == 0) {
    return absl::InvalidArgumentError(absl::StrCat("buffer of 0 bytes at window address ", address,
                                                   "; a buffer has at least 1 byte"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "window address ", address, " with ", size,
      " bytes is not inside the window's mapped pages (its highest address was below ", end_, ")"));
}

absl::StatusOr<GuestArea> Window::PinArea(uint64_t address, uint64_t size, uint64_t alignment) {
  assert(std::has_single_bit(alignment) && alignment <= kPageSize);
  if (size == 0) return Refuse(address, size);
  if ((address & (alignment - 1)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("window address ", address, " with ", size,
                                                   " bytes is not aligned to ", alignment));
  }
  auto segment = Find(address);
  if (segment == segments_.end() || segment->closing()) return Refuse(address, size);
  const uint64_t offset = address - segment->first_byte;
  if (size > segment->open_bytes - offset) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window address ", address, " with ", size, " bytes passes the end of its segment at ",
        segment->first_byte + segment->open_bytes, "; a queue area lies within one segment"));
  }
  ++segment->pins;
  return GuestArea(segment->mapping.bytes().subspan(offset, size));
}

absl::Status Window::PinSpansSlow(uint64_t address, uint64_t size, IoVector* out) {
  if (size == 0) return Refuse(address, size);
  auto first = Find(address);
  // Checked to the end before anything is pinned. Loops run over segments, at most
  // kMaxWindowSegments, whatever the size.
  auto last = first;
  uint64_t position = address;
  uint64_t left = size;
  for (;; ++last) {
    if (last == segments_.end() || last->closing() || position < last->first_byte) {
      return Refuse(address, size);
    }
    const uint64_t room = last->open_bytes - (position - last->first_byte);
    if (left <= room) break;
    position += room;
    left -= room;
  }
  uint64_t offset = address - first->first_byte;
  left = size;
  for (auto segment = first;; ++segment) {
    const uint64_t piece = std::min(left, segment->open_bytes - offset);
    ++segment->pins;
    out->push_back(iovec{segment->mapping.bytes().data() + offset, piece});
    left -= piece;
    offset = 0;
    if (segment == last) break;
  }
  hot_ = &*first;
  return absl::OkStatus();
}

void Window::UnpinSlow(uint64_t address, uint64_t size) {
  uint64_t left = size;
  auto segment = Find(address);
  assert(segment != segments_.end() && size > 0);
  uint64_t offset = segment != segments_.end() ? address - segment->first_byte : 0;
  // A pinned segment stays where it is, so what follows here is what PinSpans pinned.
  for (; left > 0 && segment != segments_.end(); ++segment) {
    left -= std::min(left, segment->size() - offset);
    offset = 0;
    assert(segment->pins > 0);
    --segment->pins;
    if (segment->pins == 0 && segment->closing()) ++drained_;
  }
  assert(left == 0);
}

GrantMapping Window::Remove(std::vector<Segment>::iterator segment) {
  GrantMapping mapping = std::move(segment->mapping);
  segments_.erase(segment);
  hot_ = nullptr;  // PinSpansSlow finds the next one
  return mapping;
}

absl::StatusOr<GrantMapping> Window::Withdraw(uint32_t first_page, uint32_t pages) {
  const uint64_t first_byte = uint64_t{first_page} * kPageSize;
  auto segment = Find(first_byte);
  if (segment == segments_.end() || segment->first_byte != first_byte ||
      segment->open_bytes != uint64_t{pages} * kPageSize || segment->closing()) {
    return absl::NotFoundError(absl::StrCat(
        "window pages ", first_page, " and the ", pages,
        " from there are not one segment (the initial window or one extension, as a whole)"));
  }
  segment->open_bytes = 0;
  if (hot_ == &*segment) hot_ = nullptr;
  if (segment->pins > 0) return GrantMapping();
  return Remove(segment);
}

std::vector<Window::Drained> Window::TakeDrained() {
  std::vector<Drained> drained;
  if (drained_ == 0) return drained;
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    if (!segment->closing() || segment->pins > 0) {
      ++segment;
      continue;
    }
    const auto index = segment - segments_.begin();
    const auto first_page = static_cast<uint32_t>(segment->first_byte / kPageSize);
    drained.push_back(Drained{first_page, Remove(segment)});
    segment = segments_.begin() + index;
  }
  drained_ = 0;
  return drained;
}

std::vector<GrantMapping> Window::TakeAll() {
  std::vector<GrantMapping> all;
  for (Segment& segment : segments_) {
    assert(segment.pins == 0);
    all.push_back(std::move(segment.mapping));
  }
  segments_.clear();
  hot_ = nullptr;
  drained_ = 0;
  return all;
}

}  // namespace vmsg::grants
