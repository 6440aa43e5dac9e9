// SPDX-License-Identifier: Apache-2.0
// Feature bits of one device: offered, acknowledged, frozen (virtio-msg, "Feature Negotiation
// Blocks", GET_DEVICE_FEATURES, SET_DRIVER_FEATURES).
#pragma once

#include <cstdint>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "virtio-msg/messages.h"

namespace vmsg::backend {

// What the transport offers with every device. Descriptor addresses are offsets into the window,
// hence ACCESS_PLATFORM.
extern const uint64_t kTransportFeatures;

class FeatureNegotiation {
 public:
  static constexpr uint32_t kBlocks = 2;  // 64 bits are in use
  // Blocks past the last one whose bits a driver has set and may take back one by one. A driver
  // that sets bits in more of them has to reset the device.
  static constexpr size_t kMaxBlocksBeyond = 64;

  // Bits of `device_features` that are not a device type's own are left out.
  explicit FeatureNegotiation(uint64_t device_features);

  uint64_t offered() const { return offered_; }
  uint64_t acknowledged() const { return acknowledged_; }
  bool frozen() const { return frozen_; }

  // Block `index` as GET_DEVICE_FEATURES reports it: 0 past the last one. The specification has a
  // device report the acknowledged set in every GET_DEVICE_FEATURES after SET_DRIVER_FEATURES. So a
  // block reads as the offer until the driver acknowledged something in that block, and from then
  // on, until reset, as what it acknowledged, less bits that were never offered. Block by block, so
  // that a driver may still read the offer of the next block after it wrote this one.
  uint32_t Block(uint64_t index) const;

  // SET_DRIVER_FEATURES. FailedPrecondition: frozen, nothing changed.
  absl::Status Acknowledge(uint64_t first_block, const wire::WordView& words);

  // OK when the acknowledged set can be accepted: VERSION_1, and nothing that was not offered.
  absl::Status Check() const;

  void Freeze() { frozen_ = true; }
  void Reset();

 private:
  void NoteBeyond(uint64_t block, bool bits);

  const uint64_t offered_;
  uint64_t acknowledged_ = 0;
  uint32_t blocks_written_ = 0;       // a bit for each
  absl::btree_set<uint64_t> beyond_;  // blocks past the last one with bits acknowledged
  bool lost_count_beyond_ = false;    // there were more of them than are remembered
  bool frozen_ = false;
};

}  // namespace vmsg::backend
