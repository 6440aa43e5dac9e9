// SPDX-License-Identifier: Apache-2.0
// The window against a model that keeps one record for each page: seeded random operations, and
// after each one the same answer, the same bytes and the same pins.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "grants/window.h"
#include "tests/grants/fake_mapper.h"

namespace vmsg::grants {
namespace {

constexpr uint32_t kMaxPages = 24;

class Model : public testing::TestWithParam<uint32_t> {
 protected:
  struct Page {
    uint32_t segment;  // its first page
    bool open;
  };
  struct Pin {
    uint64_t address;
    uint64_t size;
  };

  uint64_t Random(uint64_t below) {
    return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_);
  }

  // Mostly near the bounds of pages, sometimes anything.
  uint64_t RandomAddress() {
    switch (Random(8)) {
      case 0:
        return random_() | uint64_t{random_()} << 32;
      case 1:
        return UINT64_MAX - Random(3 * kPageSize);
      default:
        return Random(next_page_ + 2) * kPageSize + Random(64) - (Random(2) == 0 ? 32 : 0);
    }
  }
  uint64_t RandomSize() {
    switch (Random(10)) {
      case 0:
        return 0;
      case 1:
        return UINT64_MAX - Random(2 * kPageSize);
      case 2:
        return Random(10 * kPageSize);
      default:
        return 1 + Random(64) + Random(4) * kPageSize;
    }
  }

  bool ModelAllows(uint64_t address, uint64_t size) const {
    if (size == 0 || address > UINT64_MAX - size) return false;
    if (size > uint64_t{kMaxPages} * kPageSize) return false;
    for (uint64_t page = address / kPageSize; page <= (address + size - 1) / kPageSize; ++page) {
      const auto found = pages_.find(page);
      if (found == pages_.end() || !found->second.open) return false;
    }
    return true;
  }

  uint32_t PinsOf(uint32_t segment) const {
    uint32_t count = 0;
    for (const Pin& pin : pins_) {
      for (uint64_t page = pin.address / kPageSize;
           page <= (pin.address + pin.size - 1) / kPageSize; ++page) {
        if (pages_.at(page).segment == segment) {
          ++count;
          break;
        }
      }
    }
    return count;
  }

  std::vector<uint32_t> Segments() const {
    std::vector<uint32_t> segments;
    for (const auto& [number, page] : pages_) {
      if (segments.empty() || segments.back() != page.segment) segments.push_back(page.segment);
    }
    return segments;
  }
  uint32_t PagesOf(uint32_t segment) const {
    uint32_t count = 0;
    for (const auto& [number, page] : pages_) count += page.segment == segment ? 1 : 0;
    return count;
  }
  void Forget(uint32_t segment) {
    std::erase_if(pages_, [&](const auto& entry) { return entry.second.segment == segment; });
  }

  void DoAppend() {
    if (next_page_ > 4000) return;
    const auto count = static_cast<uint32_t>(1 + Random(4));
    GrantMapping mapping = mapper_.MapFresh(count);
    // Each 8 bytes hold their own window address.
    for (uint64_t at = 0; at < count * kPageSize; at += 8) {
      const uint64_t tag = next_page_ * kPageSize + at;
      std::memcpy(mapping.bytes().data() + at, &tag, 8);
    }
    const auto first = window_.Append(std::move(mapping), kMaxPages);
    ASSERT_EQ(first.ok(), pages_.size() + count <= kMaxPages);
    if (!first.ok()) return;
    ASSERT_EQ(*first, next_page_);
    for (uint32_t i = 0; i < count; ++i) pages_[next_page_ + i] = Page{*first, true};
    next_page_ += count;
  }

  void DoPin() {
    const Pin pin{RandomAddress(), RandomSize()};
    IoVector pieces;
    const absl::Status status = window_.PinSpans(pin.address, pin.size, &pieces);
    ASSERT_EQ(status.ok(), ModelAllows(pin.address, pin.size))
        << pin.address << " " << pin.size << " " << status;
    if (!status.ok()) {
      ASSERT_TRUE(pieces.empty());
      return;
    }
    uint64_t position = pin.address;
    for (const iovec& piece : pieces) {
      // First and last byte of each piece are the bytes of that address.
      for (const uint64_t at : {uint64_t{0}, uint64_t{piece.iov_len} - 1}) {
        const uint64_t tag = (position + at) & ~uint64_t{7};
        ASSERT_EQ(static_cast<const std::byte*>(piece.iov_base)[at],
                  reinterpret_cast<const std::byte*>(&tag)[(position + at) % 8]);
        uint64_t word = 0;
        std::memcpy(&word, static_cast<const std::byte*>(piece.iov_base) + at - (position + at) % 8,
                    8);
        ASSERT_EQ(word, tag);
      }
      position += piece.iov_len;
    }
    ASSERT_EQ(position, pin.address + pin.size);
    pins_.push_back(pin);
  }

