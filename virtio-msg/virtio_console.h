// SPDX-License-Identifier: Apache-2.0
// The console device's numbers and layouts (virtio 1.4, section "Console Device"), for both sides.
// Port 0 only: multiport's control queues are not described here. All fields are little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

#include "virtio-msg/virtio_ids.h"

namespace vmsg::wire {

inline constexpr uint64_t kConsoleFeatureSize = FeatureMask(0);
inline constexpr uint64_t kConsoleFeatureMultiport = FeatureMask(1);
inline constexpr uint64_t kConsoleFeatureEmergencyWrite = FeatureMask(2);

inline constexpr uint32_t kConsoleReceiveQueue = 0;   // device to driver
inline constexpr uint32_t kConsoleTransmitQueue = 1;  // driver to device

struct ConsoleConfig {
  uint16_t cols;  // with kConsoleFeatureSize
  uint16_t rows;
  uint32_t max_nr_ports;     // with kConsoleFeatureMultiport
  uint32_t emergency_write;  // with kConsoleFeatureEmergencyWrite; written by the driver
};
static_assert(sizeof(ConsoleConfig) == 12);
static_assert(offsetof(ConsoleConfig, rows) == 2 && offsetof(ConsoleConfig, max_nr_ports) == 4 &&
              offsetof(ConsoleConfig, emergency_write) == 8);

}  // namespace vmsg::wire
