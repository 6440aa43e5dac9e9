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
  const uint64_t losses = bus_->losses();
  absl::StatusOr<wire::WindowWithdrawResponse> response =
      bus_->CallOnce<wire::WindowWithdrawResponse>(
          0, wire::WindowWithdrawRequest{.first_page = first_page, .pages = pages}, deadline);
  if (bus_->losses() != losses || bus_->lost()) {
    // With the backend all its mappings go, and the next one is not given this part again.
    return bus_->WaitUntil([this] { return !bus_->lost(); }, deadline);
  }
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

absl::Status BusConnection::ExtendAgain(uint32_t directory_ref, uint32_t first_page,
                                        uint32_t pages) {
  absl::StatusOr<wire::WindowExtendResponse> response = bus_->CallOnce<wire::WindowExtendResponse>(
      0, wire::WindowExtendRequest{.directory_ref = directory_ref, .pages = pages}, give_up_);
  if (!response.ok()) return response.status();
  if (absl::Status status = Explain("WINDOW_EXTEND", response->result); !status.ok()) return status;
  if (response->first_page == first_page) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("window pages ", first_page, " to ", first_page + pages,
                                          " cannot be restored: the backend put them at ",
                                          response->first_page));
}

absl::Status BusConnection::WithdrawFilling(uint32_t first_page, uint32_t pages) {
  absl::StatusOr<wire::WindowWithdrawResponse> response =
      bus_->CallOnce<wire::WindowWithdrawResponse>(
          0, wire::WindowWithdrawRequest{.first_page = first_page, .pages = pages}, give_up_);
  return response.ok() ? Explain("WINDOW_WITHDRAW", response->result) : response.status();
}

absl::Status BusConnection::RestoreWindow() {
  uint32_t next = 0;
  if (window_.pages() != 0) {
    // In the place of the initial window, which was withdrawn.
    next = window_.pages();
    if (absl::Status status = WithdrawFilling(0, next); !status.ok()) return status;
    window_ = {};
  }
  for (const GuestMemory::SegmentRange& segment : memory_->segments()) {
    if (segment.first_page > next) {
      const uint32_t hole = segment.first_page - next;
      absl::StatusOr<GuestMemory::Grant> filling =
          GuestMemory::Share(*parts_.sharer, address_.backend, hole);
      if (!filling.ok()) return filling.status();
      const uint32_t directory_ref = filling->directory_ref();
      // The backend has it until it says otherwise.
      undecided_.push_back(*std::move(filling));
      absl::Status status = ExtendAgain(directory_ref, next, hole);
      if (status.ok()) status = WithdrawFilling(next, hole);
      if (!status.ok()) return status;
      undecided_.pop_back();
    }
    if (segment.first_page != 0) {
      absl::StatusOr<grants::SharedPages> directory =
          memory_->ListAgain(*parts_.sharer, address_.backend, segment.first_page);
      if (!directory.ok()) return directory.status();
      absl::Status status =
          ExtendAgain(directory->refs().front(), segment.first_page, segment.pages);
      if (!status.ok()) return status;
    }
    next = segment.first_page + segment.pages;
  }
  return absl::OkStatus();
}

}  // namespace vmsg::frontend
