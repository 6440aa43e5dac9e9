// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/disk/bare_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace vmsg::bench {

absl::StatusOr<std::unique_ptr<BareReader>> BareReader::Open(const ReadLoad& load) {
  std::unique_ptr<BareReader> reader(new BareReader(load));
  if (absl::Status status = reader->Start(); !status.ok()) return status;
  return reader;
}

absl::Status BareReader::Start() {
  fd_ = open(load_.path.c_str(), (load_.write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
  if (fd_ < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", load_.path, " with O_DIRECT"));
  }
  const off_t size = lseek(fd_, 0, SEEK_END);  // a block device's, too
  if (size < 0) return absl::ErrnoToStatus(errno, absl::StrCat("the size of ", load_.path));
  blocks_ = static_cast<uint64_t>(size) / load_.block_size;
  if (blocks_ == 0) {
    return absl::InvalidArgumentError(absl::StrCat(load_.path, " is shorter than one block"));
  }
  order_ = BlockOrder(blocks_, load_.random);

  io_uring_params params = {};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int error = io_uring_queue_init_params(load_.depth, &ring_, &params);
  if (error == -EINVAL) error = io_uring_queue_init(load_.depth, &ring_, 0);
  if (error < 0) return absl::ErrnoToStatus(-error, "io_uring_queue_init");
  has_ring_ = true;

  if (!load_.buffers.empty()) return absl::OkStatus();
  void* const memory = mmap(nullptr, size_t{load_.block_size} * load_.depth, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "memory for the bare reads");
  memory_ = memory;
  for (uint32_t i = 0; i < load_.depth; ++i) {
    load_.buffers.push_back(static_cast<char*>(memory) + size_t{i} * load_.block_size);
  }
  return absl::OkStatus();
}

BareReader::~BareReader() {
  if (has_ring_) io_uring_queue_exit(&ring_);
  if (memory_ != nullptr) munmap(memory_, size_t{load_.block_size} * load_.depth);
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<absl::Duration> BareReader::Read(uint64_t count) {
  uint64_t issued = 0;
  const auto issue = [&](uint64_t slot) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_rw(load_.write ? IORING_OP_WRITE : IORING_OP_READ, sqe, fd_, load_.buffers[slot],
                     load_.block_size, order_.Next() * load_.block_size);
    sqe->user_data = slot;
    ++issued;
  };

  const absl::Time start = absl::Now();
  for (uint64_t slot = 0; slot < load_.depth && issued < count; ++slot) issue(slot);
  for (uint64_t finished = 0; finished < count;) {
    const int error = io_uring_submit_and_wait(&ring_, 1);
    if (error < 0 && error != -EINTR) {
      return absl::ErrnoToStatus(-error, "io_uring_submit_and_wait");
    }
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      if (cqe->res != static_cast<int>(load_.block_size)) {
        return absl::InternalError(
            absl::StrCat("a bare request of ", load_.path, " returned ", cqe->res));
      }
      const uint64_t slot = cqe->user_data;
      io_uring_cqe_seen(&ring_, cqe);
      ++finished;
      if (issued < count) issue(slot);
    }
  }
  return absl::Now() - start;
}

absl::StatusOr<double> BareReadBandwidth(const ReadLoad& load) {
  absl::StatusOr<std::unique_ptr<BareReader>> reader = BareReader::Open(load);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<absl::Duration> took = (*reader)->Read(load.count);
  if (!took.ok()) return took.status();
  return static_cast<double>(load.count) * load.block_size / absl::ToDoubleSeconds(*took);
}

}  // namespace vmsg::bench
