// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/domains/grant_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace vmsg::emu {

using grants::DomainId;
using grants::GrantRef;
using grants::kReservedGrantRefs;

absl::StatusOr<std::vector<GrantRef>> GrantTable::Share(DomainId with, uint32_t pages,
                                                        bool writable) {
  if (pages > capacity_ - std::min(capacity_, kReservedGrantRefs + active_)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot grant ", pages, " pages: ", active_, " of ", capacity_ - kReservedGrantRefs,
        " grant references are in use (max_grant_frames is ", capacity_ / kEntriesPerFrame, ")"));
  }
  const std::vector<uint32_t> frames = memory_.Allocate(pages);
  if (frames.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot grant ", pages, " pages: ", memory_.used_pages(), " of the domain's ",
                     memory_.pages(), " pages are in use (create it with more --memory)"));
  }
  std::vector<GrantRef> refs;
  refs.reserve(pages);
  for (const uint32_t frame : frames) {
    while (lowest_free_ < entries_.size() && entries_[lowest_free_].used) ++lowest_free_;
    if (lowest_free_ >= entries_.size()) entries_.resize(lowest_free_ + 1);
    entries_[lowest_free_] = {.frame = frame, .with = with, .used = true, .writable = writable};
    refs.push_back(lowest_free_);
  }
  active_ += pages;
  return refs;
}

void GrantTable::End(const std::vector<GrantRef>& refs) {
  for (const GrantRef ref : refs) {
    if (entries_[ref].maps == 0) {
      Free(ref);
    } else {
      entries_[ref].ended = true;
      ++deferred_;
    }
  }
}

absl::Status GrantTable::Check(GrantRef ref, DomainId mapper, bool writable) const {
  if (ref < kReservedGrantRefs) {
    return absl::InvalidArgumentError(absl::StrCat("reference ", ref, " is reserved"));
  }
  if (ref >= entries_.size() || !entries_[ref].used) {
    return absl::InvalidArgumentError(absl::StrCat("reference ", ref, " is not in use"));
  }
  const Entry& entry = entries_[ref];
  if (entry.with != mapper) {
    return absl::InvalidArgumentError(
        absl::StrCat("reference ", ref, " is granted to domain ", entry.with, ", not ", mapper));
  }
  if (writable && !entry.writable) {
    return absl::InvalidArgumentError(absl::StrCat("reference ", ref, " is granted read-only"));
  }
  if (entry.maps >= kMaxMapsOfAPage) {
    return absl::InvalidArgumentError(absl::StrCat("reference ", ref, " is mapped ", entry.maps,
                                                   " times, the most that Xen counts"));
  }
  return absl::OkStatus();
}

void GrantTable::Pin(GrantRef ref) {
  ++entries_[ref].maps;
  ++pins_;
}

void GrantTable::Unpin(GrantRef ref) {
  Entry& entry = entries_[ref];
  --entry.maps;
  --pins_;
  if (entry.maps == 0 && entry.ended) {
    --deferred_;
    Free(ref);
  }
}

void GrantTable::Free(GrantRef ref) {
  memory_.Free(entries_[ref].frame);
  entries_[ref] = {};
  lowest_free_ = std::min(lowest_free_, ref);
  --active_;
}

}  // namespace vmsg::emu
