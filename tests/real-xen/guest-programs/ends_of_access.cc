// SPDX-License-Identifier: Apache-2.0
// In a guest whose device 0 is a slow disk: each way in which memory goes back to the driver
// (docs/binding.md, "The end of access") with reads and writes in flight. When the answer is there
// the driver uses the memory for something else, and finds that unchanged when the disk has done
// everything.
//
//   ends-of-access reset|queue-reset|withdrawal|polite-removal|removal|end-of-bus
//
// In the guest's node data/ends it says "busy" when requests are at the disk, "answered" when the
// memory is its own; then it waits for a line on standard input. For a removal Dom0 asks or forces.
#include <poll.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/transport/device_client.h"
#include "grants/platform.h"
#include "virtio-msg/virtio_blk.h"
#include "xenstore/bus_nodes.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BusConnection;
using frontend::DeviceClient;
using frontend::DriverQueue;
using frontend::GuestBlock;
using xenstore::XenbusState;

constexpr auto kPatience = std::chrono::minutes(5);
constexpr uint32_t kWindowPages = 512, kExtensionPages = 128;
constexpr uint64_t kPage = 4096;
constexpr uint32_t kRequests = 16, kTransfer = 16 * 1024;
constexpr std::byte kPoison{0xee};  // Dom0 looks for it on the disk

class Driver {
 public:
  explicit Driver(grants::Platform& platform) : platform_(platform) {}

  absl::Status Connect() {
    absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
        xenstore::OpenStore(platform_.store_socket());
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    absl::StatusOr<std::unique_ptr<BusConnection>> bus =
        BusConnection::Open(platform_, {.pages = kWindowPages, .timeout = kPatience});
    if (!bus.ok()) return bus.status();
    bus_ = *std::move(bus);
    absl::StatusOr<uint32_t> extension = bus_->ExtendWindow(kExtensionPages, After(kPatience));
    if (!extension.ok()) return extension.status();
    extension_ = *extension;
    absl::StatusOr<std::unique_ptr<DeviceClient>> device =
        DeviceClient::Probe(bus_->bus(), bus_->memory(), 0, kPatience);
    if (!device.ok()) return device.status();
    device_ = *std::move(device);
    if (absl::Status status = device_->Negotiate(wire::kFeatureRingReset).status(); !status.ok()) {
      return status;
    }
    absl::StatusOr<DriverQueue*> queue = device_->SetUpQueue(0, 4 * kRequests);
    if (!queue.ok()) return queue.status();
    queue_ = *queue;
    return device_->Start();
  }

  // Reads and writes at the disk, of which one is over: an event may be due for it.
  absl::Status MakeBusy() {
    absl::StatusOr<GuestBlock> data =
        bus_->memory().Allocate(kRequests * kTransfer, kPage, extension_ * kPage);
    absl::StatusOr<GuestBlock> headers = bus_->memory().Allocate(kRequests * 64, 64);
    if (!data.ok()) return data.status();
    if (!headers.ok()) return headers.status();
    data_ = *std::move(data);
    headers_ = *std::move(headers);
    for (uint32_t i = 0; i < kRequests; ++i) {
      if (absl::Status status = Add(i); !status.ok()) return status;
    }
    if (absl::Status status = device_->Publish(0); !status.ok()) return status;
    absl::Status status =
        bus_->bus().WaitUntil([this] { return queue_->HasUsed(); }, After(kPatience));
    return status.ok() ? Say("busy") : status;
  }

  absl::Status Reset() { return device_->Reset(); }
  absl::Status ResetQueue() {
    if (!device_->has_feature(wire::kFeatureRingReset)) {
      return absl::FailedPreconditionError("the device does not offer RING_RESET");
    }
    return device_->ResetQueue(0);
  }
  // The backend may not answer before the disk is done with what lies there.
  absl::Status Withdraw() {
    data_.Reset();
    withdrawn_ = true;
    return bus_->WithdrawWindow(extension_, kExtensionPages, After(kPatience));
  }
  absl::Status AnswerPoliteRemoval() {
    absl::Status status = StayBusyUntil([this] { return device_->removal_requested(); });
    if (status.ok()) status = device_->Reset();
    // The reset's answer has come before; this says the same.
    return device_->removed() ? absl::OkStatus() : status;
  }
  // Whatever was asked before: the driver goes on until the device is gone.
  absl::Status AwaitRemoval() {
    return StayBusyUntil([this] { return device_->removed(); });
  }
  absl::Status EndBus() {
    const xenstore::BusAddress& address = bus_->address();
    absl::Status status =
        xenstore::WriteState(*store_, address.FrontendPath(), XenbusState::kClosed);
    if (status.ok()) status = store_->Watch(address.BackendPath() + "/state", "state");
    while (status.ok()) {
      absl::StatusOr<XenbusState> state = xenstore::ReadState(*store_, address.BackendPath());
      if (!state.ok()) return state.status();
      // 2: it was 6 before.
      if (*state == XenbusState::kClosed || *state == XenbusState::kInitWait) break;
      pollfd ready = {.fd = store_->fd(), .events = POLLIN};
      if (::poll(&ready, 1, static_cast<int>(kPatience / std::chrono::milliseconds(1))) != 1) {
        return absl::DeadlineExceededError("the backend does not close the bus");
      }
      status = store_->TakeWatchEvents().status();
    }
    return status;
  }

