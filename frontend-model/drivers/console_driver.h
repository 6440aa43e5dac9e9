// SPDX-License-Identifier: Apache-2.0
// A driver for consoles, one port (virtio 1.4, section "Console Device").
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "frontend-model/bus/deadline.h"
#include "frontend-model/transport/device_client.h"

namespace vmsg::frontend {

struct ConsoleSize {
  uint16_t columns = 0;
  uint16_t rows = 0;
};

// Not thread-safe.
class ConsoleDriver final : public PollSource {
 public:
  static constexpr uint32_t kBufferSize = 1024;
  static constexpr uint32_t kBuffers = 16;  // each way
  // What was received and not taken. Buffers go back to the device only below it, so a reader that
  // does not read stops the other side.
  static constexpr size_t kMaxUnread = size_t{64} * 1024;

  static absl::StatusOr<std::unique_ptr<ConsoleDriver>> Create(
      std::unique_ptr<DeviceClient> client);
  ~ConsoleDriver() override;

  // As many bytes as there are buffers for; 0: the other side does not read.
  absl::StatusOr<size_t> TrySend(absl::string_view bytes);
  // All of them.
  absl::Status Send(absl::string_view bytes, Deadline deadline);
  // What has been received so far, without waiting.
  std::string TakeReceived();
  bool has_received() const { return !received_.empty(); }
  // Waits until something was received, or the device is gone (Unavailable).
  absl::Status WaitReceived(Deadline deadline);

  // FailedPrecondition: VIRTIO_CONSOLE_F_SIZE was not negotiated.
  absl::StatusOr<ConsoleSize> ReadSize();
  // Set by EVENT_CONFIG, cleared by ReadSize.
  bool size_changed() const { return size_changed_; }

  const absl::Status& failure() const { return failure_; }
  DeviceClient& client() { return *client_; }
  bool Poll() override;
  bool PrepareToSleep() override;

 private:
  explicit ConsoleDriver(std::unique_ptr<DeviceClient> client) : client_(std::move(client)) {}
  absl::Status Start();
  bool PollReceive();
  bool PollTransmit();
  void RefillReceive();
  absl::Status Broken();

  std::unique_ptr<DeviceClient> client_;
  DriverQueue* receive_ = nullptr;
  DriverQueue* transmit_ = nullptr;
  std::vector<GuestBlock> blocks_;      // kBuffers to receive, then kBuffers to transmit
  std::vector<uint32_t> idle_receive_;  // indices into blocks_
  std::vector<uint32_t> idle_transmit_;
  std::string received_;
  bool size_changed_ = false;
  absl::Status failure_;
};

}  // namespace vmsg::frontend
