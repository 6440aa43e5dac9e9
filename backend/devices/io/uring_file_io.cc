// SPDX-License-Identifier: Apache-2.0
#include <liburing.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/async_file_io.h"
#include "backend/devices/io/batch_listeners.h"
#include "backend/devices/unique_fd.h"

namespace vmsg::backend {
namespace {

constexpr unsigned kSubmissionEntries = 256;
// In flight at most; what is beyond waits in a list that runs through the operations themselves.
constexpr unsigned kCompletionEntries = 4096;
constexpr unsigned kReapBatch = 64;
// An operation that keeps getting EAGAIN or EINTR without moving a byte ends with that error.
constexpr uint8_t kMaxRetries = 100;

// First choice: task work runs when we ask for it, not whenever the kernel interrupts us.
constexpr unsigned kPreferredFlags = IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED |
                                     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                     IORING_SETUP_TASKRUN_FLAG;
constexpr unsigned kSecondFlags = IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED |
                                  IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
constexpr uint8_t kAllowedOperations[] = {IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE,
                                          IORING_OP_WRITEV, IORING_OP_FSYNC};
// The kernel copies what is in the page cache within the system call that submits, and pins the
// pages of direct I/O there. What is larger is left to a thread of the kernel's own.
constexpr uint64_t kMaxBytesInSubmit = uint64_t{1} << 20;
// The kernel's threads are few and serve all guests of a ring in turn. So it gets this much of an
// operation at once, and the rest behind what others have started meanwhile.
constexpr uint64_t kMaxBytesAtOnce = uint64_t{4} << 20;
// What a batch of completions moved. A listener that copies it on keeps the others of the thread
// waiting meanwhile.
constexpr int64_t kMaxBytesInBatch = int64_t{8} << 20;
constexpr unsigned kPlainFlags = IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED;

class UringFileIo final : public AsyncFileIo, public Poller {
 public:
  explicit UringFileIo(EventLoop* loop) : loop_(loop) {}

  ~UringFileIo() override {
    if (!initialised_) return;
    if (started_) {
      loop_->RemovePoller(this);
      loop_->Unwatch(event_fd_.get());
    }
    // The kernel may still write to the buffers of operations in flight.
    abandoned_ = true;
    while (in_kernel_ > 0) {
      const int code = io_uring_submit_and_wait(&ring_, 1);
      if (code < 0 && code != -EINTR && code != -EAGAIN && code != -EBUSY) break;
      Reap();
    }
    io_uring_queue_exit(&ring_);
  }

  absl::Status Init(int keeps) {
    int error = 0;
    for (const unsigned flags : {kPreferredFlags, kSecondFlags, kPlainFlags}) {
      io_uring_params params = {};
      params.flags = flags;
      params.cq_entries = kCompletionEntries;
      error = -io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
      if (error == 0) break;
      if (error != EINVAL) break;
    }
    if (error != 0) {
      return absl::UnavailableError(absl::StrCat(
          "io_uring is not available: ", std::strerror(error),
          error == EPERM ? " (see kernel.io_uring_disabled and the seccomp filter)" : ""));
    }
    initialised_ = true;
    // A seccomp filter does not see what goes through a ring, so the ring has a limit of its own.
    // Kernels before 5.10 know none.
    io_uring_restriction allowed[std::size(kAllowedOperations) + 1] = {};
    for (size_t i = 0; i < std::size(kAllowedOperations); ++i) {
      allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
      allowed[i].sqe_op = kAllowedOperations[i];
    }
    std::end(allowed)[-1].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    std::end(allowed)[-1].sqe_flags = IOSQE_ASYNC;
    // liburing 2.3 declares a function for it and does not export it.
    if (syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_RESTRICTIONS, allowed,
                std::size(allowed)) < 0 &&
        errno != EINVAL) {
      return absl::UnavailableError(
          absl::StrCat("io_uring refuses to be restricted: ", std::strerror(errno)));
    }
    if (keeps >= 0 && io_uring_register_files(&ring_, &keeps, 1) < 0) {
      return absl::UnavailableError("io_uring refuses a file that it is to keep");
    }
    event_fd_ = UniqueFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!event_fd_) return absl::ResourceExhaustedError("no eventfd: too many open files");
    if (const int code = io_uring_register_eventfd(&ring_, event_fd_.get()); code < 0) {
      return absl::UnavailableError(
          absl::StrCat("io_uring refuses an eventfd: ", std::strerror(-code)));
    }
    return absl::OkStatus();
  }

  // What is in the kernel ends there, without another part. What waits here ends when it would have
  // been given to the kernel.
  bool Withdraw(FileOperation* operation) override {
    operation->withdrawn = true;
    loop_->Activate(this);
    return false;
  }

