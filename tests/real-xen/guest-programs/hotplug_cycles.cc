// SPDX-License-Identifier: Apache-2.0
// Devices that come, are used and go, over and over.
//
//   hotplug-cycles attach DOMAIN IMAGE FIRST LAST   in Dom0: what vmsgctl attach and detach do
//   hotplug-cycles serve FIRST LAST                 in the guest: connects to the bus that appears,
//                                                   uses its devices, lets go when it is asked to
//
// The guest says in its nodes data/used and data/left how far it is; both wait for each other.
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

absl::Status AttachOnce(Store& store, const xenstore::BusAddress& bus, const std::string& image,
                        int cycle) {
  const std::string guest = absl::StrCat("/local/domain/", bus.frontend, "/data/");
  const std::string devices = absl::StrCat(bus.BackendPath(), "/", xenstore::kDevice, "/");
  absl::Status status =
      xenstore::AddDevices(store, bus,
                           {{.number = kRng, .type = "rng", .keys = {}},
                            {.number = kBlk, .type = "blk", .keys = {{"path", image}}}})
          .status();
  for (const uint16_t number : {kRng, kBlk}) {
    if (!status.ok()) return status;
    status = AwaitNode(store, absl::StrCat(devices, number, "/", xenstore::kHotplugStatus),
                       xenstore::kStatusConnected);
  }
  if (status.ok()) status = AwaitNode(store, guest + "used", absl::StrCat(cycle));
  // Device by device, asked for or forced, or all at once with the bus.
  if (status.ok() && cycle % 4 != 0) {
    status = xenstore::RequestDeviceRemoval(store, bus, kBlk, /*force=*/cycle % 4 == 1);
    if (status.ok()) status = AwaitGone(store, absl::StrCat(devices, kBlk, "/", xenstore::kType));
  }
  if (status.ok()) status = xenstore::RequestBusRemoval(store, bus);
  if (status.ok()) status = AwaitGone(store, bus.BackendPath() + "/" + xenstore::kState);
  if (status.ok()) status = xenstore::RemoveBus(store, bus);
  if (status.ok()) status = AwaitNode(store, guest + "left", absl::StrCat(cycle));
  return status;
}

absl::Status Attach(uint16_t guest, const std::string& image, int first, int last) {
  absl::StatusOr<std::unique_ptr<Store>> store = xenstore::OpenStore("");
  if (!store.ok()) return store.status();
  const xenstore::BusAddress bus{.frontend = guest, .backend = 0, .id = 0};
  for (const std::string& path :
       {bus.BackendPath(), absl::StrCat("/local/domain/", guest, "/data/used"),
        absl::StrCat("/local/domain/", guest, "/data/left")}) {
    if (absl::Status status = (*store)->Watch(path, "cycle"); !status.ok()) return status;
  }
  for (int cycle = first; cycle <= last; ++cycle) {
    if (absl::Status status = AttachOnce(**store, bus, image, cycle); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("cycle ", cycle, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

// A block written and read back, a few bytes of entropy.
absl::Status Use(BusConnection& bus, BlkDriver& disk, RngDriver& rng, int cycle) {
  std::byte entropy[32] = {};
  absl::Status status = rng.Fill(entropy, After(kPatience));
  if (!status.ok()) return status;
  absl::StatusOr<frontend::GuestBlock> block = bus.memory().Allocate(4096, 4096);
  if (!block.ok()) return block.status();
  std::memset(block->bytes().data(), cycle, block->size());
  status = disk.Write(4096, block->address(), block->size(), After(kPatience));
  std::memset(block->bytes().data(), ~cycle, block->size());
  if (status.ok()) status = disk.Read(4096, block->address(), block->size(), After(kPatience));
  if (!status.ok()) return status;
  for (const std::byte byte : block->bytes()) {
    if (byte != static_cast<std::byte>(cycle)) return absl::DataLossError("not what was written");
  }
  return absl::OkStatus();
}

absl::Status ServeOnce(Store& store, grants::Platform& platform, int cycle) {
  absl::Status status = Await(store, "a bus", [&]() -> absl::StatusOr<bool> {
    return store.Read("device/virtio-msg/0/backend-id").ok();
  });
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<BusConnection>> bus =
      BusConnection::Open(platform, {.pages = 64, .ring_order = 1, .timeout = kPatience});
  if (!bus.ok()) return bus.status();
  absl::StatusOr<std::unique_ptr<DeviceClient>> client =
      DeviceClient::Probe((*bus)->bus(), (*bus)->memory(), kRng);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<RngDriver>> rng = RngDriver::Create(*std::move(client));
  if (!rng.ok()) return rng.status();
  client = DeviceClient::Probe((*bus)->bus(), (*bus)->memory(), kBlk);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<BlkDriver>> disk =
      BlkDriver::Create(*std::move(client), {.depth = 4, .queue_size = 16});
  if (!disk.ok()) return disk.status();
  status = Use(**bus, **disk, **rng, cycle);
  if (status.ok()) status = store.Write("data/used", absl::StrCat(cycle));
  if (!status.ok()) return status;

  // The disk's removal, if it is asked for, and the bus's, which always comes.
  const DeviceClient& state = (*disk)->client();
  status = (*bus)->bus().WaitUntil([&] { return state.removal_requested() || state.removed(); },
                                   After(kPatience));
  if (status.ok()) {
    (*disk)->Quiesce(After(kPatience)).IgnoreError();
    disk->reset();
    status = (*bus)->bus().WaitUntil([] { return false; }, After(kPatience));
  }
  if (!absl::IsUnavailable(status)) {
    return absl::InternalError(absl::StrCat("the bus did not end: ", status.message()));
  }
  disk->reset();
  rng->reset();
  status = (*bus)->Close();
  // The toolstack removes this directory last; the next one is another bus.
  if (status.ok()) status = AwaitGone(store, "device/virtio-msg/0/backend-id");
  return status.ok() ? store.Write("data/left", absl::StrCat(cycle)) : status;
}

absl::Status Serve(int first, int last) {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
  if (!platform.ok()) return platform.status();
  absl::StatusOr<std::unique_ptr<Store>> store = xenstore::OpenStore((*platform)->store_socket());
  if (!store.ok()) return store.status();
  if (absl::Status status = (*store)->Watch("device", "bus"); !status.ok()) return status;
  for (int cycle = first; cycle <= last; ++cycle) {
    if (absl::Status status = ServeOnce(**store, **platform, cycle); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("cycle ", cycle, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  int domain = 0, first = 0, last = 0;
  absl::Status status =
      absl::InvalidArgumentError("attach DOMAIN IMAGE FIRST LAST, or serve FIRST LAST");
  if (words.size() == 5 && words[0] == "attach" && absl::SimpleAtoi(words[1], &domain) &&
      absl::SimpleAtoi(words[3], &first) && absl::SimpleAtoi(words[4], &last)) {
    status = Attach(static_cast<uint16_t>(domain), words[2], first, last);
  } else if (words.size() == 3 && words[0] == "serve" && absl::SimpleAtoi(words[1], &first) &&
             absl::SimpleAtoi(words[2], &last)) {
    status = Serve(first, last);
  }
  if (status.ok()) return 0;
  std::cerr << "hotplug-cycles: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace vmsg::test

int main(int argc, char** argv) { return vmsg::test::Main(argc, argv); }