  absl::Status Poison() {
    for (const auto& [first, bytes] : Memory()) std::memset(bytes, int(kPoison), Size(first));
    return Say("answered");
  }
  absl::Status Check() {
    for (const auto& [first, bytes] : Memory()) {
      for (uint64_t i = 0; i < Size(first); ++i) {
        if (bytes[i] == kPoison) continue;
        return absl::DataLossError(absl::StrCat("byte ", first * kPage + i, " of the window is ",
                                                int(bytes[i]),
                                                " after the answer that gave it back"));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Add(uint32_t number) {
    const bool read = number % 2 == 0;
    const uint64_t header = headers_.address() + uint64_t{64} * number;
    const uint64_t data = data_.address() + uint64_t{kTransfer} * number;
    const wire::BlkRequestHeader request = {
        .type = read ? wire::kBlkRequestIn : wire::kBlkRequestOut,
        .reserved = 0,
        .sector = uint64_t{number} * kTransfer / 512};
    std::memcpy(bus_->memory().At(header, sizeof request), &request, sizeof request);
    std::memset(bus_->memory().At(data, kTransfer), 'w', kTransfer);
    absl::StatusOr<bool> added =
        queue_->Add({{.address = header, .size = 16},
                     {.address = data, .size = kTransfer, .device_writes = read},
                     {.address = header + 32, .size = 1, .device_writes = true}},
                    number);
    if (!added.ok()) return added.status();
    return *added ? absl::OkStatus() : absl::InternalError("the queue is too small");
  }
  // What the disk has done it gets again: all requests are always there.
  absl::Status Refill() {
    bool more = false;
    for (;;) {
      absl::StatusOr<std::optional<DriverQueue::Completion>> done = queue_->Pop();
      if (!done.ok()) return done.status();
      if (!*done) return more ? device_->Publish(0) : absl::OkStatus();
      if (absl::Status status = Add(static_cast<uint32_t>((*done)->cookie)); !status.ok()) {
        return status;
      }
      more = true;
    }
  }
  absl::Status StayBusyUntil(absl::FunctionRef<bool()> end) {
    absl::Status refilled;
    absl::Status status = bus_->bus().WaitUntil(
        [&] {
          if (end()) return true;
          refilled = Refill();
          return !refilled.ok();
        },
        After(kPatience));
    return status.ok() ? refilled : status;
  }
  absl::Status Say(absl::string_view step) { return store_->Write("data/ends", step); }
  uint64_t Size(uint32_t first) const {
    return kPage * (first == extension_ ? kExtensionPages : kWindowPages);
  }
  // What the driver has back, by its first page. What was withdrawn is no memory any more, and the
  // rest of the window was not given back with it.
  std::map<uint32_t, std::byte*> Memory() {
    if (withdrawn_) return {};
    return {{0, bus_->memory().At(0, Size(0))},
            {extension_, bus_->memory().At(extension_ * kPage, Size(extension_))}};
  }

  grants::Platform& platform_;
  std::unique_ptr<xenstore::Store> store_;
  std::unique_ptr<BusConnection> bus_;
  std::unique_ptr<DeviceClient> device_;
  DriverQueue* queue_ = nullptr;
  uint32_t extension_ = 0;  // its first page
  bool withdrawn_ = false;
  GuestBlock data_, headers_;
};

absl::Status Run(absl::string_view way) {
  const std::map<absl::string_view, absl::Status (Driver::*)()> ways = {
      {"reset", &Driver::Reset},          {"queue-reset", &Driver::ResetQueue},
      {"withdrawal", &Driver::Withdraw},  {"polite-removal", &Driver::AnswerPoliteRemoval},
      {"removal", &Driver::AwaitRemoval}, {"end-of-bus", &Driver::EndBus},
  };
  const auto end = ways.find(way);
  if (end == ways.end()) return absl::InvalidArgumentError(absl::StrCat("no such way: ", way));
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
  if (!platform.ok()) return platform.status();
  Driver driver(**platform);
  absl::Status status = driver.Connect();
  if (status.ok()) status = driver.MakeBusy();
  if (status.ok()) status = (driver.*end->second)();
  if (status.ok()) status = driver.Poison();
  if (status.ok()) {
    std::string line;
    std::getline(std::cin, line);
    status = driver.Check();
  }
  std::cout << way << ": " << (status.ok() ? "nothing was touched" : status.message()) << std::endl;
  // Nothing is taken down in an orderly way: the rings are gone.
  std::_Exit(status.ok() ? 0 : 1);
}

int Main(int argc, char** argv) {
  const absl::Status status = Run(argc == 2 ? argv[1] : "");
  std::cerr << "ends-of-access: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace vmsg::test

int main(int argc, char** argv) { return vmsg::test::Main(argc, argv); }
