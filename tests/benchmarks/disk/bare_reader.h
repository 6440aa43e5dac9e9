// SPDX-License-Identifier: Apache-2.0
// The limit of a disk's figures: the same job without Xen, ring, transport and virtqueue.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace vmsg::bench {

// Which block a loop of reads reads next; the same for the same load.
class BlockOrder {
 public:
  BlockOrder(uint64_t blocks, bool random) : blocks_(blocks), random_(random) {}
  uint64_t Next() { return (random_ ? generator_() : next_++) % blocks_; }

 private:
  uint64_t blocks_;
  bool random_;
  uint64_t next_ = 0;
  std::minstd_rand generator_{1};
};

struct ReadLoad {
  std::string path;
  uint32_t block_size;
  uint32_t depth;
  bool random;
  uint64_t count = 0;  // reads in all, where one call makes them
  // Where to, one of `block_size` for each of `depth`, kept by the caller; empty: memory of its
  // own.
  std::vector<char*> buffers = {};
  bool write = false;  // whatever the buffers hold, instead of reading
};

// A loop that keeps `depth` reads, or writes, in flight straight on io_uring (O_DIRECT, one
// thread).
class BareReader {
 public:
  static absl::StatusOr<std::unique_ptr<BareReader>> Open(const ReadLoad& load);
  ~BareReader();
  BareReader(const BareReader&) = delete;
  BareReader& operator=(const BareReader&) = delete;

  // How long `count` reads take, all of them ended.
  absl::StatusOr<absl::Duration> Read(uint64_t count);
  // Whole blocks of the file.
  uint64_t blocks() const { return blocks_; }

 private:
  explicit BareReader(const ReadLoad& load) : load_(load) {}
  absl::Status Start();

  ReadLoad load_;
  int fd_ = -1;
  void* memory_ = nullptr;
  uint64_t blocks_ = 0;
  BlockOrder order_{1, false};
  bool has_ring_ = false;
  io_uring ring_ = {};
};

// Bytes a second of `count` such reads.
absl::StatusOr<double> BareReadBandwidth(const ReadLoad& load);

}  // namespace vmsg::bench
