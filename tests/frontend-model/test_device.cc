// SPDX-License-Identifier: Apache-2.0
#include "tests/frontend-model/test_device.h"

#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace vmsg::frontend {
namespace {

const wire::Profile& V1() { return wire::Profile::V1(); }

}  // namespace

TestDevice::TestDevice(TestBus& bus_in, uint16_t number) : bus(bus_in), dev_num(number) {
  constexpr size_t kBytes = 1024 * 4096;
  backing_.reset(new std::byte[kBytes + 4096]());
  const auto address = reinterpret_cast<uintptr_t>(backing_.get());
  std::byte* const aligned = backing_.get() + (4096 - address % 4096) % 4096;
  EXPECT_TRUE(memory.AddMemory(0, {aligned, kBytes}).ok());
  queues.resize(1);

  bus.handlers[wire::MessageId::kGetDeviceInfo] = [this](const wire::Message& message) {
    log.push_back("info");
    wire::GetDeviceInfoResponse info = {};
    if (message.envelope.dev_num == dev_num) {
      info = {.device_id = device_id,
              .vendor_id = 0x1af4,
              .num_feature_bits = num_feature_bits,
              .config_size = static_cast<uint32_t>(config.size()),
              .max_virtqueues = static_cast<uint32_t>(queues.size())};
    }
    bus.Respond(message, info);
  };
  bus.handlers[wire::MessageId::kGetDeviceFeatures] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::GetDeviceFeaturesRequest>(V1(), message).value();
    log.push_back(absl::StrCat("features ", request.block_index, "+", request.num_blocks));
    std::vector<uint32_t> words(request.num_blocks);
    for (uint32_t i = 0; i < request.num_blocks; ++i) {
      const uint32_t block = request.block_index + i;
      words[i] = block < 2 ? static_cast<uint32_t>(features >> 32 * block) : 0;
    }
    bus.Respond(message, wire::GetDeviceFeaturesResponse{
                             .block_index = request.block_index,
                             .num_blocks = request.num_blocks,
                             .features = wire::WordView(std::as_bytes(std::span(words)))});
  };
  bus.handlers[wire::MessageId::kSetDriverFeatures] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::SetDriverFeaturesRequest>(V1(), message).value();
    driver_features = 0;
    for (uint32_t i = 0; i < request.num_blocks && request.block_index + i < 2; ++i) {
      driver_features |= uint64_t{request.features[i]} << 32 * (request.block_index + i);
    }
    log.push_back(absl::StrCat("set features 0x", absl::Hex(driver_features)));
    bus.Respond(message, wire::SetDriverFeaturesResponse{});
  };
  bus.handlers[wire::MessageId::kGetDeviceStatus] = [this](const wire::Message& message) {
    bus.Respond(message, wire::GetDeviceStatusResponse{status});
  };
  bus.handlers[wire::MessageId::kSetDeviceStatus] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::SetDeviceStatusRequest>(V1(), message).value();
    log.push_back(absl::StrCat("status ", request.status));
    status = request.status & ~status_refused;
    if (request.status == 0) {
      for (Queue& queue : queues) queue.set = {};
    }
    bus.Respond(message, wire::SetDeviceStatusResponse{status});
  };
  HandleConfig();
  HandleQueues();
}

void TestDevice::HandleConfig() {
  bus.handlers[wire::MessageId::kGetConfig] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::GetConfigRequest>(V1(), message).value();
    log.push_back(absl::StrCat("get config ", request.offset, "+", request.length));
    if (before_get_config) before_get_config();
    const std::span<const std::byte> data =
        std::span(config).subspan(request.offset, request.length);
    bus.Respond(message, wire::GetConfigResponse{.generation = generation,
                                                 .offset = request.offset,
                                                 .length = request.length,
                                                 .data = data});
  };
  bus.handlers[wire::MessageId::kSetConfig] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::SetConfigRequest>(V1(), message).value();
    log.push_back(absl::StrCat("set config ", request.offset, " generation ", request.generation));
    const bool taken = request.generation == generation;
    if (taken) std::memcpy(config.data() + request.offset, request.data.data(), request.length);
    bus.Respond(message, wire::SetConfigResponse{.generation = generation,
                                                 .offset = request.offset,
                                                 .length = taken ? request.length : 0});
  };
}

void TestDevice::HandleQueues() {
  bus.handlers[wire::MessageId::kGetVqueue] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::GetVqueueRequest>(V1(), message).value();
    log.push_back(absl::StrCat("get queue ", request.index));
    wire::GetVqueueResponse response = {.index = request.index};
    if (request.index < queues.size()) {
      const Queue& queue = queues[request.index];
      response.max_size = queue.max_size;
      response.cur_size = queue.set.size;
      response.desc_addr = queue.set.desc_addr;
      response.driver_addr = queue.set.driver_addr;
      response.device_addr = queue.set.device_addr;
    }
    bus.Respond(message, response);
  };
  bus.handlers[wire::MessageId::kSetVqueue] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::SetVqueueRequest>(V1(), message).value();
    log.push_back(absl::StrCat("set queue ", request.index, " size ", request.size));
    Queue& queue = queues[request.index];
    queue.set = request;
    queue.ring = std::make_unique<DeviceSideRing>(memory, request.size, request.desc_addr,
                                                  request.driver_addr, request.device_addr,
                                                  (driver_features & wire::kFeatureEventIdx) != 0);
    bus.Respond(message, wire::SetVqueueResponse{});
  };
  bus.handlers[wire::MessageId::kResetVqueue] = [this](const wire::Message& message) {
    const auto request = wire::Parse<wire::ResetVqueueRequest>(V1(), message).value();
    log.push_back(absl::StrCat("reset queue ", request.index));
    queues[request.index].set = {};
    bus.Respond(message, wire::ResetVqueueResponse{});
  };
  bus.handlers[wire::MessageId::kEventAvail] = [this](const wire::Message& message) {
    const auto event = wire::Parse<wire::EventAvail>(V1(), message).value();
    if (on_avail) on_avail(event.vq_index);
  };
}

std::unique_ptr<DeviceClient> TestDevice::Probe() {
  absl::StatusOr<std::unique_ptr<DeviceClient>> client =
      DeviceClient::Probe(bus.bus, memory, dev_num);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

}  // namespace vmsg::frontend
