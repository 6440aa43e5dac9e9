// SPDX-License-Identifier: Apache-2.0
// Buses and devices that come, are used and go, over and over.
//
//   hotplug-cycles attach DOMAIN IMAGE BUSES DISKS   in Dom0, what vmsgctl attach and detach do:
//   BUSES
//                                                    times a bus, on each DISKS times a disk
//   hotplug-cycles serve BUSES DISKS                 in the guest: connects to the bus that
//   appears,
//                                                    uses each disk, lets go when it is asked to
//
// The guest says in its node data/step how far it is: "<bus>.0" connected, "<bus>.<n>" disk n used,
// "<bus>.left" the bus is gone. Each side waits for the other, so both know what comes next.
#include <poll.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/drivers/rng_driver.h"
#include "grants/platform.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/bus_creation.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::BusConnection;
using frontend::DeviceClient;
using frontend::RngDriver;
using xenstore::Store;

constexpr auto kPatience = std::chrono::minutes(1);
constexpr uint16_t kRng = 0, kBlk = 1;
constexpr char kStep[] = "data/step", kLeft[] = "left";

// Until the condition holds; it is asked again whenever something changed below a watched path.
absl::Status Await(Store& store, absl::string_view what,
                   absl::FunctionRef<absl::StatusOr<bool>()> condition) {
  const frontend::Deadline deadline = After(kPatience);
  for (;;) {
    absl::StatusOr<std::vector<xenstore::WatchEvent>> events = store.TakeWatchEvents();
    if (!events.ok()) return events.status();
    absl::StatusOr<bool> holds = condition();
    if (!holds.ok() || *holds) return holds.status();
    pollfd ready = {.fd = store.fd(), .events = POLLIN};
    ::poll(&ready, 1, frontend::PollTimeout(deadline));
    if (ready.revents == 0 && frontend::Clock::now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("waited in vain for ", what));
    }
  }
}

absl::StatusOr<bool> Equals(Store& store, const std::string& path, absl::string_view wanted) {
  absl::StatusOr<std::string> value = store.Read(path);
  if (absl::IsNotFound(value.status())) return false;
  if (!value.ok()) return value.status();
  return *value == wanted;
}

absl::Status AwaitNode(Store& store, const std::string& path, absl::string_view wanted) {
  return Await(store, absl::StrCat(path, " = ", wanted),
               [&] { return Equals(store, path, wanted); });
}

absl::Status AwaitGone(Store& store, const std::string& path) {
  return Await(store, absl::StrCat("the end of ", path), [&]() -> absl::StatusOr<bool> {
    absl::StatusOr<std::string> value = store.Read(path);
    // A guest is not told what is missing where it may not look.
    if (absl::IsNotFound(value.status()) || absl::IsPermissionDenied(value.status())) return true;
    if (!value.ok()) return value.status();
    return false;
  });
}

// How far the guest says that it is.
absl::Status AwaitStep(Store& store, uint16_t guest, int bus, absl::string_view step) {
  return AwaitNode(store, absl::StrCat("/local/domain/", guest, "/", kStep),
                   absl::StrCat(bus, ".", step));
}

absl::Status Add(Store& store, const xenstore::BusAddress& bus,
                 const xenstore::DeviceNodesToWrite& device) {
  absl::Status status = xenstore::AddDevices(store, bus, {device}).status();
  if (!status.ok()) return status;
  return AwaitNode(store,
                   absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/", device.number, "/",
                                xenstore::kHotplugStatus),
                   xenstore::kStatusConnected);
}

// A disk, used by the guest; all but the last one of a bus go by themselves: asked for, or forced.
absl::Status AttachDisk(Store& store, const xenstore::BusAddress& address, const std::string& image,
                        int bus, int disk, bool last) {
  absl::Status status =
      Add(store, address, {.number = kBlk, .type = "blk", .keys = {{"path", image}}});
  if (status.ok()) status = AwaitStep(store, address.frontend, bus, absl::StrCat(disk));
  if (!status.ok() || last) return status;
  status = xenstore::RequestDeviceRemoval(store, address, kBlk, /*force=*/disk % 2 == 0).status();
  if (!status.ok()) return status;
  return AwaitGone(store, absl::StrCat(address.BackendPath(), "/", xenstore::kDevice, "/", kBlk,
                                       "/", xenstore::kType));
}

absl::Status AttachBus(Store& store, const xenstore::BusAddress& address, const std::string& image,
                       int bus, int disks) {
  absl::Status status = Add(store, address, {.number = kRng, .type = "rng", .keys = {}});
  if (status.ok()) status = AwaitStep(store, address.frontend, bus, "0");
  for (int disk = 1; disk <= disks && status.ok(); ++disk) {
    status = AttachDisk(store, address, image, bus, disk, disk == disks);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("disk ", disk, ": ", status.message()));
    }
  }
  if (status.ok()) status = xenstore::RequestBusRemoval(store, address);
  if (status.ok()) status = AwaitGone(store, address.BackendPath() + "/" + xenstore::kState);
  if (status.ok()) status = xenstore::RemoveBus(store, address);
  if (status.ok()) status = AwaitStep(store, address.frontend, bus, kLeft);
  return status;
}

