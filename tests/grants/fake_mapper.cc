// SPDX-License-Identifier: Apache-2.0
#include "tests/grants/fake_mapper.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "grants/directory.h"

namespace vmsg::grants {

FakeMapper::FakeMapper() : memory_(memfd_create("guest", MFD_CLOEXEC)) {
  void* view = MAP_FAILED;
  if (memory_ >= 0 && ftruncate(memory_, kMaxPages * kPageSize) == 0) {
    view = mmap(nullptr, kMaxPages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory_, 0);
  }
  if (view == MAP_FAILED) abort();
  view_ = static_cast<std::byte*>(view);
}

FakeMapper::~FakeMapper() {
  EXPECT_EQ(live_.size(), 0u) << "mappings outlive the mapper";
  EXPECT_EQ(wrong_unmaps_, 0u);
  munmap(view_, kMaxPages * kPageSize);
  close(memory_);
}

std::span<std::byte> FakeMapper::Grant(GrantRef ref) { return GrantRange(ref, 1); }

std::span<std::byte> FakeMapper::GrantRange(GrantRef first, size_t count) {
  if (count > kMaxPages - used_) abort();
  for (size_t i = 0; i < count; ++i) grants_[first + i] = used_ + i;
  std::byte* start = view_ + used_ * kPageSize;
  used_ += count;
  return {start, count * kPageSize};
}

GrantMapping FakeMapper::MapFresh(size_t count) {
  GrantRange(next_fresh_, count);
  absl::StatusOr<GrantMapping> mapping =
      Map(kGuest, Sequence(next_fresh_, count), Access::kReadWrite);
  next_fresh_ += count;
  return *std::move(mapping);
}

absl::StatusOr<GrantMapping> FakeMapper::Map(DomainId domain, absl::Span<const GrantRef> refs,
                                             Access access) {
  calls_.push_back(Call{{refs.begin(), refs.end()}, access});
  if (fail_call == calls_.size() - 1) return absl::UnavailableError("injected");
  if (domain != kGuest || refs.empty()) return absl::InvalidArgumentError("refused");
  for (const GrantRef ref : refs) {
    if (!grants_.contains(ref)) return absl::InvalidArgumentError(absl::StrCat("unused ", ref));
  }
  const size_t bytes = refs.size() * kPageSize;
  void* start = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return absl::ResourceExhaustedError("mmap");
  auto* base = static_cast<std::byte*>(start);
  const int protection = access == Access::kReadWrite ? PROT_READ | PROT_WRITE : PROT_READ;
  for (size_t i = 0; i < refs.size();) {
    const size_t page = grants_[refs[i]];
    size_t run = 1;
    while (i + run < refs.size() && grants_[refs[i + run]] == page + run) ++run;
    if (mmap(base + i * kPageSize, run * kPageSize, protection, MAP_SHARED | MAP_FIXED, memory_,
             static_cast<off_t>(page * kPageSize)) == MAP_FAILED) {
      abort();
    }
    i += run;
  }
  live_[base] = refs.size();
  return GrantMapping(this, {base, bytes});
}

absl::Status FakeMapper::Copy(DomainId domain, GrantRef ref, std::span<std::byte, kPageSize> to) {
  calls_.push_back(Call{{ref}, Access::kReadOnly, /*copy=*/true});
  if (fail_call == calls_.size() - 1) return absl::UnavailableError("injected");
  const auto grant = grants_.find(ref);
  if (domain != kGuest || grant == grants_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("unused ", ref));
  }
  // By words, as a guest's thread may write it meanwhile.
  auto* const words = reinterpret_cast<uint32_t*>(view_ + grant->second * kPageSize);
  for (size_t i = 0; i < kPageSize / sizeof(uint32_t); ++i) {
    const uint32_t word = std::atomic_ref<uint32_t>(words[i]).load(std::memory_order_relaxed);
    memcpy(to.data() + i * sizeof(word), &word, sizeof(word));
  }
  if (after_copy) after_copy(ref);
  return absl::OkStatus();
}

void FakeMapper::Unmap(std::span<std::byte> bytes) {
  const auto live = live_.find(bytes.data());
  if (live == live_.end() || live->second * kPageSize != bytes.size()) {
    ++wrong_unmaps_;
    return;
  }
  live_.erase(live);
  munmap(bytes.data(), bytes.size());
}

size_t FakeMapper::live_pages() const {
  return std::accumulate(live_.begin(), live_.end(), size_t{0},
                         [](size_t sum, const auto& entry) { return sum + entry.second; });
}

std::span<std::byte> PutDirectory(FakeMapper& mapper, std::span<const GrantRef> directory,
                                  std::span<const GrantRef> window) {
  std::span<std::byte> view;
  for (const GrantRef ref : directory) {
    const std::span<std::byte> page = mapper.Grant(ref);
    view = {view.empty() ? page.data() : view.data(), view.size() + kPageSize};
  }
  const absl::Status written =
      WriteDirectory({window.data(), window.size()}, view, {directory.data(), directory.size()});
  EXPECT_TRUE(written.ok()) << written;
  return view;
}

uint32_t& DirectoryWord(std::span<std::byte> directory, size_t page, size_t index) {
  return reinterpret_cast<uint32_t*>(directory.data() + page * kPageSize)[index];
}

std::vector<GrantRef> Sequence(GrantRef first, size_t count) {
  std::vector<GrantRef> refs(count);
  std::iota(refs.begin(), refs.end(), first);
  return refs;
}

}  // namespace vmsg::grants
