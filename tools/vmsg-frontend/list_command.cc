// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend list
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/vmsg-frontend/commands.h"
#include "virtio-msg/virtio_blk.h"
#include "virtio-msg/virtio_console.h"
#include "virtio-msg/virtio_ids.h"
#include "xenstore/bus_offer.h"
#include "xenstore/store.h"

namespace vmsg::frontend_tool {
namespace {

struct FeatureName {
  uint64_t mask;
  const char* name;
};

constexpr FeatureName kTransportFeatures[] = {
    {wire::kFeatureIndirectDesc, "INDIRECT_DESC"},
    {wire::kFeatureEventIdx, "EVENT_IDX"},
    {wire::kFeatureVersion1, "VERSION_1"},
    {wire::kFeatureAccessPlatform, "ACCESS_PLATFORM"},
    {wire::kFeatureRingPacked, "RING_PACKED"},
    {wire::kFeatureInOrder, "IN_ORDER"},
    {wire::kFeatureOrderPlatform, "ORDER_PLATFORM"},
    {wire::kFeatureNotificationData, "NOTIFICATION_DATA"},
    {wire::kFeatureRingReset, "RING_RESET"},
};
constexpr FeatureName kBlkFeatures[] = {
    {wire::kBlkFeatureSizeMax, "SIZE_MAX"},
    {wire::kBlkFeatureSegMax, "SEG_MAX"},
    {wire::kBlkFeatureGeometry, "GEOMETRY"},
    {wire::kBlkFeatureReadOnly, "RO"},
    {wire::kBlkFeatureBlkSize, "BLK_SIZE"},
    {wire::kBlkFeatureFlush, "FLUSH"},
    {wire::kBlkFeatureTopology, "TOPOLOGY"},
    {wire::kBlkFeatureConfigWce, "CONFIG_WCE"},
    {wire::kBlkFeatureMultiQueue, "MQ"},
    {wire::kBlkFeatureDiscard, "DISCARD"},
    {wire::kBlkFeatureWriteZeroes, "WRITE_ZEROES"},
};
constexpr FeatureName kConsoleFeatures[] = {
    {wire::kConsoleFeatureSize, "SIZE"},
    {wire::kConsoleFeatureMultiport, "MULTIPORT"},
    {wire::kConsoleFeatureEmergencyWrite, "EMERG_WRITE"},
};

std::string FeatureText(uint32_t device_id, uint64_t features) {
  std::vector<std::string> names;
  const auto take = [&](std::span<const FeatureName> known) {
    for (const FeatureName& feature : known) {
      if ((features & feature.mask) == 0) continue;
      names.push_back(feature.name);
      features &= ~feature.mask;
    }
  };
  if (device_id == wire::kDeviceIdBlock) take(kBlkFeatures);
  if (device_id == wire::kDeviceIdConsole) take(kConsoleFeatures);
  take(kTransportFeatures);
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((features >> bit & 1) != 0) names.push_back(absl::StrCat("bit ", bit));
  }
  return absl::StrJoin(names, " ");
}

absl::StatusOr<std::string> ConfigText(frontend::DeviceClient& device) {
  const uint32_t size = device.info().config_size;
  if (device.info().device_id == wire::kDeviceIdBlock && size >= 8) {
    wire::BlkConfig config = {};
    absl::Status status = device.ReadConfig(0, std::as_writable_bytes(std::span(&config, 1))
                                                   .first(std::min<size_t>(size, sizeof(config))));
    if (!status.ok()) return status;
    return absl::StrCat("capacity ", config.capacity * wire::kBlkSectorSize, " bytes, block size ",
                        config.blk_size, ", seg_max ", config.seg_max, ", size_max ",
                        config.size_max, ", writeback ", config.writeback);
  }
  if (device.info().device_id == wire::kDeviceIdConsole && size >= 4) {
    wire::ConsoleConfig config = {};
    absl::Status status =
        device.ReadConfig(0, std::as_writable_bytes(std::span(&config, 1)).first(4));
    if (!status.ok()) return status;
    return absl::StrCat(config.cols, " columns, ", config.rows, " rows");
  }
  return absl::StrCat(size, " bytes");
}

absl::Status ListDevice(frontend::BusConnection& connection, uint16_t number) {
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
      frontend::DeviceClient::Probe(connection.bus(), connection.memory(), number);
  // Taken away between the walk and now.
  if (absl::IsNotFound(device.status())) return absl::OkStatus();
  if (!device.ok()) return device.status();
  absl::StatusOr<std::vector<uint32_t>> words = (*device)->ReadFeatures();
  if (!words.ok()) return words.status();
  uint64_t features = 0;
  for (size_t i = 0; i < words->size() && i < 2; ++i) features |= uint64_t{(*words)[i]} << 32 * i;
  absl::StatusOr<std::string> config = ConfigText(**device);
  if (!config.ok()) return config.status();
  std::vector<std::string> queues;
  constexpr uint32_t kMostShown = 32;
  for (uint32_t i = 0; i < (*device)->info().max_virtqueues && i < kMostShown; ++i) {
    absl::StatusOr<frontend::QueueInfo> queue = (*device)->ReadQueueInfo(i);
    if (!queue.ok()) return queue.status();
    queues.push_back(absl::StrCat(queue->max_size));
  }
  const uint32_t type = (*device)->info().device_id;
  std::printf("%5u  %-8s vendor 0x%04x\n", number, DeviceTypeName(type).c_str(),
              (*device)->info().vendor_id);
  std::printf("       features  %s\n", FeatureText(type, features).c_str());
  std::printf("       queues    %u, of at most %s entries\n", (*device)->info().max_virtqueues,
              absl::StrJoin(queues, ", ").c_str());
  std::printf("       config    %s\n", config->c_str());
  return absl::OkStatus();
}

}  // namespace

