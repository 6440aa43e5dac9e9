// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/store/wire/output_queue.h"

#include <algorithm>
#include <utility>

namespace vmsg::emu::store {

void OutputQueue::AddReply(std::string message) {
  bytes_ += message.size();
  messages_.push_back({std::move(message), false});
}

void OutputQueue::AddEvent(std::string message, bool coalesce) {
  if (coalesce && waiting_.contains(message)) return;
  bytes_ += message.size();
  event_bytes_ += message.size();
  messages_.push_back({std::move(message), true});
  if (coalesce) waiting_.insert(messages_.back().message);
}

size_t OutputQueue::Gather(absl::Span<absl::string_view> pieces) const {
  size_t count = std::min(pieces.size(), messages_.size());
  for (size_t i = 0; i < count; ++i) pieces[i] = messages_[i].message;
  if (count > 0) pieces[0].remove_prefix(front_sent_);
  return count;
}

void OutputQueue::ForgetFront() {
  const Entry& front = messages_.front();
  if (!front.is_event) return;
  auto it = waiting_.find(front.message);
  // An equal event may wait behind it; only this one's own place is given up.
  if (it != waiting_.end() && it->data() == front.message.data()) waiting_.erase(it);
}

void OutputQueue::Sent(size_t bytes) {
  bytes_ -= bytes;
  while (bytes > 0) {
    if (front_sent_ == 0) ForgetFront();
    const size_t left = messages_.front().message.size() - front_sent_;
    if (bytes < left) {
      front_sent_ += bytes;
      return;
    }
    bytes -= left;
    front_sent_ = 0;
    if (messages_.front().is_event) event_bytes_ -= messages_.front().message.size();
    messages_.pop_front();
  }
}

}  // namespace vmsg::emu::store
