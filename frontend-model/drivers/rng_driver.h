// SPDX-License-Identifier: Apache-2.0
// A driver for entropy devices (virtio 1.4, section "Entropy Device").
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/deadline.h"
#include "frontend-model/transport/device_client.h"

namespace vmsg::frontend {

// Not thread-safe.
class RngDriver final : public PollSource {
 public:
  static constexpr uint32_t kBufferSize = 4096;

  static absl::StatusOr<std::unique_ptr<RngDriver>> Create(std::unique_ptr<DeviceClient> client);
  ~RngDriver() override;

  // Fills `out`, in as many requests as the device makes of it. DataLoss: it returned a buffer with
  // nothing in it.
  absl::Status Fill(std::span<std::byte> out, Deadline deadline);

  DeviceClient& client() { return *client_; }
  bool Poll() override;
  bool PrepareToSleep() override;

 private:
  explicit RngDriver(std::unique_ptr<DeviceClient> client) : client_(std::move(client)) {}
  absl::Status Start();

  std::unique_ptr<DeviceClient> client_;
  DriverQueue* queue_ = nullptr;
  GuestBlock buffer_;
  bool waiting_ = false;
  absl::StatusOr<uint32_t> written_ = 0u;
};

}  // namespace vmsg::frontend