std::string DeviceTypeName(uint32_t device_id) {
  switch (device_id) {
    case wire::kDeviceIdNet:
      return "net";
    case wire::kDeviceIdBlock:
      return "blk";
    case wire::kDeviceIdConsole:
      return "console";
    case wire::kDeviceIdEntropy:
      return "rng";
    default:
      return absl::StrCat("type ", device_id);
  }
}

absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> OpenDevice(
    frontend::BusConnection& connection, const Arguments& arguments, uint32_t device_id,
    const std::string& type) {
  absl::StatusOr<uint64_t> number = arguments.Number("dev", 0, 0, 65535);
  if (!number.ok()) return number.status();
  const auto find = [&]() -> absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> {
    if (arguments.Has("dev")) {
      return frontend::DeviceClient::Probe(connection.bus(), connection.memory(),
                                           static_cast<uint16_t>(*number));
    }
    absl::StatusOr<std::vector<uint16_t>> devices =
        connection.bus().ListDevices(frontend::After(kPatience));
    if (!devices.ok()) return devices.status();
    for (const uint16_t candidate : *devices) {
      absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
          frontend::DeviceClient::Probe(connection.bus(), connection.memory(), candidate);
      if (absl::IsNotFound(device.status())) continue;
      if (!device.ok() || (*device)->info().device_id == device_id) return device;
    }
    return absl::NotFoundError(absl::StrCat("the bus has no device of type ", type));
  };
  // Also after the backend was lost and has come back: it opens its devices anew.
  frontend::Deadline deadline = frontend::After(std::chrono::seconds(1));
  uint64_t losses = connection.bus().losses();
  bool news = false;
  connection.bus().SetBusStateListener([&news](const wire::EventDevice&) { news = true; });
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device = find();
  while (absl::IsNotFound(device.status()) &&
         connection.bus().WaitUntil([&news] { return news; }, deadline).ok()) {
    news = false;
    device = find();
    if (std::exchange(losses, connection.bus().losses()) != connection.bus().losses()) {
      deadline = std::max(deadline, frontend::After(std::chrono::seconds(10)));
    }
  }
  connection.bus().SetBusStateListener(nullptr);
  return device;
}

void PrintBusStates(frontend::FrontendBus& bus, FILE* out) {
  std::setvbuf(out, nullptr, _IOLBF, 0);
  bus.SetBusStateListener([out](const wire::EventDevice& event) {
    std::string state = absl::StrCat("state ", event.device_bus_state);
    if (event.device_bus_state == wire::kDeviceReady) state = "ready";
    if (event.device_bus_state == wire::kDeviceRemoved) state = "removed";
    if (event.device_bus_state == wire::kDeviceRemovalRequested) state = "removal requested";
    std::fprintf(out, "device %u %s\n", event.device_number, state.c_str());
  });
}

absl::Status WriteAll(int fd, const void* bytes, size_t size) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t written = ::write(fd, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "write");
    at += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ListHeldBus(const grants::Platform& platform, uint32_t bus_id) {
  absl::StatusOr<std::optional<std::string>> holder =
      frontend::BusClaim::Holder(frontend::ClaimPlaces::Of(platform), bus_id);
  if (!holder.ok()) return holder.status();
  if (!holder->has_value()) return false;
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore(platform.store_socket());
  if (!store.ok()) return store.status();
  absl::StatusOr<xenstore::BusAddress> bus = xenstore::ReadOwnBus(**store, bus_id);
  if (!bus.ok()) return bus.status();
  absl::StatusOr<xenstore::XenbusState> state = xenstore::ReadState(**store, bus->BackendPath());
  std::printf(
      "bus %u: in use by %s, which alone can ask for its devices; its backend in domain %u "
      "is %s\n",
      bus_id, (*holder)->c_str(), bus->backend,
      state.ok() ? std::string(xenstore::StateName(*state)).c_str() : "gone");
  return true;
}

absl::Status RunList(frontend::BusConnection& connection, const Arguments&) {
  absl::StatusOr<std::vector<uint16_t>> devices =
      connection.bus().ListDevices(frontend::After(kPatience));
  if (!devices.ok()) return devices.status();
  std::printf("bus %u: %zu device%s, window %u pages, messages of at most %zu bytes\n",
              connection.address().id, devices->size(), devices->size() == 1 ? "" : "s",
              connection.memory().pages(), connection.bus().link().max_message_size());
  for (const uint16_t number : *devices) {
    if (absl::Status status = ListDevice(connection, number); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace vmsg::frontend_tool
