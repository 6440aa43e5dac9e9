// SPDX-License-Identifier: Apache-2.0
// --trace: every message of every bus goes to a capture, written by a thread of its own. A disk
// that is slow, full or hung costs messages of the trace, and nobody else anything.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "backend/service/trace/capture_file.h"

namespace vmsg::backend {

// Bytes that wait for the disk; what comes beyond is left out and counted.
inline constexpr size_t kMaxTraceBacklog = size_t{4} << 20;

// Thread-safe where it says so.
class Trace {
 public:
  Trace();
  // What waits is written, but a disk that does not answer is not waited for.
  ~Trace();

  // From now on the trace goes to this file: a new one, unless it is the one that is written
  // already. An empty path ends it. When the new file cannot be made the old one is kept, and the
  // error says why. Waits for the file at most `patience`; one that takes longer is made when the
  // disk answers, and the log says what became of it.
  absl::Status Use(const TraceSettings& settings, absl::Duration patience);

  // Thread-safe, and never waits.
  bool on() const;
  void Write(uint16_t frontend, uint32_t bus, bool from_driver, std::span<const std::byte> message);

  // For tests: the writer's next look at the queue waits until this returns.
  void BeforeWriting(absl::AnyInvocable<void()> hold);

 private:
  struct Shared;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace vmsg::backend
