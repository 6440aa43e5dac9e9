// SPDX-License-Identifier: Apache-2.0
// Numbers of virtio 1.4 that both sides of every transport share: device types (section "Device
// Types"), device status bits (section "Device Status Field") and the feature bits that belong to
// queues and transport (section "Reserved Feature Bits"). Features are masks, ready to be combined.
#pragma once

#include <cstdint>

namespace vmsg::wire {

inline constexpr uint32_t kDeviceIdNet = 1;
inline constexpr uint32_t kDeviceIdBlock = 2;
inline constexpr uint32_t kDeviceIdConsole = 3;
inline constexpr uint32_t kDeviceIdEntropy = 4;

inline constexpr uint32_t kStatusAcknowledge = 0x01;
inline constexpr uint32_t kStatusDriver = 0x02;
inline constexpr uint32_t kStatusDriverOk = 0x04;
inline constexpr uint32_t kStatusFeaturesOk = 0x08;
inline constexpr uint32_t kStatusDeviceNeedsReset = 0x40;
inline constexpr uint32_t kStatusFailed = 0x80;

constexpr uint64_t FeatureMask(unsigned bit) { return uint64_t{1} << bit; }

inline constexpr uint64_t kFeatureNotifyOnEmpty = FeatureMask(24);  // legacy
inline constexpr uint64_t kFeatureAnyLayout = FeatureMask(27);      // legacy
inline constexpr uint64_t kFeatureIndirectDesc = FeatureMask(28);
inline constexpr uint64_t kFeatureEventIdx = FeatureMask(29);
inline constexpr uint64_t kFeatureVersion1 = FeatureMask(32);
inline constexpr uint64_t kFeatureAccessPlatform = FeatureMask(33);
inline constexpr uint64_t kFeatureRingPacked = FeatureMask(34);
inline constexpr uint64_t kFeatureInOrder = FeatureMask(35);
inline constexpr uint64_t kFeatureOrderPlatform = FeatureMask(36);
inline constexpr uint64_t kFeatureSrIov = FeatureMask(37);
inline constexpr uint64_t kFeatureNotificationData = FeatureMask(38);
inline constexpr uint64_t kFeatureNotifConfigData = FeatureMask(39);
inline constexpr uint64_t kFeatureRingReset = FeatureMask(40);
inline constexpr uint64_t kFeatureAdminVq = FeatureMask(41);

// Bits 0-23 and 50-63 belong to the device type, 24-49 to queues and transport.
inline constexpr uint64_t kTransportFeatureBits = FeatureMask(50) - FeatureMask(24);
inline constexpr uint64_t kDeviceTypeFeatureBits = ~kTransportFeatureBits;

// The vendor of devices that virtio itself defines, as QEMU and the kernel know it.
inline constexpr uint32_t kVirtioVendorId = 0x1af4;

}  // namespace vmsg::wire
