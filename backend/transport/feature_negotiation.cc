// SPDX-License-Identifier: Apache-2.0
#include "backend/transport/feature_negotiation.h"

#include "absl/strings/str_cat.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {

const uint64_t kTransportFeatures = wire::kFeatureVersion1 | wire::kFeatureIndirectDesc |
                                    wire::kFeatureEventIdx | wire::kFeatureRingReset |
                                    wire::kFeatureNotificationData | wire::kFeatureAccessPlatform;

FeatureNegotiation::FeatureNegotiation(uint64_t device_features)
    : offered_((device_features & wire::kDeviceTypeFeatureBits) | kTransportFeatures) {}

uint32_t FeatureNegotiation::Block(uint64_t index) const {
  if (index >= kBlocks) return 0;
  const bool written = (blocks_written_ >> index & 1) != 0;
  const uint64_t bits = written ? acknowledged_ & offered_ : offered_;
  return static_cast<uint32_t>(bits >> (32 * index));
}

absl::Status FeatureNegotiation::Acknowledge(uint64_t first_block, const wire::WordView& words) {
  if (frozen_) {
    return absl::FailedPreconditionError(
        "SET_DRIVER_FEATURES after FEATURES_OK was accepted: reset the device first");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    const uint64_t block = first_block + i;
    if (block >= kBlocks) {
      NoteBeyond(block, words[i] != 0);
      continue;
    }
    const unsigned shift = static_cast<unsigned>(32 * block);
    acknowledged_ &= ~(uint64_t{0xffffffff} << shift);
    acknowledged_ |= uint64_t{words[i]} << shift;
    blocks_written_ |= 1u << block;
  }
  return absl::OkStatus();
}

void FeatureNegotiation::NoteBeyond(uint64_t block, bool bits) {
  if (!bits) {
    beyond_.erase(block);
  } else if (beyond_.size() < kMaxBlocksBeyond) {
    beyond_.insert(block);
  } else if (!beyond_.contains(block)) {
    lost_count_beyond_ = true;
  }
}

absl::Status FeatureNegotiation::Check() const {
  const bool beyond = lost_count_beyond_ || !beyond_.empty();
  if (beyond || (acknowledged_ & ~offered_) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("FEATURES_OK refused: feature bits 0x", absl::Hex(acknowledged_ & ~offered_),
                     beyond ? " and some past bit 63" : "", " were never offered (offered: 0x",
                     absl::Hex(offered_), ")"));
  }
  if ((acknowledged_ & wire::kFeatureVersion1) == 0) {
    return absl::InvalidArgumentError(
        "FEATURES_OK refused: VIRTIO_F_VERSION_1 (bit 32) was not acknowledged, and there is no "
        "legacy interface on this transport");
  }
  return absl::OkStatus();
}

void FeatureNegotiation::Reset() {
  acknowledged_ = 0;
  blocks_written_ = 0;
  beyond_.clear();
  lost_count_beyond_ = false;
  frozen_ = false;
}

}  // namespace vmsg::backend
