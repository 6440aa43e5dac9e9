// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend ping, rng, hold
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/rng_driver.h"
#include "tools/vmsg-frontend/commands.h"
#include "tools/vmsg-frontend/latencies.h"
#include "virtio-msg/virtio_ids.h"

namespace vmsg::frontend_tool {

using frontend::After;

absl::Status RunPing(frontend::BusConnection& connection, const Arguments& arguments) {
  absl::StatusOr<uint64_t> count = arguments.Number("count", 10, 1, 1'000'000'000);
  if (!count.ok()) return count.status();
  Latencies latencies;
  const frontend::Deadline begin = frontend::Clock::now();
  for (uint64_t i = 0; i < *count; ++i) {
    absl::StatusOr<frontend::Clock::duration> time =
        connection.bus().Ping(static_cast<uint32_t>(i), After(kPatience));
    if (!time.ok()) return time.status();
    latencies.Add(*time);
  }
  const double mean =
      std::chrono::duration<double, std::micro>(frontend::Clock::now() - begin).count() /
      static_cast<double>(*count);
  std::printf(arguments.Has("json")
                  ? "{\"count\":%llu,\"mean_us\":%.2f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
                    "\"max_us\":%.2f}\n"
                  : "%llu pings: mean %.2f us, p50 %.2f, p99 %.2f, max %.2f\n",
              static_cast<unsigned long long>(*count), mean, latencies.Percentile(50),
              latencies.Percentile(99), latencies.Max());
  return absl::OkStatus();
}

absl::Status RunRng(frontend::BusConnection& connection, const Arguments& arguments) {
  absl::StatusOr<uint64_t> bytes = arguments.Number("bytes", 32, 1, uint64_t{1} << 40);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
      OpenDevice(connection, arguments, wire::kDeviceIdEntropy, "rng");
  if (!device.ok()) return device.status();
  absl::StatusOr<std::unique_ptr<frontend::RngDriver>> rng =
      frontend::RngDriver::Create(*std::move(device));
  if (!rng.ok()) return rng.status();
  std::vector<std::byte> buffer(std::min<uint64_t>(*bytes, uint64_t{64} << 10));
  for (uint64_t left = *bytes; left > 0;) {
    const size_t piece = std::min<uint64_t>(left, buffer.size());
    absl::Status status = (*rng)->Fill(std::span(buffer).first(piece), After(kPatience));
    if (status.ok()) status = WriteAll(STDOUT_FILENO, buffer.data(), piece);
    if (!status.ok()) return status;
    left -= piece;
  }
  return absl::OkStatus();
}

absl::Status RunHold(frontend::BusConnection& connection, const Arguments&) {
  frontend::FrontendBus& bus = connection.bus();
  PrintBusStates(bus, stdout);
  bool ended = false;
  bus.AddFd(STDIN_FILENO, [&ended] {
    char ignored[256];
    const ssize_t count = ::read(STDIN_FILENO, ignored, sizeof(ignored));
    ended = count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN);
    return absl::OkStatus();
  });
  std::printf("connected\n");
  absl::Status status = bus.WaitUntil([&ended] { return ended; }, frontend::Deadline::max());
  bus.RemoveFd(STDIN_FILENO);
  bus.SetBusStateListener(nullptr);
  return status;
}

}  // namespace vmsg::frontend_tool
