// SPDX-License-Identifier: Apache-2.0
#include "backend/session/page_budget.h"

#include "absl/strings/str_cat.h"

namespace vmsg::backend {

uint32_t PageBudget::left() const {
  std::lock_guard lock(mutex_);
  return left_;
}

bool PageBudget::Insert(grants::GrantRef ref) {
  if (ref >= low_refs_) return high_.insert(ref).second;
  const size_t word = ref / 64;
  if (word >= low_.size()) low_.resize(word + 1);
  const uint64_t bit = uint64_t{1} << ref % 64;
  const bool fresh = (low_[word] & bit) == 0;
  low_[word] |= bit;
  return fresh;
}

void PageBudget::Erase(grants::GrantRef ref) {
  if (ref >= low_refs_) {
    high_.erase(ref);
  } else {
    low_[ref / 64] &= ~(uint64_t{1} << ref % 64);
  }
}

absl::StatusOr<std::shared_ptr<PageClaim>> PageClaim::Take(std::shared_ptr<PageBudget> budget,
                                                           uint32_t pages) {
  {
    std::lock_guard lock(budget->mutex_);
    if (pages > budget->left_) {
      return absl::OutOfRangeError(absl::StrCat("a window of ", pages,
                                                " pages refused: this guest may map ",
                                                budget->left_, " more, over all its buses"));
    }
    budget->left_ -= pages;
  }
  return std::shared_ptr<PageClaim>(new PageClaim(std::move(budget), pages));
}

PageClaim::~PageClaim() {
  std::lock_guard lock(budget_->mutex_);
  budget_->left_ += pages_;
  for (const grants::GrantRef ref : refs_) budget_->Erase(ref);
}

absl::Status PageClaim::Add(absl::Span<const grants::GrantRef> refs) {
  std::lock_guard lock(budget_->mutex_);
  for (size_t i = 0; i < refs.size(); ++i) {
    if (budget_->Insert(refs[i])) continue;
    for (const grants::GrantRef ref : refs.first(i)) budget_->Erase(ref);
    return absl::InvalidArgumentError(
        absl::StrCat("page ", i, ": grant ", refs[i],
                     " is mapped already, for this bus or another of this guest; it can be listed "
                     "again when it was withdrawn or its bus is closed"));
  }
  refs_.assign(refs.begin(), refs.end());
  return absl::OkStatus();
}

}  // namespace vmsg::backend
