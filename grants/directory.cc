// SPDX-License-Identifier: Apache-2.0
#include "grants/directory.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grants/window.h"

namespace vmsg::grants {
namespace {

constexpr size_t kWordsPerPage = kPageSize / sizeof(GrantRef);
static_assert(kWordsPerPage == 1 + kRefsPerDirectoryPage);

absl::Status Refused(absl::string_view where, absl::string_view rule) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", rule));
}

std::string ReservedRule(GrantRef ref) {
  return absl::StrCat("grant ", ref, " is reserved by Xen (0..", kReservedGrantRefs - 1,
                      "); grant a page of the guest's own");
}

// Index of a reference that occurs earlier in `refs`, if there is one. The references are whatever
// a guest likes, so memory and time depend on their number only: one byte for each value up to the
// highest when these are few enough (not bits: neighbours would wait for each other's word), else
// a sorted copy.
std::optional<size_t> FindRepeated(absl::Span<const GrantRef> refs) {
  constexpr size_t kBytesPerRef = 8;
  const GrantRef highest = *std::max_element(refs.begin(), refs.end());
  if (highest < kBytesPerRef * refs.size()) {
    std::vector<uint8_t> seen(highest + size_t{1});
    for (size_t i = 0; i < refs.size(); ++i) {
      if (std::exchange(seen[refs[i]], 1) != 0) return i;
    }
    return std::nullopt;
  }
  std::vector<GrantRef> sorted(refs.begin(), refs.end());
  std::sort(sorted.begin(), sorted.end());
  const auto repeated = std::adjacent_find(sorted.begin(), sorted.end());
  if (repeated == sorted.end()) return std::nullopt;
  const auto once = std::find(refs.begin(), refs.end(), *repeated);
  return std::find(once + 1, refs.end(), *repeated) - refs.begin();
}

// Names entry `index` of the list "directory pages, then window pages".
std::string NameEntry(size_t index, size_t directory_pages) {
  if (index < directory_pages) return absl::StrCat("directory page ", index);
  return absl::StrCat("window page ", index - directory_pages);
}

}  // namespace

absl::Status WriteDirectory(absl::Span<const GrantRef> window_refs, std::span<std::byte> directory,
                            absl::Span<const GrantRef> directory_refs) {
  if (window_refs.empty() || window_refs.size() > UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("a directory of ", window_refs.size(),
                                                   " window pages; it lists 1..", UINT32_MAX));
  }
  const uint32_t pages = DirectoryPagesFor(static_cast<uint32_t>(window_refs.size()));
  if (directory_refs.size() != pages || directory.size() != pages * kPageSize) {
    return absl::InvalidArgumentError(absl::StrCat(
        window_refs.size(), " window pages need ", pages, " directory pages; given are ",
        directory.size(), " bytes with ", directory_refs.size(), " grants"));
  }
  for (uint32_t page = 0; page < pages; ++page) {
    const GuestArea area(directory.subspan(page * kPageSize, kPageSize));
    area.Store<GrantRef>(0, page + 1 < pages ? directory_refs[page + 1] : 0);
    const size_t first = size_t{page} * kRefsPerDirectoryPage;
    for (size_t i = 0; i < kRefsPerDirectoryPage; ++i) {
      area.Store<GrantRef>((1 + i) * sizeof(GrantRef),
                           first + i < window_refs.size() ? window_refs[first + i] : 0);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GrantRef>> WalkDirectory(GrantMapper& mapper, DomainId domain,
                                                    GrantRef first, uint32_t pages,
                                                    const DirectoryLimits& limits) {
  if (pages == 0) {
    return absl::InvalidArgumentError("directory-pages is 0; a window has at least 1 page");
  }
  if (pages > limits.max_pages) {
    return absl::ResourceExhaustedError(absl::StrCat("directory-pages ", pages,
                                                     " is over max-window-pages ", limits.max_pages,
                                                     "; share fewer pages"));
  }
  // Directory pages first, then window pages: one list, so that one check finds every repetition.
  const uint32_t directory_pages = DirectoryPagesFor(pages);
  std::vector<GrantRef> refs;
  refs.reserve(size_t{directory_pages} + pages);
  refs.push_back(first);
  refs.resize(directory_pages);

  // Aligned: a copy to one page of ours is one operation of Xen's.
  alignas(kPageSize) std::array<GrantRef, kWordsPerPage> words;
  uint32_t left = pages;
  for (uint32_t page = 0; page < directory_pages; ++page) {
    const std::string where =
        absl::StrCat("directory page ", page, " of ", directory_pages, " (grant ", refs[page], ")");
    if (refs[page] < kReservedGrantRefs) return Refused(where, ReservedRule(refs[page]));
    absl::Status copied = mapper.Copy(domain, refs[page], std::as_writable_bytes(std::span(words)));
    if (!copied.ok()) {
      return absl::Status(copied.code(), absl::StrCat(where, ": ", copied.message()));
    }
    const uint32_t entries = std::min(left, kRefsPerDirectoryPage);
    const auto begin = words.begin() + 1;
    const auto reserved =
        std::find_if(begin, begin + entries, [](GrantRef ref) { return ref < kReservedGrantRefs; });
    if (reserved != begin + entries) {
      return Refused(absl::StrCat("window page ", pages - left + (reserved - begin)),
                     ReservedRule(*reserved));
    }
    refs.insert(refs.end(), begin, begin + entries);
    left -= entries;

    const GrantRef next = words[0];
    const bool last = page + 1 == directory_pages;
    if (next == 0) {
      if (last) break;
      return Refused(where, absl::StrCat("the list ends ", left, " window pages early; ", pages,
                                         " window pages need ", directory_pages, " pages"));
    }
    const auto seen = std::find(refs.begin(), refs.begin() + page + 1, next);
    if (seen != refs.begin() + page + 1) {
      return Refused(where, absl::StrCat("its next page, grant ", next, ", is directory page ",
                                         seen - refs.begin(), " again"));
    }
    if (last) {
      return Refused(where, absl::StrCat("the list goes on with grant ", next, "; ", pages,
                                         " window pages need ", directory_pages, " pages"));
    }
    refs[page + 1] = next;
  }

  if (const std::optional<size_t> repeated = FindRepeated(refs)) {
    const size_t earlier = std::find(refs.begin(), refs.end(), refs[*repeated]) - refs.begin();
    return Refused(
        NameEntry(*repeated, directory_pages),
        absl::StrCat("grant ", refs[*repeated], " is ", NameEntry(earlier, directory_pages),
                     " already; a page is listed once"));
  }
  refs.erase(refs.begin(), refs.begin() + directory_pages);
  return refs;
}

absl::StatusOr<GrantMapping> MapWindow(GrantMapper& mapper, DomainId domain, GrantRef first,
                                       uint32_t pages, const DirectoryLimits& limits,
                                       AdmitPages admit) {
  absl::StatusOr<std::vector<GrantRef>> refs = WalkDirectory(mapper, domain, first, pages, limits);
  if (!refs.ok()) return refs.status();
  if (absl::Status admitted = admit(*refs); !admitted.ok()) {
    return absl::Status(admitted.code(), absl::StrCat("window ", admitted.message()));
  }
  absl::StatusOr<GrantMapping> window = mapper.Map(domain, *refs, Access::kReadWrite);
  if (!window.ok()) {
    return absl::Status(window.status().code(),
                        absl::StrCat("window of ", pages, " pages: ", window.status().message()));
  }
  return window;
}

}  // namespace vmsg::grants