  void Submit() override {
    FillSubmissionQueue();
    if (unsubmitted_ == 0) return;
    // The loop looks for completions before it sleeps.
    StopAnnouncements();
    // What ended at once is in the completion queue afterwards, without another call.
    const int submitted = io_uring_submit_and_get_events(&ring_);
    // EAGAIN, EBUSY, EINTR: the entries stay in the ring; Poll tries again.
    if (submitted > 0) unsubmitted_ -= std::min<unsigned>(submitted, unsubmitted_);
    loop_->Activate(this);
  }

  bool Poll() override {
    if (unsubmitted_ > 0 || backlog_ != nullptr) Submit();
    return Reap();
  }

  bool PrepareToSleep() override {
    if (!armed_) {
      armed_ = true;
      AnnounceCompletions(true);
    }
    const bool work = io_uring_cq_ready(&ring_) > 0 || TaskWorkPending() || unsubmitted_ > 0 ||
                      withdrawn_ != nullptr;
    if (work) loop_->Activate(this);
    return work;
  }

  // Whether something is in the kernel or not: nothing else comes from here.
  bool AwaitsStorage() const override { return true; }

  void NotifyAtBatchEnd(BatchListener* listener) override {
    listeners_.Add(listener);
    if (reaping_) return;
    EnsureStarted();
    loop_->Activate(this);
  }
  void ForgetBatchListener(BatchListener* listener) override { listeners_.Remove(listener); }

 private:
  void Start(FileOperation* operation) override { Enqueue(operation); }

  void Enqueue(FileOperation* operation) {
    operation->next = nullptr;
    if (backlog_ == nullptr) {
      backlog_ = operation;
    } else {
      backlog_tail_->next = operation;
    }
    backlog_tail_ = operation;
  }

  // The ring is enabled, and with that bound to a thread, by the first thread that uses it: it may
  // have been made before the I/O thread ran.
  void EnsureStarted() {
    if (started_) return;
    started_ = true;
    // liburing 2.3 declares io_uring_enable_rings and does not export it.
    syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    AnnounceCompletions(true);
    loop_->AddPoller(this);
    (void)loop_->Watch(event_fd_.get(), EPOLLIN, [this](uint32_t) {
      loop_->Activate(this);
      Poll();
      // Last, so that what completed before Poll stopped the announcements does not wake us again.
      // Nothing is lost: before we sleep, PrepareToSleep looks at the completion queue.
      eventfd_t ignored;
      (void)eventfd_read(event_fd_.get(), &ignored);
    });
  }

  void StopAnnouncements() {
    if (std::exchange(armed_, false)) AnnounceCompletions(false);
  }

  // Whether completions write to the eventfd. A full barrier: the flag must be visible before the
  // completion queue is looked at once more. Kernels before 5.8 have no flag and always write.
  void AnnounceCompletions(bool on) {
    if (ring_.cq.kflags == nullptr) return;
    std::atomic_ref<unsigned> flags(*ring_.cq.kflags);
    if (on) {
      flags.fetch_and(~unsigned{IORING_CQ_EVENTFD_DISABLED}, std::memory_order_seq_cst);
    } else {
      flags.fetch_or(IORING_CQ_EVENTFD_DISABLED, std::memory_order_relaxed);
    }
  }

  void FillSubmissionQueue() {
    if (backlog_ != nullptr) EnsureStarted();
    while (backlog_ != nullptr && in_kernel_ < kCompletionEntries) {
      if (backlog_->withdrawn) {
        FileOperation* const operation = std::exchange(backlog_, backlog_->next);
        operation->next = std::exchange(withdrawn_, operation);
        continue;
      }
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (sqe == nullptr) {
        const int submitted = io_uring_submit(&ring_);
        if (submitted <= 0) return;
        unsubmitted_ -= std::min<unsigned>(submitted, unsubmitted_);
        continue;
      }
      FileOperation* operation = std::exchange(backlog_, backlog_->next);
      Prepare(sqe, operation);
      io_uring_sqe_set_data(sqe, operation);
      ++in_kernel_;
      ++unsubmitted_;
    }
  }

