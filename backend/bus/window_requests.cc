// SPDX-License-Identifier: Apache-2.0
#include "backend/bus/window_requests.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {

using wire::WindowResult;

namespace {

WindowResult ResultOf(const absl::Status& refused) {
  if (absl::IsInvalidArgument(refused)) return WindowResult::kInvalid;
  return absl::IsOutOfRange(refused) ? WindowResult::kLimit : WindowResult::kMapFailed;
}

}  // namespace

void WindowRequests::Take(const wire::Envelope& envelope,
                          const wire::WindowExtendRequest& request) {
  Take({.envelope = envelope,
        .extend = true,
        .first = request.directory_ref,
        .pages = request.pages});
}

void WindowRequests::Take(const wire::Envelope& envelope,
                          const wire::WindowWithdrawRequest& request) {
  Take(
      {.envelope = envelope, .extend = false, .first = request.first_page, .pages = request.pages});
}

void WindowRequests::Take(const Request& request) {
  pending_.push_back(request);
  Next();
}

void WindowRequests::Next() {
  while (!busy_ && !pending_.empty()) {
    const Request request = pending_.front();
    pending_.pop_front();
    busy_ = true;
    if (request.extend) {
      Extend(request);
    } else {
      Withdraw(request);
    }
  }
}

void WindowRequests::Extend(const Request& request) {
  if (request.pages == 0) {
    parts_.problem(absl::InvalidArgumentError("WINDOW_EXTEND by 0 pages refused"));
    return FinishExtend(request.envelope, WindowResult::kInvalid, 0);
  }
  // Everything is refused before it is mapped: to unmap it here would keep the other guests of this
  // thread waiting.
  if (absl::Status fits = parts_.window.CheckAppend(request.pages, parts_.max_pages); !fits.ok()) {
    parts_.problem(absl::Status(fits.code(), absl::StrCat("WINDOW_EXTEND by ", request.pages,
                                                          " pages refused: ", fits.message())));
    return FinishExtend(request.envelope, WindowResult::kLimit, 0);
  }
  at_mapper_ = true;
  parts_.mapper.Map(
      request.first, request.pages,
      [this, envelope = request.envelope](absl::StatusOr<grants::GrantMapping> mapping) {
        at_mapper_ = false;
        if (closed_) {
          // Nobody waits for it; the session's end unmaps it with the rest.
          if (mapping.ok()) (void)parts_.window.Append(*std::move(mapping), UINT32_MAX);
          busy_ = false;
          parts_.want_turn();
          return;
        }
        if (!mapping.ok()) {
          parts_.problem(mapping.status());
          return FinishExtend(envelope, ResultOf(mapping.status()), 0);
        }
        absl::StatusOr<uint32_t> first =
            parts_.window.Append(*std::move(mapping), parts_.max_pages);
        if (!first.ok()) {
          parts_.problem(first.status());
          return FinishExtend(envelope, WindowResult::kLimit, 0);
        }
        FinishExtend(envelope, WindowResult::kOk, *first);
      });
}

void WindowRequests::FinishExtend(const wire::Envelope& envelope, WindowResult result,
                                  uint32_t first_page) {
  parts_.outbox.Respond(envelope,
                        wire::WindowExtendResponse{.result = static_cast<uint32_t>(result),
                                                   .first_page = first_page});
  busy_ = false;
  parts_.want_turn();
}

void WindowRequests::Withdraw(const Request& request) {
  const uint64_t page = grants::kPageSize;
  if (parts_.in_use(page * request.first, page * request.pages)) {
    parts_.problem(absl::FailedPreconditionError(
        absl::StrCat("WINDOW_WITHDRAW of ", request.pages, " pages at page ", request.first,
                     " refused: a virtqueue area lies in them; reset the queue first")));
    return FinishWithdraw(request.envelope, WindowResult::kInUse);
  }
  absl::StatusOr<grants::GrantMapping> mapping =
      parts_.window.Withdraw(request.first, request.pages);
  if (!mapping.ok()) {
    parts_.problem(mapping.status());
    return FinishWithdraw(request.envelope, WindowResult::kNotFound);
  }
  withdrawing_ = request;
  if (*mapping) Unmap(*std::move(mapping));
}

bool WindowRequests::Turn() {
  bool worked = false;
  if (withdrawing_ && !at_mapper_ && parts_.window.has_drained()) {
    // One withdrawal at a time, so there is one.
    for (grants::Window::Drained& drained : parts_.window.TakeDrained()) {
      Unmap(std::move(drained.mapping));
    }
    worked = true;
  }
  if (!busy_ && !pending_.empty()) {
    Next();
    worked = true;
  }
  return worked;
}

void WindowRequests::Unmap(grants::GrantMapping mapping) {
  at_mapper_ = true;
  parts_.mapper.Unmap(std::move(mapping), [this] {
    at_mapper_ = false;
    const wire::Envelope envelope = std::exchange(withdrawing_, std::nullopt)->envelope;
    FinishWithdraw(envelope, WindowResult::kOk);
  });
}

void WindowRequests::FinishWithdraw(const wire::Envelope& envelope, WindowResult result) {
  parts_.outbox.Respond(envelope,
                        wire::WindowWithdrawResponse{.result = static_cast<uint32_t>(result)});
  busy_ = false;
  parts_.want_turn();
}

void WindowRequests::Close() {
  closed_ = true;
  pending_.clear();
  // A segment that waits for its pins stays the window's, and goes with it.
  if (!at_mapper_) withdrawing_.reset();
}

}  // namespace vmsg::backend
