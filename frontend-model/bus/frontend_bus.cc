// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/frontend_bus.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"

namespace vmsg::frontend {
namespace {

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

FrontendBus::FrontendBus(RingMemory memory, RingTerms terms, grants::EventChannels* events,
                         grants::EventPort port)
    : link_(memory, terms, events, port) {}

FrontendBus::Pending* FrontendBus::Reserve(uint16_t dev_num, wire::MessageId id,
                                           ResponseHandler handler) {
  for (size_t tried = 0; tried < kMaxOutstanding; ++tried) {
    const uint32_t index = next_slot_++ % kMaxOutstanding;
    Pending& slot = pending_[index];
    if (slot.used) continue;
    slot.used = true;
    slot.dev_num = dev_num;
    slot.id = id;
    // A late response to a cancelled request must not be taken for this one's.
    slot.token = static_cast<uint16_t>(generation_++ * kMaxOutstanding + index);
    slot.handler = std::move(handler);
    return &slot;
  }
  return nullptr;
}

void FrontendBus::Cancel(RequestToken token) {
  Pending& slot = pending_[token % kMaxOutstanding];
  if (!slot.used || slot.token != token) return;
  slot.used = false;
  slot.handler = nullptr;
}

absl::StatusOr<wire::Message> FrontendBus::AwaitResponse(
    absl::FunctionRef<absl::StatusOr<RequestToken>(ResponseHandler)> send, wire::MessageId id,
    Deadline deadline) {
  // Behind one pointer, which a handler holds without memory of its own.
  struct Answer {
    std::span<std::byte> payload;
    absl::StatusOr<wire::Message> message = wire::Message();
    bool here = false;
  };
  // What is resumed asks while somebody else's answer may just have come.
  Answer answer{.payload = call_payloads_[resuming_ ? 1 : 0]};
  const auto handler = [to = &answer](absl::StatusOr<wire::Message> message) {
    to->here = true;
    to->message = std::move(message);
    if (!to->message.ok()) return;
    const std::span<const std::byte> payload = to->message->payload;
    std::memcpy(to->payload.data(), payload.data(), payload.size());
    to->message->payload = to->payload.first(payload.size());
  };
  absl::StatusOr<RequestToken> token = send(handler);
  const Clock::duration paused_before = paused();
  if (absl::IsResourceExhausted(token.status())) {
    absl::Status waited = WaitUntil(
        [&] {
          token = send(handler);
          return !absl::IsResourceExhausted(token.status());
        },
        deadline);
    if (!waited.ok()) return waited;
  }
  if (!token.ok()) return token.status();
  if (deadline != Deadline::max()) deadline += paused() - paused_before;
  absl::Status waited = WaitUntil([&] { return answer.here; }, deadline);
  if (answer.here) return std::move(answer.message);
  Cancel(*token);
  if (!absl::IsDeadlineExceeded(waited)) return waited;
  return absl::DeadlineExceededError(
      absl::StrCat("no response to message 0x", absl::Hex(static_cast<uint16_t>(id)),
                   " in time: the backend hangs, or takes longer than the deadline allows"));
}

absl::StatusOr<bool> FrontendBus::PushAvail(const PendingAvail& avail) {
  std::array<std::byte, wire::kHeaderSize + 8> record;
  absl::StatusOr<size_t> size =
      wire::Encode(profile_, {.dev_num = avail.dev_num, .token = 0},
                   wire::EventAvail{.vq_index = avail.queue, .next_offset = avail.next_offset},
                   record, link_.max_message_size());
  if (!size.ok()) return size.status();
  return link_.Push(std::span(record).first(*size));
}

absl::Status FrontendBus::SendAvail(uint16_t dev_num, uint32_t queue, uint32_t next_offset) {
  if (!failure_.ok()) return failure_;
  if (lost()) return absl::OkStatus();  // whoever comes next looks at all queues
  const PendingAvail avail = {dev_num, queue, next_offset};
  for (PendingAvail& waiting : avail_backlog_) {
    if (waiting.dev_num != dev_num || waiting.queue != queue) continue;
    waiting.next_offset = next_offset;
    return absl::OkStatus();
  }
  if (avail_backlog_.empty()) {
    absl::StatusOr<bool> pushed = PushAvail(avail);
    if (!pushed.ok()) return pushed.status();
    if (*pushed) return absl::OkStatus();
  }
  avail_backlog_.push_back(avail);
  return absl::OkStatus();
}

absl::Status FrontendBus::SendBacklog() {
  auto avail = avail_backlog_.begin();
  for (; avail != avail_backlog_.end(); ++avail) {
    absl::StatusOr<bool> pushed = PushAvail(*avail);
    if (!pushed.ok()) return pushed.status();
    if (!*pushed) break;
  }
  avail_backlog_.erase(avail_backlog_.begin(), avail);
  auto ping = ping_backlog_.begin();
  for (; ping != ping_backlog_.end(); ++ping) {
    absl::StatusOr<size_t> size =
        wire::Encode(profile_, {.dev_num = 0, .token = ping->first},
                     wire::PingResponse{ping->second}, scratch_, link_.max_message_size());
    if (!size.ok()) return size.status();
    absl::StatusOr<bool> pushed = link_.Push(std::span(scratch_).first(*size));
    if (!pushed.ok()) return pushed.status();
    if (!*pushed) break;
  }
  ping_backlog_.erase(ping_backlog_.begin(), ping);
  return absl::OkStatus();
}

absl::StatusOr<bool> FrontendBus::PollRing() {
  if (!link_.HasMore()) return false;
  int records = 0;
  while (records < kMaxRecordsPerPoll) {
    absl::StatusOr<std::optional<std::span<const std::byte>>> record = link_.Pop();
    if (!record.ok()) return record.status();
    if (!record->has_value()) break;
    ++records;
    if (!tap_ || !tap_(**record)) Dispatch(**record);
  }
  if (absl::Status status = link_.Release(); !status.ok()) return status;
  return records > 0;
}

absl::StatusOr<bool> FrontendBus::Poll() {
  if (!failure_.ok()) return failure_;
  absl::StatusOr<bool> worked = false;
  if (!lost()) worked = PollRing();
  absl::Status status = worked.status();
  bool any = worked.ok() && *worked;
  // By index: a source's callbacks may add or remove sources.
  for (size_t i = 0; status.ok() && i < sources_.size(); ++i) any |= sources_[i]->Poll();
  if (lost()) return failure_.ok() ? absl::StatusOr<bool>(any) : failure_;
  if (status.ok() && (!avail_backlog_.empty() || !ping_backlog_.empty())) status = SendBacklog();
  if (status.ok()) status = Flush();
  if (!status.ok()) Fail(status);
  if (!failure_.ok()) return failure_;
  return any;
}

absl::Status FrontendBus::Flush() {
  if (!failure_.ok()) return failure_;
  return lost() ? absl::OkStatus() : link_.Flush();
}

void FrontendBus::Fail(absl::Status reason) {
  if (!failure_.ok() || reason.ok()) return;
  failure_ = std::move(reason);
  DropRequests(failure_);
}

void FrontendBus::DropRequests(const absl::Status& reason) {
  for (Pending& slot : pending_) {
    if (!slot.used) continue;
    slot.used = false;
    ResponseHandler handler = std::exchange(slot.handler, nullptr);
    handler(reason);
  }
}

absl::StatusOr<bool> FrontendBus::PrepareToSleep() {
  absl::StatusOr<bool> more = link_.Arm();
  if (!more.ok() || *more) return more;
  bool any = false;
  for (size_t i = 0; i < sources_.size(); ++i) any |= sources_[i]->PrepareToSleep();
  return any;
}

absl::Status FrontendBus::Sleep(int timeout_ms) {
  absl::InlinedVector<pollfd, 4> fds;
  for (const FdSource& source : fds_) fds.push_back({.fd = source.fd, .events = POLLIN});
  absl::Status slept = link_.Sleep(timeout_ms, std::span(fds.data(), fds.size()));
  return slept.ok() ? RunFds(std::span(fds.data(), fds.size())) : slept;
}

absl::Status FrontendBus::RunFds(std::span<const pollfd> fds) {
  for (const pollfd& ready : fds) {
    if (ready.revents == 0) continue;
    // Found anew each time, and taken out while it runs: it may add and remove descriptors, itself
    // too.
    const auto source = FindFd(ready.fd);
    if (source == fds_.end()) continue;
    absl::AnyInvocable<absl::Status()> on_readable = std::move(source->on_readable);
    absl::Status status = on_readable();
    const auto after = FindFd(ready.fd);
    if (after != fds_.end() && !after->on_readable) after->on_readable = std::move(on_readable);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FrontendBus::WaitUntil(absl::FunctionRef<bool()> done, Deadline deadline) {
  constexpr int kLooksPerClockRead = 32;
  const Clock::duration paused_before = paused();
  Deadline idle_since;  // none yet: taken at the next clock reading
  for (int looks = 1;; ++looks) {
    const uint64_t losses_before = losses_;
    absl::StatusOr<bool> worked = Turn();
    if (done()) return absl::OkStatus();
    if (!worked.ok()) return worked.status();
    if (*worked) {
      idle_since = Deadline();
      continue;
    }
    if (lost()) {
      // One that was lost in this turn has a recovery that has not looked yet.
      if (losses_ != losses_before) continue;
      absl::Status slept = SleepWithoutBackend(PollTimeout(recovery_->deadline()));
      if (!slept.ok()) Fail(slept);
      idle_since = Deadline();
      continue;
    }
    if (spin_budget_ > Clock::duration::zero() && looks % kLooksPerClockRead != 0) {
      Relax();
      continue;
    }
    if (spin_budget_ > Clock::duration::zero()) sched_yield();  // to a backend on this processor
    const Deadline now = Clock::now();
    if (idle_since == Deadline()) idle_since = now;
    const Clock::duration later = paused() - paused_before;
    if (deadline != Deadline::max() && now >= deadline + later) {
      return absl::DeadlineExceededError("nothing came in time");
    }
    if (now - idle_since < spin_budget_) continue;
    absl::StatusOr<bool> more = PrepareToSleep();
    // done() may have submitted: nothing may wait unsent while we sleep.
    if (more.ok() && !*more) more = Poll();
    absl::Status slept = more.status();
    if (more.ok() && !*more) {
      slept = Sleep(PollTimeout(deadline == Deadline::max() ? deadline : deadline + later, now));
    }
    if (!slept.ok()) {
      Fail(slept);
      continue;  // Poll reports it, after done() had its chance
    }
    // Spin only where spinning would have caught it: a wait that was long is slept through.
    const Deadline woke = Clock::now();
    spin_budget_ = woke - idle_since <= 2 * max_spin_ ? max_spin_ : spin_budget_ / 2;
    idle_since = woke;
  }
}

void FrontendBus::SetDeviceEvents(uint16_t dev_num, DeviceEvents* events) {
  if (events == nullptr) {
    devices_.erase(dev_num);
  } else {
    devices_[dev_num] = events;
  }
}

void FrontendBus::SetBusStateListener(absl::AnyInvocable<void(const wire::EventDevice&)> listener) {
  bus_state_listener_ = std::move(listener);
}

void FrontendBus::SetRecordTap(absl::AnyInvocable<bool(std::span<const std::byte>)> tap) {
  tap_ = std::move(tap);
}

void FrontendBus::AddPollSource(PollSource* source) { sources_.push_back(source); }

void FrontendBus::RemovePollSource(PollSource* source) {
  sources_.erase(std::remove(sources_.begin(), sources_.end(), source), sources_.end());
}

void FrontendBus::AddFd(int fd, absl::AnyInvocable<absl::Status()> on_readable) {
  fds_.push_back({fd, std::move(on_readable)});
}

std::vector<FrontendBus::FdSource>::iterator FrontendBus::FindFd(int fd) {
  return std::find_if(fds_.begin(), fds_.end(),
                      [fd](const FdSource& source) { return source.fd == fd; });
}

void FrontendBus::RemoveFd(int fd) {
  const auto source = FindFd(fd);
  if (source != fds_.end()) fds_.erase(source);
}

}  // namespace vmsg::frontend
