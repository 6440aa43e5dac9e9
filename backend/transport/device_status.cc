// SPDX-License-Identifier: Apache-2.0
#include "backend/transport/device_status.h"

#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {
namespace {

constexpr uint32_t kDriverBits = wire::kStatusAcknowledge | wire::kStatusDriver |
                                 wire::kStatusDriverOk | wire::kStatusFeaturesOk |
                                 wire::kStatusFailed;

}  // namespace

uint32_t NextStatus(uint32_t current, uint32_t requested, bool features_acceptable) {
  uint32_t next = current | (requested & kDriverBits);
  const uint32_t added = next & ~current;
  if ((added & wire::kStatusFeaturesOk) != 0 &&
      ((next & wire::kStatusDriver) == 0 || !features_acceptable)) {
    next &= ~wire::kStatusFeaturesOk;
  }
  if ((added & wire::kStatusDriverOk) != 0 &&
      ((next & wire::kStatusFeaturesOk) == 0 ||
       (next & (wire::kStatusDeviceNeedsReset | wire::kStatusFailed)) != 0)) {
    next &= ~wire::kStatusDriverOk;
  }
  return next;
}

}  // namespace vmsg::backend
