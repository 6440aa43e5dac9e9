// SPDX-License-Identifier: Apache-2.0
// What a client has still to be sent: answers and watch events, in order.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_set>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace vmsg::emu::store {

class OutputQueue {
 public:
  void AddReply(std::string message);
  // Watch events. `coalesce`: not queued again while an equal one waits of which nothing was sent.
  void AddEvent(std::string message, bool coalesce);

  bool empty() const { return messages_.empty(); }
  size_t bytes() const { return bytes_; }              // not sent yet
  size_t event_bytes() const { return event_bytes_; }  // of messages that are events

  // Pieces to send next, at most pieces.size(); returns how many were filled in. They stay valid
  // until Sent.
  size_t Gather(absl::Span<absl::string_view> pieces) const;
  void Sent(size_t bytes);

 private:
  struct Entry {
    std::string message;
    bool is_event;
  };

  void ForgetFront();

  std::deque<Entry> messages_;
  size_t front_sent_ = 0;
  size_t bytes_ = 0;
  size_t event_bytes_ = 0;
  std::unordered_set<std::string_view> waiting_;  // events, in messages_
};

}  // namespace vmsg::emu::store
