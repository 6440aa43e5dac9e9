// SPDX-License-Identifier: Apache-2.0
// WINDOW_EXTEND and WINDOW_WITHDRAW (docs/binding.md, section 5).
#include <utility>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"

namespace vmsg::frontend {
namespace {

absl::Status Explain(absl::string_view request, uint32_t result) {
  const std::string text = absl::StrCat("the backend answered ", request, " with ");
  switch (static_cast<wire::WindowResult>(result)) {
    case wire::WindowResult::kOk:
      return absl::OkStatus();
    case wire::WindowResult::kInvalid:
      return absl::InvalidArgumentError(
          absl::StrCat(text, "1: invalid directory or range, or a page is mapped already"));
    case wire::WindowResult::kLimit:
      return absl::ResourceExhaustedError(
          absl::StrCat(text, "2: over its limit (max-window-pages)"));
    case wire::WindowResult::kMapFailed:
      return absl::InternalError(absl::StrCat(text, "3: it could not map the pages"));
    case wire::WindowResult::kInUse:
      return absl::FailedPreconditionError(absl::StrCat(text, "4: in use by a virtqueue"));
    case wire::WindowResult::kNotFound:
      return absl::NotFoundError(absl::StrCat(text, "5: no such segment"));
  }
  return absl::InternalError(absl::StrCat(text, result, ", which the binding does not know"));
}

}  // namespace

absl::StatusOr<uint32_t> BusConnection::ExtendWindow(uint32_t pages, Deadline deadline) {
  absl::StatusOr<GuestMemory::Grant> grant =
      GuestMemory::Share(*parts_.sharer, address_.backend, pages);
  if (!grant.ok()) return grant.status();
  absl::StatusOr<wire::WindowExtendResponse> response = bus_->Call<wire::WindowExtendResponse>(
      0, wire::WindowExtendRequest{.directory_ref = grant->directory_ref(), .pages = pages},
      deadline);
  if (!response.ok()) {
    // It may still map them: the grants stay until the bus is closed.
    undecided_.push_back(*std::move(grant));
    return response.status();
  }
  if (absl::Status status = Explain("WINDOW_EXTEND", response->result); !status.ok()) return status;
  const uint32_t first_page = response->first_page;
  absl::Status status = memory_->AddSegment(first_page, *std::move(grant));
  if (!status.ok()) return status;
  return first_page;
}

absl::Status BusConnection::WithdrawWindow(uint32_t first_page, uint32_t pages, Deadline deadline) {
  if (absl::Status status = memory_->RetireSegment(first_page, pages); !status.ok()) return status;
  absl::StatusOr<wire::WindowWithdrawResponse> response = bus_->Call<wire::WindowWithdrawResponse>(
      0, wire::WindowWithdrawRequest{.first_page = first_page, .pages = pages}, deadline);
  // Without an answer it may be mapped or not: it stays granted and unused.
  if (!response.ok()) return response.status();
  absl::Status status = Explain("WINDOW_WITHDRAW", response->result);
  if (status.ok()) {
    memory_->DropSegment(first_page);
  } else {
    memory_->ReviveSegment(first_page);
  }
  return status;
}

}  // namespace vmsg::frontend
