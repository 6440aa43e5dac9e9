// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "frontend-model/drivers/blk_driver.h"
#include "frontend-model/hostile/hostile_driver.h"
#include "tests/benchmarks/figure.h"
#include "tests/benchmarks/sections.h"
#include "tests/end-to-end/machine.h"
#include "tools/vmsg-frontend/latencies.h"

namespace vmsg::bench {
namespace {

constexpr auto kStormPatience = std::chrono::seconds(60);
constexpr uint32_t kBlock = 4096;
constexpr size_t kStormImageBytes = size_t{16} << 20;

// Another guest's processor. It is busy in either case: what is compared is what its events do to
// the service, not what a busy processor does to the machine.
class Neighbour {
 public:
  explicit Neighbour(frontend::FrontendBus& bus) : raw_(bus, /*consume=*/true) {
    thread_ = std::thread([this] {
      while (!stop_.load(std::memory_order_relaxed)) {
        if (storm_.load(std::memory_order_relaxed)) {
          raw_.Kick().IgnoreError();
          raised_.fetch_add(1, std::memory_order_relaxed);
        } else {
          idled_.fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
  }
  ~Neighbour() {
    stop_ = true;
    thread_.join();
  }
  void Storm(bool on) { storm_ = on; }
  uint64_t raised() const { return raised_; }

 private:
  frontend::RawBus raw_;
  std::atomic<bool> stop_ = false, storm_ = false;
  std::atomic<uint64_t> raised_ = 0, idled_ = 0;
  std::thread thread_;
};

// The 99th percentile, in microseconds.
template <class Operation>
absl::StatusOr<double> P99(uint64_t count, Operation operation) {
  frontend_tool::Latencies latencies;
  for (uint64_t i = 0; i < count; ++i) {
    const frontend::Clock::time_point start = frontend::Clock::now();
    if (absl::Status status = operation(i); !status.ok()) return status;
    latencies.Add(frontend::Clock::now() - start);
  }
  return latencies.Percentile(99);
}

}  // namespace

absl::StatusOr<std::vector<Figure>> EventStorm(const Options& options) {
  absl::StatusOr<std::unique_ptr<test::Machine>> machine = test::Machine::Start({"--io-threads=1"});
  if (!machine.ok()) return machine.status();
  absl::StatusOr<grants::DomainId> bad = (*machine)->CreateGuest("bad", {"type=rng"});
  if (!bad.ok()) return bad.status();
  const std::string image =
      (*machine)->MakeFile("disk.img", test::Machine::Pattern(kStormImageBytes, 1));
  absl::StatusOr<grants::DomainId> good =
      (*machine)->CreateGuest("good", {absl::StrCat("type=blk,readonly=1,path=", image)});
  if (!good.ok()) return good.status();
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> theirs = (*machine)->Connect(*bad);
  if (!theirs.ok()) return theirs.status();
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> ours = (*machine)->Connect(*good);
  if (!ours.ok()) return ours.status();
  frontend::FrontendBus& bus = (*ours)->bus();
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> client =
      frontend::DeviceClient::Probe(bus, (*ours)->memory(), 0);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<frontend::BlkDriver>> disk =
      frontend::BlkDriver::Create(*std::move(client));
  if (!disk.ok()) return disk.status();
  auto block = (*ours)->memory().Allocate(kBlock, kBlock);
  if (!block.ok()) return block.status();

  const auto ping = [&](uint64_t i) {
    return bus.Ping(static_cast<uint32_t>(i), frontend::After(kStormPatience)).status();
  };
  const auto read = [&](uint64_t i) {
    // Somewhere else each time.
    const uint64_t offset = i * 2654435761u % (kStormImageBytes / kBlock) * kBlock;
    return (*disk)->Read(offset, block->address(), kBlock, frontend::After(kStormPatience));
  };
  const uint64_t count = options.quick ? 2'000 : 20'000;
  std::vector<Pair> pings, reads;
  double offered = 0;
  {
    Neighbour neighbour((*theirs)->bus());
    for (int round = 0; round < (options.quick ? 3 : 9); ++round) {
      Pair pinged{}, read_in{};
      for (const bool storm : {false, true}) {
        neighbour.Storm(storm);
        const uint64_t raised = neighbour.raised();
        const frontend::Clock::time_point start = frontend::Clock::now();
        absl::StatusOr<double> answer = P99(count, ping);
        if (!answer.ok()) return answer.status();
        absl::StatusOr<double> data = P99(count, read);
        if (!data.ok()) return data.status();
        (storm ? pinged.ours : pinged.bare) = *answer;
        (storm ? read_in.ours : read_in.bare) = *data;
        const std::chrono::duration<double, std::micro> took = frontend::Clock::now() - start;
        if (storm) offered = static_cast<double>(neighbour.raised() - raised) / took.count();
      }
      pings.push_back(pinged);
      reads.push_back(read_in);
    }
  }
  const Pair pinged = MedianByRatio(std::move(pings));
  const Pair read_in = MedianByRatio(std::move(reads));
  return std::vector<Figure>{
      {"events offered by a storm", offered, "MHz", 1, 1, Figure::Kind::kAtLeast},
      {"ping p99 beside the storm", pinged.ours, "us", pinged.bare, 2, Figure::Kind::kAtMost},
      {"4 KiB read p99 beside the storm", read_in.ours, "us", read_in.bare, 2,
       Figure::Kind::kAtMost}};
}

}  // namespace vmsg::bench
