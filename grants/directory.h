// SPDX-License-Identifier: Apache-2.0
// The grant-reference directory: the list of pages that make up a window. The layout is that of
// displif, sndif and cameraif (xen/io/displif.h, "struct xendispl_page_directory"): each directory
// page starts with the 32-bit grant reference of the next directory page (0 = last), followed by up
// to 1023 grant references of window pages, in window order, little-endian.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grants/grant_mapper.h"

namespace vmsg::grants {

inline constexpr uint32_t kRefsPerDirectoryPage = 1023;

// How many directory pages list `pages` window pages.
constexpr uint32_t DirectoryPagesFor(uint32_t pages) {
  return pages / kRefsPerDirectoryPage + (pages % kRefsPerDirectoryPage != 0 ? 1 : 0);
}

// Frontend: fills `directory` (DirectoryPagesFor(window_refs.size()) pages, contiguous here,
// granted as directory_refs) to list window_refs; unused entries become 0. The first directory
// page's grant, directory_refs[0], is what is published. InvalidArgument: no window pages, or sizes
// that do not fit together; nothing is written then. The references themselves are not judged: that
// is the backend's business.
absl::Status WriteDirectory(absl::Span<const GrantRef> window_refs, std::span<std::byte> directory,
                            absl::Span<const GrantRef> directory_refs);

struct DirectoryLimits {
  uint32_t max_pages;  // window pages; checked before anything is allocated or mapped
};

// Backend: reads the directory of `domain` that starts at `first` and lists exactly `pages` window
// pages. Each directory page is copied to private memory once, and only the copy is looked at.
// InvalidArgument, with the value, the position and the rule:
// pages is 0; a list that ends early, goes on too long or comes back to a page; a reserved
// reference (0..7); a reference twice, also one that is a directory page itself; unused entries of
// the last page are ignored. ResourceExhausted: pages is over the cap. Copy's errors keep their
// code and get the position. Memory: 16 bytes a window page at most, whatever the references are.
absl::StatusOr<std::vector<GrantRef>> WalkDirectory(GrantMapper& mapper, DomainId domain,
                                                    GrantRef first, uint32_t pages,
                                                    const DirectoryLimits& limits);

// Asked about all pages of a window before one of them is mapped.
using AdmitPages = absl::FunctionRef<absl::Status(absl::Span<const GrantRef> refs)>;
inline absl::Status AnyPages(absl::Span<const GrantRef>) { return absl::OkStatus(); }

// Backend: walks the directory and maps all pages it lists, writable, in one batch: page i of the
// list at bytes()[i * kPageSize]. Errors are WalkDirectory's, `admit`'s and GrantMapper::Map's. May
// block for long, as Map may: not for an I/O thread.
absl::StatusOr<GrantMapping> MapWindow(GrantMapper& mapper, DomainId domain, GrantRef first,
                                       uint32_t pages, const DirectoryLimits& limits,
                                       AdmitPages admit = AnyPages);

}  // namespace vmsg::grants
