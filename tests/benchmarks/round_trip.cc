// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/bus/bus_connection.h"
#include "tests/benchmarks/bare.h"
#include "tests/benchmarks/figure.h"
#include "tests/benchmarks/processors.h"
#include "tests/benchmarks/sections.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::bench {
namespace {

absl::StatusOr<double> PingMicroseconds(frontend::FrontendBus& bus, uint64_t count) {
  const frontend::Clock::time_point start = frontend::Clock::now();
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<frontend::Clock::duration> took =
        bus.Ping(static_cast<uint32_t>(i), frontend::After(std::chrono::seconds(10)));
    if (!took.ok()) return took.status();
  }
  const std::chrono::duration<double, std::micro> all = frontend::Clock::now() - start;
  return all.count() / static_cast<double>(count);
}

}  // namespace

absl::StatusOr<std::vector<Figure>> RoundTrip(const Options& options) {
  const uint64_t count = options.quick ? 2'000 : 20'000;
  const int rounds = options.quick ? 3 : 7;
  std::vector<Figure> figures;
  // Both sides spin briefly before they sleep; the second figure is without it, on both sides.
  for (const bool spin : {true, false}) {
    absl::StatusOr<std::unique_ptr<test::Machine>> machine = test::Machine::Start(
        spin ? std::vector<std::string>{} : std::vector<std::string>{"--spin-us=0"});
    if (!machine.ok()) return machine.status();
    absl::StatusOr<grants::DomainId> guest = (*machine)->CreateGuest("g1", {"type=rng"});
    if (!guest.ok()) return guest.status();
    absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection =
        (*machine)->Connect(*guest);
    if (!connection.ok()) return connection.status();
    if (!spin) (*connection)->bus().set_max_spin({});
    // On two processors, as guest and backend are.
    const OnProcessor here(0);
    KeepProcessOn(1, (*machine)->service().pid());
    std::vector<Pair> pairs;
    for (int round = 0; round < rounds; ++round) {
      absl::StatusOr<double> ours = PingMicroseconds((*connection)->bus(), count);
      if (!ours.ok()) return ours.status();
      absl::StatusOr<absl::Duration> bare = EventfdRoundTrip(count);
      if (!bare.ok()) return bare.status();
      pairs.push_back({*ours, absl::ToDoubleMicroseconds(*bare)});
    }
    const Pair median = MedianByRatio(std::move(pairs));
    figures.push_back({spin ? "ping round trip" : "ping round trip, no spinning", median.ours, "us",
                       median.bare, 1.25, Figure::Kind::kAtMost});
    if (absl::Status closed = (*connection)->Close(); !closed.ok()) return closed;
  }
  return figures;
}

}  // namespace vmsg::bench
