// SPDX-License-Identifier: Apache-2.0
// What handing a disk's requests to another process costs on this machine, with nothing of ours.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/benchmarks/disk/bare_reader.h"

namespace vmsg::bench {

// The reads of BareReader, made by a second process: the caller writes each into shared memory and
// signals an eventfd, the other makes it with io_uring, and signals another when it has ended.
// Neither polls. `load` has buffers, in shared memory. Without the second process it is the loop of
// BareReader; with Xen's ring, the transport and a virtqueue between the two it is ours.
class HandedOverReader {
 public:
  // The second process runs on `processor`.
  static absl::StatusOr<std::unique_ptr<HandedOverReader>> Open(const ReadLoad& load,
                                                                int processor);
  ~HandedOverReader();  // ends the process
  HandedOverReader(const HandedOverReader&) = delete;
  HandedOverReader& operator=(const HandedOverReader&) = delete;

  // How long `count` reads take, all of them ended.
  absl::StatusOr<absl::Duration> Read(uint64_t count);

 private:
  struct Shared;
  explicit HandedOverReader(const ReadLoad& load) : load_(load) {}
  absl::Status Start(int processor);
  // In the second process, until it is ended.
  [[noreturn]] void Serve(int fd);

  const ReadLoad load_;
  BlockOrder order_{1, false};
  Shared* shared_ = nullptr;
  int asked_ = -1;  // eventfds
  int ended_ = -1;
  pid_t server_ = -1;
  uint64_t issued_ = 0, finished_ = 0;  // since Open
};

}  // namespace vmsg::bench
