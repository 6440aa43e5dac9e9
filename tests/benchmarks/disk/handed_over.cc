// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/disk/handed_over.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "tests/benchmarks/processors.h"

namespace vmsg::bench {
namespace {

constexpr uint32_t kSlots = 64;  // more than any load's depth
constexpr uint64_t kEventRead = ~uint64_t{0};

}  // namespace

// Two rings of one writer and one reader each; the counters only grow.
struct HandedOverReader::Shared {
  struct Request {
    uint64_t slot, block;
  };
  alignas(64) std::atomic<uint64_t> requests;
  Request request[kSlots];
  alignas(64) std::atomic<uint64_t> answers;
  uint64_t answer[kSlots];  // slots
  std::atomic<int> error;   // of the first read that failed
};

absl::StatusOr<std::unique_ptr<HandedOverReader>> HandedOverReader::Open(const ReadLoad& load,
                                                                         int processor) {
  std::unique_ptr<HandedOverReader> reader(new HandedOverReader(load));
  if (absl::Status status = reader->Start(processor); !status.ok()) return status;
  return reader;
}

absl::Status HandedOverReader::Start(int processor) {
  if (load_.depth > kSlots) return absl::InvalidArgumentError("more reads than slots");
  const int fd = open(load_.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", load_.path, " with O_DIRECT"));
  }
  const off_t size = lseek(fd, 0, SEEK_END);
  order_ = BlockOrder(static_cast<uint64_t>(size) / load_.block_size, load_.random);
  void* const shared =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  asked_ = eventfd(0, EFD_CLOEXEC);
  ended_ = eventfd(0, EFD_CLOEXEC);
  if (shared != MAP_FAILED) shared_ = static_cast<Shared*>(shared);
  if (shared_ == nullptr || asked_ < 0 || ended_ < 0) {
    close(fd);
    return absl::ErrnoToStatus(errno, "shared memory and eventfds of two processes");
  }
  // Guests' memory is kept from children; this one is to have the buffers.
  const auto advise = [&](int advice) {
    for (char* buffer : load_.buffers) madvise(buffer, load_.block_size, advice);
  };
  advise(MADV_DOFORK);
  server_ = fork();
  if (server_ == 0) {
    KeepThreadOn(processor);
    Serve(fd);
  }
  advise(MADV_DONTFORK);
  close(fd);
  return server_ < 0 ? absl::ErrnoToStatus(errno, "fork") : absl::OkStatus();
}

HandedOverReader::~HandedOverReader() {
  if (server_ > 0) {
    kill(server_, SIGKILL);
    waitpid(server_, nullptr, 0);
  }
  if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  if (asked_ >= 0) close(asked_);
  if (ended_ >= 0) close(ended_);
}

void HandedOverReader::Serve(int fd) {
  io_uring ring;
  io_uring_params params = {};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (io_uring_queue_init_params(2 * kSlots, &ring, &params) < 0 &&
      io_uring_queue_init(2 * kSlots, &ring, 0) < 0) {
    _exit(1);
  }
  uint64_t asked = 0, taken = 0, answered = 0;
  const auto await_request = [&] {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, asked_, &asked, sizeof asked, 0);
    sqe->user_data = kEventRead;
  };
  await_request();
  for (;;) {
    io_uring_submit_and_wait(&ring, 1);
    bool ended = false;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring, &cqe) == 0) {
      const uint64_t slot = cqe->user_data;
      const int result = cqe->res;
      io_uring_cqe_seen(&ring, cqe);
      if (slot != kEventRead) {
        if (result != static_cast<int>(load_.block_size))
          shared_->error = result < 0 ? -result : EIO;
        shared_->answer[answered % kSlots] = slot;
        shared_->answers.store(++answered, std::memory_order_release);
        ended = true;
        continue;
      }
      const uint64_t requests = shared_->requests.load(std::memory_order_acquire);
      for (; taken < requests; ++taken) {
        const Shared::Request request = shared_->request[taken % kSlots];
        io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
        io_uring_prep_read(sqe, fd, load_.buffers[request.slot], load_.block_size,
                           request.block * load_.block_size);
        sqe->user_data = request.slot;
      }
      await_request();
    }
    if (ended) eventfd_write(ended_, 1);
  }
}

absl::StatusOr<absl::Duration> HandedOverReader::Read(uint64_t count) {
  const uint64_t last = issued_ + count;
  const auto issue = [&](uint64_t slot) {
    shared_->request[issued_ % kSlots] = {slot, order_.Next()};
    shared_->requests.store(++issued_, std::memory_order_release);
  };
  const absl::Time start = absl::Now();
  for (uint64_t slot = 0; slot < load_.depth && issued_ < last; ++slot) issue(slot);
  eventfd_write(asked_, 1);
  while (finished_ < last) {
    eventfd_t ignored;
    if (eventfd_read(ended_, &ignored) != 0) return absl::ErrnoToStatus(errno, "eventfd");
    bool issued = false;
    const uint64_t answers = shared_->answers.load(std::memory_order_acquire);
    for (; finished_ < answers; ++finished_) {
      if (issued_ == last) continue;
      issue(shared_->answer[finished_ % kSlots]);
      issued = true;
    }
    if (issued) eventfd_write(asked_, 1);
  }
  if (shared_->error != 0) {
    return absl::ErrnoToStatus(shared_->error, absl::StrCat("a read of ", load_.path));
  }
  return absl::Now() - start;
}

}  // namespace vmsg::bench
