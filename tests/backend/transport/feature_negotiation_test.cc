// SPDX-License-Identifier: Apache-2.0
#include "backend/transport/feature_negotiation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "virtio-msg/virtio_ids.h"

namespace vmsg::backend {
namespace {

using ::testing::HasSubstr;

absl::Status Acknowledge(FeatureNegotiation& features, uint64_t block,
                         const std::vector<uint32_t>& words) {
  std::vector<std::byte> bytes(4 * words.size());
  if (!bytes.empty()) std::memcpy(bytes.data(), words.data(), bytes.size());
  return features.Acknowledge(block, wire::WordView(bytes));
}

TEST(FeatureNegotiation, OffersTheTypesBitsAndTheTransports) {
  FeatureNegotiation features(0x5);
  EXPECT_EQ(features.offered(), 0x5 | kTransportFeatures);
  EXPECT_EQ(features.Block(0), 0x5u | 1u << 28 | 1u << 29);
  EXPECT_EQ(features.Block(1), 1u << 0 | 1u << 1 | 1u << 6 | 1u << 8);
}

TEST(FeatureNegotiation, DeviceTypeCannotOfferTransportBits) {
  FeatureNegotiation features(~uint64_t{0});
  EXPECT_EQ(features.offered() & wire::kFeatureRingPacked, 0u);
  EXPECT_EQ(features.offered() & wire::kFeatureInOrder, 0u);
}

// [device:Basic Concepts / Feature Blocks / Device]
TEST(FeatureNegotiation, BlocksPastTheLastReadZero) {
  FeatureNegotiation features(0x5);
  EXPECT_EQ(features.Block(2), 0u);
  EXPECT_EQ(features.Block(0xffffffff), 0u);
  EXPECT_EQ(features.Block(uint64_t{1} << 33), 0u);
}

// [device:Transport Messages / VIRTIO_MSG_SET_DRIVER_FEATURES / Device]
TEST(FeatureNegotiation, BlocksReadWhatWasAcknowledgedOnceItWas) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x1}).ok());
  EXPECT_EQ(features.Block(0), 0x1u);
  // The driver has not come to this one.
  EXPECT_NE(features.Block(1), 0u);
  features.Reset();
  EXPECT_EQ(features.Block(0), 0x5u | 1u << 28 | 1u << 29);
}

TEST(FeatureNegotiation, NeverReportsBitsThatItDoesNotImplement) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0xffffffff}).ok());
  EXPECT_EQ(features.Block(0), 0x5u | 1u << 28 | 1u << 29);
  EXPECT_FALSE(features.Check().ok());
}

TEST(FeatureNegotiation, AcceptsASubsetWithVersion1) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1}).ok());
  EXPECT_TRUE(features.Check().ok());
  EXPECT_EQ(features.acknowledged(), wire::kFeatureVersion1 | 0x4);
}

TEST(FeatureNegotiation, RefusesWithoutVersion1) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0}).ok());
  EXPECT_THAT(features.Check().message(), HasSubstr("VERSION_1"));
}

TEST(FeatureNegotiation, RefusesWhatWasNotOffered) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x2, 0x1}).ok());
  EXPECT_THAT(features.Check().message(), HasSubstr("0x2"));
}

TEST(FeatureNegotiation, RefusesBitsPastTheLastBlock) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1, 0x1}).ok());
  EXPECT_FALSE(features.Check().ok());
  features.Reset();
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1, 0x0}).ok());
  EXPECT_TRUE(features.Check().ok());
}

// [device:Device Initialization / Device Features / Device]
// The set is what was written last.
TEST(FeatureNegotiation, BitPastTheLastBlockCanBeTakenBack) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1, 0x1, 0x8}).ok());
  ASSERT_TRUE(Acknowledge(features, 2, {0x0}).ok());
  EXPECT_FALSE(features.Check().ok()) << "block 3 still has one";
  ASSERT_TRUE(Acknowledge(features, 3, {0x0}).ok());
  EXPECT_TRUE(features.Check().ok()) << features.Check();
}

TEST(FeatureNegotiation, BitsInMoreBlocksThanAreRememberedNeedAReset) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1}).ok());
  constexpr size_t kMany = FeatureNegotiation::kMaxBlocksBeyond + 1;
  ASSERT_TRUE(Acknowledge(features, 1000, std::vector<uint32_t>(kMany, 1)).ok());
  ASSERT_TRUE(Acknowledge(features, 1000, std::vector<uint32_t>(kMany, 0)).ok());
  EXPECT_FALSE(features.Check().ok());
  features.Reset();
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1}).ok());
  EXPECT_TRUE(features.Check().ok());
}

TEST(FeatureNegotiation, BlockIndexDoesNotWrap) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0xffffffff, {0x0, 0x4}).ok());
  EXPECT_EQ(features.acknowledged(), 0u);
}

// [device:Device Initialization / Device Features / Device]
// [device:Transport Messages / VIRTIO_MSG_SET_DRIVER_FEATURES / Device]
TEST(FeatureNegotiation, LaterBlockReplacesTheEarlier) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x5, 0x1}).ok());
  ASSERT_TRUE(Acknowledge(features, 0, {0x1}).ok());
  EXPECT_EQ(features.acknowledged(), wire::kFeatureVersion1 | 0x1);
}

TEST(FeatureNegotiation, FrozenSetDoesNotChange) {
  FeatureNegotiation features(0x5);
  ASSERT_TRUE(Acknowledge(features, 0, {0x4, 0x1}).ok());
  features.Freeze();
  EXPECT_FALSE(Acknowledge(features, 0, {0x1}).ok());
  EXPECT_EQ(features.acknowledged(), wire::kFeatureVersion1 | 0x4);
}

}  // namespace
}  // namespace vmsg::backend
