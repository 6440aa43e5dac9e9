// SPDX-License-Identifier: Apache-2.0
// Which program of this domain drives a bus. Two frontends on one bus take it from each other, and
// xenstore cannot tell them apart: a node outlives the program that wrote it. A lock that the
// kernel holds does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "grants/platform.h"

namespace vmsg::frontend {

// Where claims are made and looked for.
struct ClaimPlaces {
  std::string lock_directory;  // one for a domain; made when it is missing
  std::string sysfs;           // empty: no kernel driver can have a bus
  static ClaimPlaces Of(const grants::Platform& platform);
};

// Held until it is destroyed, or its process ends in whatever way. Move-only.
class BusClaim {
 public:
  // Unavailable: somebody has the bus; says who, and what to do.
  static absl::StatusOr<BusClaim> Take(const ClaimPlaces& places, uint32_t bus_id);
  // Who has it, for people; nullopt: nobody. Looks only: takes it from nobody, also not for a
  // moment.
  static absl::StatusOr<std::optional<std::string>> Holder(const ClaimPlaces& places,
                                                           uint32_t bus_id);

  BusClaim() = default;
  BusClaim(BusClaim&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  BusClaim& operator=(BusClaim&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~BusClaim();

 private:
  explicit BusClaim(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace vmsg::frontend
