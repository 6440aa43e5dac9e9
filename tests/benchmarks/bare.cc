// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/bare.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/benchmarks/processors.h"

namespace vmsg::bench {

absl::StatusOr<absl::Duration> EventfdRoundTrip(uint64_t round_trips) {
  const int there = eventfd(0, EFD_CLOEXEC);
  const int back = eventfd(0, EFD_CLOEXEC);
  if (there < 0 || back < 0) return absl::ErrnoToStatus(errno, "eventfd");
  auto close_both = absl::MakeCleanup([&] { close(there), close(back); });
  // On two processors, as guest and backend are: on one, a switch is all that a round trip costs.
  const OnProcessor here(0);
  uint64_t word = 0;
  const pid_t child = fork();
  if (child < 0) return absl::ErrnoToStatus(errno, "fork");
  if (child == 0) {
    KeepThreadOn(1);
    const uint64_t one = 1;
    for (uint64_t i = 0; i < round_trips; ++i) {
      if (read(there, &word, sizeof(word)) != sizeof(word)) _exit(1);
      if (write(back, &one, sizeof(one)) != sizeof(one)) _exit(1);
    }
    _exit(0);
  }
  const uint64_t one = 1;
  const absl::Time start = absl::Now();
  for (uint64_t i = 0; i < round_trips; ++i) {
    if (write(there, &one, sizeof(one)) != sizeof(one) ||
        read(back, &word, sizeof(word)) != sizeof(word)) {
      return absl::ErrnoToStatus(errno, "eventfd ping-pong");
    }
  }
  const absl::Duration took = absl::Now() - start;
  int status = 0;
  waitpid(child, &status, 0);
  return took / static_cast<int64_t>(round_trips);
}

absl::StatusOr<double> BareReadBandwidth(const ReadLoad& load) {
  const int fd = open(load.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", load.path, " with O_DIRECT"));
  auto close_fd = absl::MakeCleanup([&] { close(fd); });
  const off_t size = lseek(fd, 0, SEEK_END);  // a block device's, too
  if (size < 0) return absl::ErrnoToStatus(errno, absl::StrCat("the size of ", load.path));
  const uint64_t blocks = static_cast<uint64_t>(size) / load.block_size;
  if (blocks == 0)
    return absl::InvalidArgumentError(absl::StrCat(load.path, " is shorter than one block"));

  io_uring ring;
  io_uring_params params = {};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int error = io_uring_queue_init_params(load.depth, &ring, &params);
  if (error == -EINVAL) error = io_uring_queue_init(load.depth, &ring, 0);
  if (error < 0) return absl::ErrnoToStatus(-error, "io_uring_queue_init");
  auto exit_ring = absl::MakeCleanup([&] { io_uring_queue_exit(&ring); });

  const size_t bytes = size_t{load.block_size} * load.depth;
  std::unique_ptr<char, decltype(&free)> buffers(static_cast<char*>(aligned_alloc(4096, bytes)),
                                                 &free);
  std::minstd_rand random(1);
  uint64_t issued = 0;
  const auto issue = [&](uint64_t slot) {
    const uint64_t block = load.random ? random() % blocks : issued % blocks;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, fd, buffers.get() + slot * load.block_size, load.block_size,
                       block * load.block_size);
    sqe->user_data = slot;
    ++issued;
  };

  const absl::Time start = absl::Now();
  for (uint64_t slot = 0; slot < load.depth && issued < load.count; ++slot) issue(slot);
  for (uint64_t finished = 0; finished < load.count;) {
    error = io_uring_submit_and_wait(&ring, 1);
    if (error < 0 && error != -EINTR)
      return absl::ErrnoToStatus(-error, "io_uring_submit_and_wait");
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring, &cqe) == 0) {
      if (cqe->res != static_cast<int>(load.block_size)) {
        return absl::InternalError(
            absl::StrCat("a bare read of ", load.path, " returned ", cqe->res));
      }
      const uint64_t slot = cqe->user_data;
      io_uring_cqe_seen(&ring, cqe);
      ++finished;
      if (issued < load.count) issue(slot);
    }
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return static_cast<double>(load.count) * load.block_size / seconds;
}

}  // namespace vmsg::bench
