// SPDX-License-Identifier: Apache-2.0
// Asynchronous file I/O for the devices of one I/O thread. Nothing is allocated for an operation:
// the caller owns a FileOperation, inside whatever tracks its request, and lends it until `done`.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/runtime/event_loop.h"

namespace vmsg::backend {

// An operation's memory. From start to `done` it and the iovec array stay where they are and belong
// to the AsyncFileIo, which also changes the iovecs when it continues a short transfer. `done` may
// start the operation again.
struct FileOperation {
  // Runs on the I/O thread, never from within Readv, Writev or Sync. `result`: the bytes that were
  // transferred, or a negative errno.
  using Done = void (*)(FileOperation* operation, int64_t result);
  Done done = nullptr;

  // The rest is the AsyncFileIo's own.
  enum class Kind : uint8_t { kRead, kWrite, kSync };
  Kind kind = Kind::kRead;
  bool dsync = false;   // kWrite: stable when done; kSync: data only
  uint8_t retries = 0;  // in a row, without progress
  int fd = -1;          // open until `done`
  iovec* pieces = nullptr;
  uint32_t piece_count = 0;
  uint64_t offset = 0;
  int64_t transferred = 0;
  bool withdrawn = false;
  FileOperation* next = nullptr;
  FileOperation* previous = nullptr;
  FileOperation* part = nullptr;  // what of it is at work, in a layer below
};

// What is told once after each batch of completions, so that a batch costs one notification.
class BatchListener {
 public:
  virtual ~BatchListener() = default;
  virtual void OnBatchEnd() = 0;
};

// Single-threaded: every call and every callback is on the I/O thread. Operations must have ended
// before it is destroyed, or it waits for them (and calls nothing).
class AsyncFileIo {
 public:
  virtual ~AsyncFileIo() = default;

  // Reads or writes all pieces at `offset`. A short transfer is continued; fewer bytes are reported
  // only at the end of the file. Interrupted operations are started again. A write with `dsync` is
  // on stable storage when it is done; one without is after a later Sync.
  void Readv(FileOperation* operation, int fd, iovec* pieces, uint32_t piece_count,
             uint64_t offset) {
    Begin(operation, FileOperation::Kind::kRead, false, fd, pieces, piece_count, offset);
  }
  void Writev(FileOperation* operation, int fd, iovec* pieces, uint32_t piece_count,
              uint64_t offset, bool dsync) {
    Begin(operation, FileOperation::Kind::kWrite, dsync, fd, pieces, piece_count, offset);
  }
  // All writes that were done before are on stable storage when this is. `data_only`: fdatasync.
  void Sync(FileOperation* operation, int fd, bool data_only) {
    Begin(operation, FileOperation::Kind::kSync, data_only, fd, nullptr, 0, 0);
  }

  // Nobody waits for the operation any more: no further part of it begins. True: none is at work
  // either, it has ended and `done` is not called. False: `done` comes when what is at work has
  // ended, with ECANCELED where something was left.
  virtual bool Withdraw(FileOperation* operation) = 0;

  // Whether transfers go through memory of our own, so that a caller's buffers need no alignment,
  // wherever they lie and however they are cut.
  virtual bool copies() const { return false; }

  // Gives what was started to the kernel: once per turn, after a batch. Nothing started gets lost
  // without it, but it may wait.
  virtual void Submit() = 0;

  // Calls listener->OnBatchEnd() once, after the present batch of completions (or the next one).
  virtual void NotifyAtBatchEnd(BatchListener* listener) = 0;
  virtual void ForgetBatchListener(BatchListener* listener) = 0;

 protected:
  // It says what is wanted, and nothing of it is done.
  virtual void Start(FileOperation* operation) = 0;

 private:
  void Begin(FileOperation* operation, FileOperation::Kind kind, bool dsync, int fd, iovec* pieces,
             uint32_t piece_count, uint64_t offset) {
    operation->kind = kind;
    operation->dsync = dsync;
    operation->retries = 0;
    operation->fd = fd;
    operation->pieces = pieces;
    operation->piece_count = piece_count;
    operation->offset = offset;
    operation->transferred = 0;
    operation->withdrawn = false;
    operation->part = nullptr;
    Start(operation);
  }
};

// On io_uring. The loop must outlive it; the thread that first starts an operation is its thread
// from then on. Unavailable: the kernel gives no io_uring (too old, or forbidden by
// kernel.io_uring_disabled or a seccomp filter); the message says which. `keeps`: a descriptor
// whose file description stays as long as the kernel works on a request, even when this process was
// killed meanwhile and is gone; -1: none.
absl::StatusOr<std::unique_ptr<AsyncFileIo>> NewUringFileIo(EventLoop* loop, int keeps = -1);

// What one guest may have at work at once. More waits its turn; nothing fails for it.
struct GuestIoLimits {
  static constexpr uint64_t kBytes = 64 << 20;
  static constexpr uint64_t kBytesOfPart = 4 << 20;
  // While transfers are copied: the memory that it takes.
  static constexpr uint64_t kBouncedBytes = 8 << 20;
  static constexpr uint64_t kBouncedBytesOfPart = 1 << 20;
  // Memory that nothing went through for so long goes back to the system.
  static constexpr absl::Duration kIdle = absl::Seconds(2);
};

// One guest's share of `disk`, which is its thread's. Large transfers go in parts, and what waits
// begins in order. `bounce`: data go through memory of our own and no request names the guest's
// pages. On a PV Dom0 that must be so: when a process ends while the kernel reads or writes pages
// of a grant, the kernel is damaged (docs/operations.md, "Copying on a PV Dom0").
// ResourceExhausted: no address space for that memory.
absl::StatusOr<std::unique_ptr<AsyncFileIo>> NewGuestFileIo(AsyncFileIo* disk, EventLoop* loop,
                                                            bool bounce);

}  // namespace vmsg::backend
