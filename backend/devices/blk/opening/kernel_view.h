// SPDX-License-Identifier: Apache-2.0
// What the kernel shows of its disks, in the files of /sys and /proc: which are parts of which, and
// what has them. Bounded, whatever a machine has.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace vmsg::backend {

// Where to look; a test has folders of its own.
struct KernelFiles {
  std::string sys = "/sys";
  std::string proc = "/proc";
  std::string dev = "/dev";
};

struct LoopDevice {
  std::string name;  // loop0
  bool read_only = false;
};

struct DiskUse {
  std::string what;  // "is mounted at /mnt"
  bool writes = false;
};

class KernelView {
 public:
  explicit KernelView(KernelFiles files) : files_(std::move(files)) {}

  // A partition's disk and the disk's partitions: who claims one keeps others from the other.
  std::vector<dev_t> Relatives(dev_t disk) const;
  // Of a partition its disk, of others themselves.
  dev_t WholeDisk(dev_t disk) const;
  // What a disk is made of: a partition's disk, a mapping's disks, and theirs.
  std::vector<dev_t> Below(dev_t disk) const;
  // The kernel's name: sda1.
  std::string Name(dev_t disk) const;
  // The path of a loop device's file, as the kernel knows it; empty: it has none.
  std::string LoopFile(dev_t disk) const;

  // The loop devices on a file. ResourceExhausted: more disks than can be looked through.
  absl::StatusOr<std::vector<LoopDevice>> LoopsOn(const struct stat& file) const;
  // Mounts, mappings, swap and guests of Xen's own block backend on any of these disks.
  absl::StatusOr<std::vector<DiskUse>> UsesOf(absl::Span<const dev_t> disks) const;
  // The file is swapped to.
  absl::StatusOr<bool> IsSwap(const struct stat& file) const;

 private:
  std::string Directory(dev_t disk) const;
  absl::Status AddMounts(absl::Span<const dev_t> disks, std::vector<DiskUse>* uses) const;
  absl::Status AddXenGuests(absl::Span<const dev_t> disks, std::vector<DiskUse>* uses) const;
  void AddHolders(dev_t disk, std::vector<DiskUse>* uses) const;

  const KernelFiles files_;
};

}  // namespace vmsg::backend