  void DoArea() {
    const Pin pin{RandomAddress(), RandomSize()};
    const uint64_t alignment = uint64_t{1} << Random(5);
    const auto area = window_.PinArea(pin.address, pin.size, alignment);
    bool allowed = ModelAllows(pin.address, pin.size) && pin.address % alignment == 0;
    if (allowed) {
      allowed = pages_.at(pin.address / kPageSize).segment ==
                pages_.at((pin.address + pin.size - 1) / kPageSize).segment;
    }
    ASSERT_EQ(area.ok(), allowed) << pin.address << " " << pin.size << " " << alignment;
    if (!area.ok()) return;
    ASSERT_EQ(area->size(), pin.size);
    if (pin.address % 8 == 0 && pin.size >= 8) {
      ASSERT_EQ(area->Load<uint64_t>(0), pin.address);
    }
    pins_.push_back(pin);
  }

  void DoUnpin() {
    if (pins_.empty()) return;
    const size_t index = Random(pins_.size());
    const Pin pin = pins_[index];
    pins_.erase(pins_.begin() + static_cast<ptrdiff_t>(index));
    window_.Unpin(pin.address, pin.size);
  }

  void DoWithdraw() {
    const std::vector<uint32_t> segments = Segments();
    if (segments.empty()) return;
    const uint32_t chosen = segments[Random(segments.size())];
    uint32_t first = chosen;
    uint32_t count = PagesOf(chosen);
    if (Random(4) == 0) (Random(2) == 0 ? first : count) += 1;
    const auto page = pages_.find(first);
    const bool exact = page != pages_.end() && page->second.open && page->second.segment == first &&
                       PagesOf(first) == count;
    const auto mapping = window_.Withdraw(first, count);
    ASSERT_EQ(mapping.ok(), exact) << first << " " << count;
    if (!exact) return;
    const bool pinned = PinsOf(first) > 0;
    ASSERT_EQ(static_cast<bool>(*mapping), !pinned);
    if (pinned) {
      for (auto& [number, other] : pages_) other.open = other.open && other.segment != first;
    } else {
      Forget(first);
    }
  }

  void DoTakeDrained() {
    std::vector<uint32_t> expected;
    for (const uint32_t segment : Segments()) {
      if (!pages_.at(segment).open && PinsOf(segment) == 0) expected.push_back(segment);
    }
    ASSERT_EQ(window_.has_drained(), !expected.empty());
    const std::vector<Window::Drained> drained = window_.TakeDrained();
    ASSERT_EQ(drained.size(), expected.size());
    for (size_t i = 0; i < drained.size(); ++i) {
      ASSERT_EQ(drained[i].first_page, expected[i]);
      ASSERT_EQ(drained[i].mapping.pages(), PagesOf(expected[i]));
      Forget(expected[i]);
    }
  }

  FakeMapper mapper_;
  Window window_;
  std::map<uint64_t, Page> pages_;
  std::vector<Pin> pins_;
  uint32_t next_page_ = 0;
  std::mt19937 random_{GetParam()};
};

TEST_P(Model, WindowAgreesWithIt) {
  for (int step = 0; step < 4000; ++step) {
    switch (Random(12)) {
      case 0:
        DoAppend();
        break;
      case 1:
        DoWithdraw();
        break;
      case 2:
        DoTakeDrained();
        break;
      case 3:
        DoArea();
        break;
      case 4:
      case 5:
      case 6:
      case 7:
        DoUnpin();
        break;
      default:
        DoPin();
    }
    if (HasFatalFailure()) FAIL() << "step " << step << " of seed " << GetParam();
    ASSERT_EQ(window_.mapped_pages(), pages_.size());
    ASSERT_EQ(mapper_.live_pages(), pages_.size());
    ASSERT_EQ(window_.size_bytes(), next_page_ * kPageSize);
  }
  // Pins balance: with the last one gone, each open segment comes back at once.
  while (!pins_.empty()) DoUnpin();
  DoTakeDrained();
  for (const uint32_t segment : Segments()) {
    EXPECT_TRUE(*window_.Withdraw(segment, PagesOf(segment))) << "segment " << segment;
  }
  EXPECT_EQ(mapper_.live_mappings(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Model, testing::Range(1u, 13u));

}  // namespace
}  // namespace vmsg::grants
