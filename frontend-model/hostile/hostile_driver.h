// SPDX-License-Identifier: Apache-2.0
// A frontend that breaks rules on purpose, for tests of the other side: records and ring cursors,
// descriptors and rings exactly as the test wants them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/frontend_bus.h"
#include "frontend-model/memory/guest_memory.h"
#include "frontend-model/transport/device_client.h"
#include "virtio-msg/split_ring.h"

namespace vmsg::frontend {

// Raw access to a bus: sees every record that comes in, and keeps it from the FrontendBus when
// `consume` is set. Not thread-safe. The bus must outlive it; one at a time.
class RawBus {
 public:
  static constexpr size_t kMaxKept = 4096;  // records; later ones are only counted

  RawBus(FrontendBus& bus, bool consume);
  ~RawBus();

  // Pushes bytes as they are (the ring pads them) and shows them to the backend.
  absl::Status Push(std::span<const std::byte> record);
  // A well-formed header with any fields before `payload`. size: what msg_size says; by default the
  // truth.
  absl::Status PushMessage(uint8_t type, uint8_t msg_id, uint16_t dev_num, uint16_t token,
                           std::span<const std::byte> payload,
                           std::optional<uint16_t> size = std::nullopt);
  // Runs the bus until `count` records are kept.
  absl::Status WaitForRecords(size_t count, Deadline deadline);
  const std::vector<std::vector<std::byte>>& records() const { return records_; }
  uint64_t seen() const { return seen_; }
  void Clear() { records_.clear(); }

  // Writes one of our cursors in shared memory directly.
  void ScribbleOutProd(uint32_t value);
  // Any bytes of the interface page or of the ring's data pages.
  std::span<std::byte> interface_page();
  // An event without any reason.
  absl::Status Kick();

 private:
  FrontendBus& bus_;
  std::vector<std::vector<std::byte>> records_;
  uint64_t seen_ = 0;
};

// A virtqueue whose every word the test writes itself. The device must be negotiated
// (DeviceClient::Negotiate) and not yet started.
class RawQueue {
 public:
  // Allocates the areas and programs them with SET_VQUEUE.
  static absl::StatusOr<RawQueue> Create(DeviceClient& client, uint32_t index, uint32_t size);

  uint32_t size() const { return size_; }
  void SetDescriptor(uint32_t index, const wire::SplitDescriptor& descriptor);
  void SetAvailable(uint32_t slot, uint16_t head);
  void SetAvailableIndex(uint16_t index);
  void SetUsedEvent(uint16_t event);
  uint16_t used_index() const;
  wire::SplitUsedEntry used(uint32_t slot) const;
  // EVENT_AVAIL, whether the device wants it or not.
  absl::Status Kick(uint32_t next_offset = 0);
  // Runs the bus until the device's used index is `index`.
  absl::Status WaitForUsed(uint16_t index, Deadline deadline);

  GuestBlock& desc() { return desc_; }
  GuestBlock& driver() { return driver_; }
  GuestBlock& device() { return device_; }

 private:
  RawQueue(DeviceClient& client, uint32_t index, uint32_t size)
      : client_(&client), index_(index), size_(size) {}
  DeviceClient* client_;
  uint32_t index_;
  uint32_t size_;
  GuestBlock desc_, driver_, device_;
};

}  // namespace vmsg::frontend
