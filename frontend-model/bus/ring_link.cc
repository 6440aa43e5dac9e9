// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/ring_link.h"

#include <cerrno>

#include "absl/container/inlined_vector.h"

namespace vmsg::frontend {

RingLink::RingLink(RingMemory memory, RingTerms terms, grants::EventChannels* events,
                   grants::EventPort port)
    : memory_(memory),
      max_message_size_(terms.max_message_size),
      events_(events),
      port_(port),
      out_(&memory.interface_page->out, memory.data.subspan(memory.data.size() / 2),
           terms.suppression),
      in_(&memory.interface_page->in, memory.data.first(memory.data.size() / 2), terms.suppression,
          terms.max_message_size) {}

void RingLink::Restart(RingTerms terms, grants::EventPort port) {
  max_message_size_ = terms.max_message_size;
  port_ = port;
  wants_space_ = woken_ = false;
  const std::span<std::byte> data = memory_.data;
  out_ = wire::RingProducer(&memory_.interface_page->out, data.subspan(data.size() / 2),
                            terms.suppression);
  in_ = wire::RingConsumer(&memory_.interface_page->in, data.first(data.size() / 2),
                           terms.suppression, terms.max_message_size);
}

absl::StatusOr<bool> RingLink::Push(std::span<const std::byte> message) {
  absl::StatusOr<bool> pushed = out_.Push(message);
  if (!pushed.ok()) return pushed;
  if (*pushed) {
    if (wants_space_) out_.WantSpace(wants_space_ = false);
    return true;
  }
  if (wants_space_) return false;
  out_.WantSpace(wants_space_ = true);
  // The backend may have made room just before it could see the wish: look once more.
  return out_.Push(message);
}

absl::Status RingLink::Notify() {
  ++notifications_sent_;
  return events_->Notify(port_);
}

absl::Status RingLink::Flush() { return out_.Publish() ? Notify() : absl::OkStatus(); }

absl::StatusOr<std::optional<std::span<const std::byte>>> RingLink::Pop() {
  absl::StatusOr<std::optional<size_t>> size = in_.Pop(record_);
  if (!size.ok()) return size.status();
  if (!size->has_value()) return std::nullopt;
  return std::span<const std::byte>(record_).first(**size);
}

absl::Status RingLink::Release() { return in_.Release() ? Notify() : absl::OkStatus(); }

absl::StatusOr<bool> RingLink::Arm() {
  if (woken_) {
    woken_ = false;
    // Bounded: this handle has one port, which stays masked from NextPending to Unmask.
    absl::StatusOr<std::optional<grants::EventPort>> pending = events_->NextPending();
    if (!pending.ok()) return pending.status();
    if (pending->has_value()) {
      if (absl::Status status = events_->Unmask(**pending); !status.ok()) return status;
    }
  }
  return in_.Arm();
}

absl::Status RingLink::Sleep(int timeout_ms, std::span<pollfd> others) {
  absl::InlinedVector<pollfd, 4> fds;
  fds.push_back({.fd = events_->fd(), .events = POLLIN});
  fds.insert(fds.end(), others.begin(), others.end());
  ++sleeps_;
  const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
  if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll on the event channel");
  for (size_t i = 0; i < others.size(); ++i) {
    others[i].revents = ready > 0 ? fds[i + 1].revents : short{0};
  }
  if (ready > 0 && fds[0].revents != 0) woken_ = true;
  return absl::OkStatus();
}

}  // namespace vmsg::frontend
