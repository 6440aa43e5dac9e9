// SPDX-License-Identifier: Apache-2.0
// The frontend's bus without a backend, and with the next one (docs/binding.md, section 7).
#include <poll.h>

#include <cerrno>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "frontend-model/bus/frontend_bus.h"

namespace vmsg::frontend {

Clock::duration FrontendBus::paused() const {
  return lost() ? paused_ + (Clock::now() - lost_since_) : paused_;
}

void FrontendBus::Lose(absl::Status reason) {
  if (recovery_ == nullptr) return Fail(std::move(reason));
  if (!failure_.ok() || lost() || reason.ok()) return;
  // What tells a request that was lost from one that was refused.
  lost_ = absl::UnavailableError(reason.message());
  ++losses_;
  lost_since_ = Clock::now();
  restore_window_ = false;
  avail_backlog_.clear();
  ping_backlog_.clear();
  for (const auto& [number, device] : devices_) device->OnLost();
  DropRequests(lost_);
}

void FrontendBus::Unmapped() {
  for (const auto& [number, device] : devices_) device->OnUnmapped();
}

void FrontendBus::Restored(RingTerms terms, grants::EventPort port) {
  if (!lost()) return;
  link_.Restart(terms, port);
  paused_ += Clock::now() - lost_since_;
  lost_ = absl::OkStatus();
  restore_window_ = resume_wanted_ = true;
}

absl::StatusOr<bool> FrontendBus::Turn() {
  if (!failure_.ok()) return failure_;
  // What is resumed now begins again with the next backend.
  if (lost() && resuming_) return lost_;
  if (lost()) {
    absl::StatusOr<bool> back = recovery_->Recover();
    if (!back.ok()) Fail(back.status());
  }
  if (failure_.ok() && !lost() && resume_wanted_ && !resuming_) {
    resuming_ = true;
    absl::Status status = ResumeAll();
    resuming_ = restoring_ = false;
    if (!status.ok() && !lost()) Fail(status);
  }
  return Poll();
}

absl::Status FrontendBus::ResumeAll() {
  resume_wanted_ = false;
  restoring_ = std::exchange(restore_window_, false);
  if (restoring_) {
    if (absl::Status status = recovery_->RestoreWindow(); !status.ok()) return status;
  }
  // By number: a device may come or go meanwhile.
  std::vector<uint16_t> numbers;
  for (const auto& [number, device] : devices_) numbers.push_back(number);
  for (const uint16_t number : numbers) {
    const auto device = devices_.find(number);
    if (device == devices_.end() || !device->second->WantsResume()) continue;
    if (absl::Status status = device->second->Resume(); !status.ok()) return status;
  }
  if (restoring_) {
    std::vector<uint16_t> absent;
    for (const auto& [number, device] : devices_) {
      if (device->IsAbsent()) absent.push_back(number);
    }
    recovery_->OnRestored(absent);
  }
  return absl::OkStatus();
}

absl::Status FrontendBus::SleepWithoutBackend(int timeout_ms) {
  absl::InlinedVector<pollfd, 4> fds;
  for (const FdSource& source : fds_) fds.push_back({.fd = source.fd, .events = POLLIN});
  const int ready = ::poll(fds.data(), fds.size(), timeout_ms);
  if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll without a backend");
  return ready > 0 ? RunFds(std::span(fds.data(), fds.size())) : absl::OkStatus();
}

}  // namespace vmsg::frontend
