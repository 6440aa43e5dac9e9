// SPDX-License-Identifier: Apache-2.0
// type=rng: random bytes from the kernel (virtio 1.4, "Entropy Device"). No keys.
#pragma once

#include <sys/types.h>

#include "backend/devices/device.h"

namespace vmsg::backend {

inline constexpr absl::Span<const absl::string_view> kRngKeys = {};

// Of one request at most as many bytes are filled: what getrandom gives in well under a
// millisecond.
inline constexpr size_t kRngMaxBytesPerRequest = size_t{64} * 1024;
// A turn ends with the request that reaches this: other guests wait for the thread meanwhile.
inline constexpr size_t kRngMaxBytesPerTurn = size_t{256} * 1024;
inline constexpr uint32_t kRngMaxQueueSize = 64;

absl::StatusOr<OpenedDevice> OpenRng(const DeviceEntry& entry);
absl::StatusOr<std::unique_ptr<Device>> CreateRng(OpenedDevice opened,
                                                  const DeviceEnvironment& environment);

// As getrandom(2) with GRND_NONBLOCK: bytes, or -1 and errno.
using RandomSource = ssize_t (*)(void* bytes, size_t size);
std::unique_ptr<Device> NewRngDevice(EventLoop* loop, RandomSource source);

}  // namespace vmsg::backend
