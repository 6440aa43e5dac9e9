// SPDX-License-Identifier: Apache-2.0
// Asks Xen itself, now and then, which guests still live, so that a lost watch event cannot leave a
// dead guest mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/runtime/event_loop.h"
#include "backend/session/worker_pool.h"
#include "grants/domain_list.h"

namespace vmsg::backend {

// Belongs to the thread of `loop`; Xen is asked on a worker, one question at a time.
class DomainCheck {
 public:
  struct Parts {
    EventLoop* loop = nullptr;
    WorkerPool* workers = nullptr;  // ends before the check does
    // Not OK: why Xen cannot be asked here; then nothing is ever reported.
    absl::StatusOr<std::unique_ptr<grants::DomainList>> domains = absl::CancelledError();
    absl::Duration interval;  // zero: only when Now is called
    absl::AnyInvocable<std::vector<uint16_t>()> guests;
    absl::AnyInvocable<std::string(uint16_t)> label;  // of a guest, for the log
    // One of `guests` is gone or dying. May come again as long as it is one of them.
    absl::AnyInvocable<void(uint16_t)> ended;
  };
  explicit DomainCheck(Parts parts);
  ~DomainCheck();

  // Whether there is anybody to look after: without guests, no timer runs.
  void SetNeeded(bool needed);
  void Now();

 private:
  void Arm();
  void OnAnswer(const std::vector<uint16_t>& asked,
                const absl::StatusOr<std::vector<grants::DomainInfo>>& domains);
  void Judge(uint16_t guest, const std::vector<grants::DomainInfo>& domains);

  Parts parts_;
  std::shared_ptr<grants::DomainList> domains_;  // null: cannot be asked
  bool needed_ = false;
  bool asking_ = false;
  bool again_ = false;                   // asked for while a question was out
  bool failing_ = false;                 // said in the log already
  absl::btree_set<uint16_t> shut_down_;  // those that the log says are
  EventLoop::TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace vmsg::backend
