// SPDX-License-Identifier: Apache-2.0
// The device status machine (virtio 1.4, "Device Status Field"; virtio-msg, "SET_DEVICE_STATUS").
#pragma once

#include <cstdint>

namespace vmsg::backend {

// The status that a write of `requested` leads to, for a request other than 0 (0 is a reset, which
// takes its time). `features_acceptable`: what the driver acknowledged can be accepted.
// - Bits are only ever added: a driver takes them back by a reset alone, so a write that leaves one
//   out leaves it set. Bits that mean nothing, and DEVICE_NEEDS_RESET, are not the driver's to set.
// - FEATURES_OK is taken with DRIVER set and acceptable features, else left out of the result.
// - DRIVER_OK is taken once FEATURES_OK is, and not on a device that failed or needs a reset.
uint32_t NextStatus(uint32_t current, uint32_t requested, bool features_acceptable);

}  // namespace vmsg::backend
