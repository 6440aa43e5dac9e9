// SPDX-License-Identifier: Apache-2.0
// A virtio device on a TestBus: answers the transport's messages, correctly unless the test tells
// it otherwise, and records what the driver did.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "frontend-model/memory/guest_memory.h"
#include "frontend-model/transport/device_client.h"
#include "tests/frontend-model/device_side_ring.h"
#include "tests/frontend-model/test_bus.h"

namespace vmsg::frontend {

class TestDevice {
 public:
  struct Queue {
    uint32_t max_size = 256;
    wire::SetVqueueRequest set = {};  // size 0: inactive
    std::unique_ptr<DeviceSideRing> ring;
  };

  // Takes over the bus's handlers. memory: 4 MiB from address 0 on.
  TestDevice(TestBus& bus, uint16_t dev_num);

  uint32_t device_id = wire::kDeviceIdBlock;
  uint64_t features = wire::kFeatureVersion1 | wire::kFeatureEventIdx | wire::kFeatureRingReset;
  uint32_t num_feature_bits = 64;
  std::vector<std::byte> config;
  uint32_t generation = 1;
  std::vector<Queue> queues;

  // What it refuses.
  uint32_t status_refused = 0;                   // bits it does not take
  std::function<void()> before_get_config;       // may change the generation
  std::function<void(uint32_t queue)> on_avail;  // EVENT_AVAIL

  // What the driver did, in order: "info", "features", "status 3", ...
  std::vector<std::string> log;
  uint32_t status = 0;
  uint64_t driver_features = 0;

  std::unique_ptr<DeviceClient> Probe();
  template <class Body>
  void SendEvent(const Body& body) {
    bus.Send(dev_num, 0, body);
  }

  TestBus& bus;
  const uint16_t dev_num;
  GuestMemory memory;

 private:
  void HandleConfig();
  void HandleQueues();
  std::unique_ptr<std::byte[]> backing_;
};

}  // namespace vmsg::frontend