  static void Prepare(io_uring_sqe* sqe, FileOperation* operation) {
    const int fd = operation->fd;
    const iovec* const pieces = operation->pieces;
    const unsigned most = std::min<uint32_t>(operation->piece_count, IOV_MAX);
    unsigned count = 0;
    uint64_t bytes = 0;
    while (count < most && (count == 0 || bytes + pieces[count].iov_len <= kMaxBytesAtOnce)) {
      bytes += pieces[count++].iov_len;
    }
    bytes = std::min(bytes, kMaxBytesAtOnce);
    switch (operation->kind) {
      case FileOperation::Kind::kRead:
        // One piece needs no vector for the kernel to copy in.
        if (count == 1) {
          io_uring_prep_read(sqe, fd, pieces->iov_base, bytes, operation->offset);
        } else {
          io_uring_prep_readv(sqe, fd, pieces, count, operation->offset);
        }
        break;
      case FileOperation::Kind::kWrite:
        if (count == 1) {
          io_uring_prep_write(sqe, fd, pieces->iov_base, bytes, operation->offset);
        } else {
          io_uring_prep_writev(sqe, fd, pieces, count, operation->offset);
        }
        sqe->rw_flags = operation->dsync ? RWF_DSYNC : 0;
        break;
      case FileOperation::Kind::kSync:
        io_uring_prep_fsync(sqe, fd, operation->dsync ? IORING_FSYNC_DATASYNC : 0);
        break;
    }
    if (bytes > kMaxBytesInSubmit) io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
  }

  bool TaskWorkPending() const {
    return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) !=
           0;
  }

  // One bounded batch. True when there was something.
  bool Reap() {
    if (!started_) return RunListeners();
    if (TaskWorkPending()) io_uring_get_events(&ring_);
    io_uring_cqe* cqes[kReapBatch];
    const unsigned ready = io_uring_peek_batch_cqe(&ring_, cqes, kReapBatch);
    if (ready == 0 && withdrawn_ == nullptr) return RunListeners();
    StopAnnouncements();
    std::pair<FileOperation*, int> results[kReapBatch];
    unsigned count = 0;
    for (int64_t bytes = 0; count < ready && bytes < kMaxBytesInBatch; ++count) {
      results[count] = {static_cast<FileOperation*>(io_uring_cqe_get_data(cqes[count])),
                        cqes[count]->res};
      bytes += std::max(0, cqes[count]->res);
    }
    io_uring_cq_advance(&ring_, count);
    in_kernel_ -= count;
    if (abandoned_) return true;
    reaping_ = true;
    for (unsigned i = 0; i < count; ++i) Complete(results[i].first, results[i].second);
    while (withdrawn_ != nullptr) {
      FileOperation* const operation = std::exchange(withdrawn_, withdrawn_->next);
      operation->done(operation, -ECANCELED);
    }
    reaping_ = false;
    RunListeners();
    // Listeners and callbacks may have started more.
    if (backlog_ != nullptr) Submit();
    return true;
  }

  bool RunListeners() {
    if (abandoned_) return false;
    return listeners_.Run();
  }

  void Complete(FileOperation* operation, int result) {
    if (result == -EINTR || result == -EAGAIN) {
      if (++operation->retries <= kMaxRetries) {
        Continue(operation);
        return;
      }
    }
    if (result > 0 && operation->kind != FileOperation::Kind::kSync) {
      operation->retries = 0;
      operation->transferred += result;
      operation->offset += result;
      if (SkipPieces(operation, result)) {
        Continue(operation);
        return;
      }
      result = 0;
    } else if (result == 0 && operation->kind == FileOperation::Kind::kWrite &&
               operation->piece_count > 0) {
      // A write that moves nothing would be tried for ever.
      result = -EIO;
    }
    operation->done(operation, result < 0 ? result : operation->transferred);
  }

  void Continue(FileOperation* operation) {
    if (operation->withdrawn) {
      operation->done(operation, -ECANCELED);
    } else {
      Enqueue(operation);
    }
  }

  // Removes `bytes` from the front of what is left to do. True: something is left.
  static bool SkipPieces(FileOperation* operation, size_t bytes) {
    while (operation->piece_count > 0 && bytes >= operation->pieces->iov_len) {
      bytes -= operation->pieces->iov_len;
      ++operation->pieces;
      --operation->piece_count;
    }
    if (operation->piece_count == 0) return false;
    operation->pieces->iov_base = static_cast<char*>(operation->pieces->iov_base) + bytes;
    operation->pieces->iov_len -= bytes;
    return true;
  }

  EventLoop* const loop_;
  io_uring ring_ = {};
  UniqueFd event_fd_;
  BatchListeners listeners_;
  FileOperation* backlog_ = nullptr;  // started, not yet in the ring; bounded by the callers' own
  FileOperation* backlog_tail_ = nullptr;
  FileOperation* withdrawn_ = nullptr;  // taken out of the backlog; their end is to be told
  unsigned in_kernel_ = 0;              // in the ring or the kernel
  unsigned unsubmitted_ = 0;            // of these, in the ring and not yet taken by the kernel
  bool initialised_ = false;
  bool started_ = false;
  bool armed_ = true;  // completions write to the eventfd
  bool reaping_ = false;
  bool abandoned_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AsyncFileIo>> NewUringFileIo(EventLoop* loop, int keeps) {
  auto io = std::make_unique<UringFileIo>(loop);
  if (absl::Status status = io->Init(keeps); !status.ok()) return status;
  return io;
}

}  // namespace vmsg::backend
