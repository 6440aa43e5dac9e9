// SPDX-License-Identifier: Apache-2.0
// A disk of a bus for many threads: one thread runs the bus, the others hand it requests and wait.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/drivers/blk_driver.h"
#include "grants/platform.h"

namespace vmsg::nbd {

struct PumpOptions {
  std::string xen;
  frontend::ConnectOptions connect;
  std::optional<uint16_t> device;  // otherwise the first block device
};

class DiskPump {
 public:
  // Requests at once; each has a buffer in the window.
  static constexpr uint32_t kMaxRequests = 16;

  // Connects, starts the disk and the thread.
  static absl::StatusOr<std::unique_ptr<DiskPump>> Start(const PumpOptions& options);
  // Ends the thread and closes the bus. No request may be waiting.
  ~DiskPump();

  // As they were at the start.
  const frontend::BlkLimits& limits() const { return limits_; }
  // Now: a disk may be resized.
  uint64_t capacity() const { return capacity_.load(std::memory_order_relaxed); }
  // From any thread: requests end with an error from here on, also when no backend answers.
  void Stop();
  // The disk was removed, or its bus has failed for good: Start another one.
  bool dead() const;

  // From any thread; each waits for its end. Sizes and offsets in bytes, multiples of 512.
  absl::Status Read(uint64_t offset, std::span<std::byte> out);
  absl::Status Write(uint64_t offset, std::span<const std::byte> data);
  absl::Status Flush();

 private:
  enum class Kind { kRead, kWrite, kFlush };
  struct Job {
    Kind kind;
    uint32_t buffer;  // its own, and so its number among the requests in flight
    uint64_t offset;
    uint64_t address;
    uint32_t size;
    bool done = false;
    absl::Status result;
  };
  class Completions;

  explicit DiskPump(const PumpOptions& options);
  absl::Status Open();
  absl::Status RunJob(Job& job);
  uint32_t TakeBuffer();
  void GiveBuffer(uint32_t index);
  void Loop();
  // On the pump's thread: hands new jobs to the driver.
  void SubmitQueued();
  void Finish(Job* job, absl::Status result);

  const PumpOptions options_;
  std::unique_ptr<grants::Platform> platform_;
  std::unique_ptr<frontend::BusConnection> connection_;
  std::unique_ptr<frontend::BlkDriver> disk_;
  std::unique_ptr<Completions> completions_;
  frontend::BlkLimits limits_;
  std::atomic<uint64_t> capacity_ = 0;
  uint32_t buffer_size_ = 0;
  std::vector<frontend::GuestBlock> buffers_;
  int wake_fd_ = -1;
  std::thread thread_;
  // The pump's own.
  std::vector<Job*> taken_;
  std::array<Job*, kMaxRequests> in_flight_{};  // by buffer

  mutable absl::Mutex mutex_;
  std::vector<Job*> queued_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_buffers_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool dead_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status death_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace vmsg::nbd
