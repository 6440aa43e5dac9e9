// SPDX-License-Identifier: Apache-2.0
// WINDOW_EXTEND and WINDOW_WITHDRAW (docs/binding.md, section 5), one after the other: mapping and
// unmapping happen elsewhere, buffers in flight end when they end.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "backend/bus/bus_interfaces.h"
#include "backend/bus/outbox.h"
#include "grants/window.h"
#include "virtio-msg/codec.h"

namespace vmsg::backend {

// Window requests that may wait; past it the ring is not read on. A frontend has no reason for more
// than one.
inline constexpr size_t kMaxPendingWindowRequests = 8;

class WindowRequests {
 public:
  struct Parts {
    Outbox& outbox;
    grants::Window& window;
    WindowMapper& mapper;
    uint32_t max_pages;  // of the whole window
    // True when a queue area lies in the window's [first, first + bytes).
    absl::AnyInvocable<bool(uint64_t first, uint64_t bytes)> in_use;
    absl::AnyInvocable<void()> want_turn;
    absl::AnyInvocable<void(const absl::Status&)> problem;
  };
  explicit WindowRequests(Parts parts) : parts_(std::move(parts)) {}

  bool CanTake() const { return pending_.size() < kMaxPendingWindowRequests; }
  // A request that the outbox has credit for, parsed.
  void Take(const wire::Envelope& envelope, const wire::WindowExtendRequest& request);
  void Take(const wire::Envelope& envelope, const wire::WindowWithdrawRequest& request);

  // Looks for segments that have drained. True: it did something.
  bool Turn();
  // Nothing is under way at the mapper. The bus is not destroyed before.
  bool idle() const { return !at_mapper_ && pending_.empty() && !withdrawing_; }
  // The bus closes: what waits is dropped, what is at the mapper is waited for.
  void Close();

 private:
  struct Request {
    wire::Envelope envelope;
    bool extend;
    uint32_t first;  // directory_ref or first_page
    uint32_t pages;
  };

  void Take(const Request& request);
  void Next();
  void Extend(const Request& request);
  void Withdraw(const Request& request);
  void FinishExtend(const wire::Envelope& envelope, wire::WindowResult result, uint32_t first_page);
  void FinishWithdraw(const wire::Envelope& envelope, wire::WindowResult result);
  void Unmap(grants::GrantMapping mapping);

  Parts parts_;
  std::deque<Request> pending_;
  bool busy_ = false;                   // a request is being served
  bool at_mapper_ = false;              // ... and the mapper has it
  std::optional<Request> withdrawing_;  // waits for its pins
  bool closed_ = false;
};

}  // namespace vmsg::backend