absl::Status Attach(uint16_t guest, const std::string& image, int buses, int disks) {
  absl::StatusOr<std::unique_ptr<Store>> store = xenstore::OpenStore("");
  if (!store.ok()) return store.status();
  const xenstore::BusAddress address{.frontend = guest, .backend = 0, .id = 0};
  for (const std::string& path :
       {address.BackendPath(), absl::StrCat("/local/domain/", guest, "/", kStep)}) {
    if (absl::Status status = (*store)->Watch(path, "cycle"); !status.ok()) return status;
  }
  for (int bus = 1; bus <= buses; ++bus) {
    if (absl::Status status = AttachBus(**store, address, image, bus, disks); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("bus ", bus, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

// A block written and read back.
absl::Status Use(BusConnection& bus, BlkDriver& disk, int value) {
  absl::StatusOr<frontend::GuestBlock> block = bus.memory().Allocate(4096, 4096);
  if (!block.ok()) return block.status();
  std::memset(block->bytes().data(), value, block->size());
  absl::Status status = disk.Write(4096, block->address(), block->size(), After(kPatience));
  std::memset(block->bytes().data(), ~value, block->size());
  if (status.ok()) status = disk.Read(4096, block->address(), block->size(), After(kPatience));
  if (!status.ok()) return status;
  for (const std::byte byte : block->bytes()) {
    if (byte != static_cast<std::byte>(value)) return absl::DataLossError("not what was written");
  }
  return absl::OkStatus();
}

// From the disk's appearance until it is asked to go, or has gone, or the bus is closed.
absl::Status ServeDisk(Store& store, BusConnection& bus, int number, int disk) {
  absl::StatusOr<std::unique_ptr<DeviceClient>> client =
      DeviceClient::Probe(bus.bus(), bus.memory(), kBlk);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<BlkDriver>> driver =
      BlkDriver::Create(*std::move(client), {.depth = 4, .queue_size = 16});
  if (!driver.ok()) return driver.status();
  absl::Status status = Use(bus, **driver, disk);
  if (status.ok()) status = store.Write(kStep, absl::StrCat(number, ".", disk));
  if (!status.ok()) return status;
  const DeviceClient& state = (*driver)->client();
  status = bus.bus().WaitUntil([&] { return state.removal_requested() || state.removed(); },
                               After(kPatience));
  if (!status.ok()) return status;
  (*driver)->Quiesce(After(kPatience)).IgnoreError();  // the disk may go meanwhile
  return bus.bus().WaitUntil([&] { return state.removed(); }, After(kPatience));
}

absl::Status UseEntropy(BusConnection& bus) {
  absl::StatusOr<std::unique_ptr<DeviceClient>> client =
      DeviceClient::Probe(bus.bus(), bus.memory(), kRng);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<RngDriver>> rng = RngDriver::Create(*std::move(client));
  if (!rng.ok()) return rng.status();
  std::byte entropy[32] = {};
  return (*rng)->Fill(entropy, After(kPatience));
}

absl::Status ServeBus(Store& store, grants::Platform& platform, int number, int disks) {
  absl::Status status = Await(store, "a bus", [&]() -> absl::StatusOr<bool> {
    return store.Read("device/virtio-msg/0/backend-id").ok();
  });
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<BusConnection>> bus =
      BusConnection::Open(platform, {.pages = 64, .ring_order = 1, .timeout = kPatience});
  if (!bus.ok()) return bus.status();
  int appeared = 0;
  (*bus)->bus().SetBusStateListener([&](const wire::EventDevice& event) {
    if (event.device_number == kBlk && event.device_bus_state == wire::kDeviceReady) ++appeared;
  });
  status = UseEntropy(**bus);
  if (status.ok()) status = store.Write(kStep, absl::StrCat(number, ".0"));
  for (int disk = 1; disk <= disks && status.ok(); ++disk) {
    status = (*bus)->bus().WaitUntil([&] { return appeared == disk; }, After(kPatience));
    if (status.ok()) status = ServeDisk(store, **bus, number, disk);
  }
  // The last disk was asked for because its bus is to go, which fails whatever waits on it.
  if (status.ok()) {
    status = (*bus)->bus().WaitUntil([] { return false; }, After(kPatience));
  }
  if (!absl::IsUnavailable(status)) {
    return absl::InternalError(absl::StrCat("the bus did not end: ", status.message()));
  }
  status = (*bus)->Close();
  // The toolstack removes this directory last; the next one is another bus.
  if (status.ok()) status = AwaitGone(store, "device/virtio-msg/0/backend-id");
  return status.ok() ? store.Write(kStep, absl::StrCat(number, ".", kLeft)) : status;
}

absl::Status Serve(int buses, int disks) {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
  if (!platform.ok()) return platform.status();
  absl::StatusOr<std::unique_ptr<Store>> store = xenstore::OpenStore((*platform)->store_socket());
  if (!store.ok()) return store.status();
  if (absl::Status status = (*store)->Watch("device", "bus"); !status.ok()) return status;
  for (int bus = 1; bus <= buses; ++bus) {
    if (absl::Status status = ServeBus(**store, **platform, bus, disks); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("bus ", bus, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  int domain = 0, buses = 0, disks = 0;
  absl::Status status =
      absl::InvalidArgumentError("attach DOMAIN IMAGE BUSES DISKS, or serve BUSES DISKS");
  if (words.size() == 5 && words[0] == "attach" && absl::SimpleAtoi(words[1], &domain) &&
      absl::SimpleAtoi(words[3], &buses) && absl::SimpleAtoi(words[4], &disks)) {
    status = Attach(static_cast<uint16_t>(domain), words[2], buses, disks);
  } else if (words.size() == 3 && words[0] == "serve" && absl::SimpleAtoi(words[1], &buses) &&
             absl::SimpleAtoi(words[2], &disks)) {
    status = Serve(buses, disks);
  }
  if (status.ok()) return 0;
  std::cerr << "hotplug-cycles: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace vmsg::test

int main(int argc, char** argv) { return vmsg::test::Main(argc, argv); }
