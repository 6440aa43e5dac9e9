// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/benchmarks/bare.h"
#include "tests/benchmarks/figure.h"
#include "tests/benchmarks/sections.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::bench {
namespace {

constexpr size_t kImageBytes = size_t{256} << 20;

struct Load {
  const char* name;
  const char* rw;
  uint32_t block;
  uint32_t depth;
  uint64_t count;
  double bound;
};
constexpr Load kLoads[] = {
    {"4 KiB random reads, depth 32", "randread", 4096, 32, 60'000, 0.8},
    {"1 MiB sequential reads, depth 4", "read", 1 << 20, 4, 1'000, 0.9},
    {"4 KiB random reads, depth 1", "randread", 4096, 1, 8'000, 0},
};

absl::StatusOr<double> OurIops(test::Machine& machine, grants::DomainId guest, const Load& load,
                               uint64_t count) {
  absl::StatusOr<test::Finished> run = machine.Frontend(
      guest, {"blk", "bench", "--dev=0", "--pages=8192", absl::StrCat("--rw=", load.rw),
              absl::StrCat("--bs=", load.block), absl::StrCat("--depth=", load.depth),
              absl::StrCat("--count=", count), "--json"});
  if (!run.ok()) return run.status();
  if (run->exit_status != 0) return absl::InternalError(absl::StrCat("blk bench: ", run->err));
  const nlohmann::json result = nlohmann::json::parse(run->out, nullptr, false);
  if (!result.is_object() || !result.contains("iops")) {
    return absl::InternalError(absl::StrCat("blk bench printed: ", run->out));
  }
  return result["iops"].get<double>();
}

}  // namespace

absl::StatusOr<std::vector<Figure>> Block(const Options& options) {
  absl::StatusOr<std::unique_ptr<test::Machine>> machine = test::Machine::Start();
  if (!machine.ok()) return machine.status();
  const std::string path = (*machine)->MakeFile("disk.img", test::Machine::Pattern(kImageBytes, 1));
  // Nothing of it is to be written back while it is read.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) return absl::ErrnoToStatus(errno, "syncing the image");
  close(fd);
  absl::StatusOr<grants::DomainId> guest =
      (*machine)->CreateGuest("g1", {absl::StrCat("type=blk,readonly=1,path=", path)});
  if (!guest.ok()) return guest.status();

  std::vector<Figure> figures;
  for (const Load& load : kLoads) {
    const uint64_t count = options.quick ? load.count / 20 : load.count;
    std::vector<Pair> rounds;
    for (int round = 0; round < (options.quick ? 3 : 7); ++round) {
      absl::StatusOr<double> ours = OurIops(**machine, *guest, load, count);
      if (!ours.ok()) return ours.status();
      absl::StatusOr<double> bare = BareReadBandwidth(
          {path, load.block, load.depth, absl::string_view(load.rw) == "randread", count});
      if (!bare.ok()) return bare.status();
      rounds.push_back({*ours, *bare / load.block});
    }
    const Pair median = MedianByRatio(std::move(rounds));
    figures.push_back(
        {load.name, median.ours, "IOPS", median.bare, load.bound, Figure::Kind::kAtLeast});
  }
  return figures;
}

}  // namespace vmsg::bench
