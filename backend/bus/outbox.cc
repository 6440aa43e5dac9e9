// SPDX-License-Identifier: Apache-2.0
#include "backend/bus/outbox.h"

#include "absl/strings/str_cat.h"

namespace vmsg::backend {

size_t Outbox::Free() {
  if (!status_.ok()) return 0;
  absl::StatusOr<size_t> free = producer_.Free();
  if (!free.ok()) {
    status_ = free.status();
    known_free_ = 0;
  } else {
    known_free_ = *free;
  }
  return known_free_;
}

void Outbox::Send(const absl::StatusOr<size_t>& size) {
  if (!status_.ok()) return;
  if (!size.ok()) {
    status_ = absl::InternalError(absl::StrCat("cannot encode: ", size.status().message()));
    return;
  }
  const std::span<const std::byte> message = std::span(buffer_).first(*size);
  absl::StatusOr<bool> pushed = producer_.Push(message);
  if (!pushed.ok()) {
    status_ = pushed.status();
    return;
  }
  if (!*pushed) {
    status_ = absl::InternalError("the ring has less room than was counted on");
    return;
  }
  const size_t used = wire::PaddedRecordSize(*size);
  known_free_ = known_free_ > used ? known_free_ - used : 0;
  ++counters_.messages_sent;
  if (tap_ != nullptr) tap_->OnMessage(/*from_driver=*/false, message);
}

}  // namespace vmsg::backend
