// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "frontend-model/drivers/blk_driver.h"
#include "tests/benchmarks/disk/bare_reader.h"
#include "tests/benchmarks/disk/handed_over.h"
#include "tests/benchmarks/figure.h"
#include "tests/benchmarks/processors.h"
#include "tests/benchmarks/sections.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::bench {
namespace {

constexpr size_t kImageBytes = size_t{256} << 20;
constexpr auto kPatience = std::chrono::seconds(60);

struct Load {
  const char* name;
  uint32_t block;
  uint32_t depth;
  bool random;
  uint64_t slice;  // reads, of some tens of milliseconds
};
constexpr Load kLoads[] = {
    {"4 KiB random reads, depth 32", 4096, 32, true, 2'000},
    {"1 MiB sequential reads, depth 4", 1 << 20, 4, false, 32},
    {"4 KiB random reads, depth 1", 4096, 1, true, 200},
};
constexpr int kGuestProcessor = 0, kServiceProcessor = 1;
constexpr double kBound = 0.95;
constexpr int kRounds = 35, kQuickRounds = 3;

// A guest's loop that keeps `depth` reads in flight through the whole path.
class OurReader final : public frontend::BlkCompletion {
 public:
  OurReader(frontend::BlkDriver& disk, const Load& load)
      : disk_(disk), load_(load), order_(disk.limits().capacity / load.block, load.random) {}

  absl::Status Allocate() {
    for (uint32_t i = 0; i < load_.depth; ++i) {
      absl::StatusOr<frontend::GuestBlock> buffer =
          disk_.client().memory().Allocate(load_.block, 4096);
      if (!buffer.ok()) return buffer.status();
      buffers_.push_back(*std::move(buffer));
    }
    return absl::OkStatus();
  }

  // The same memory, for the others: how fast a disk reads into pages depends on where they are.
  std::vector<char*> buffers() const {
    std::vector<char*> buffers;
    for (const frontend::GuestBlock& block : buffers_) {
      buffers.push_back(reinterpret_cast<char*>(block.bytes().data()));
    }
    return buffers;
  }

  // How long `count` reads take, all of them ended.
  absl::StatusOr<absl::Duration> Read(uint64_t count) {
    left_ = count;
    const frontend::Clock::time_point start = frontend::Clock::now();
    for (uint64_t slot = 0; slot < load_.depth && left_ > 0; ++slot) Submit(slot);
    absl::Status status = disk_.client().bus().WaitUntil([this] { return in_flight_ == 0; },
                                                         frontend::After(kPatience));
    if (!error_.ok()) return error_;
    if (!status.ok()) return status;
    return absl::FromChrono(frontend::Clock::now() - start);
  }

  void OnBlkDone(uint64_t slot, const absl::Status& status) override {
    --in_flight_;
    if (!status.ok()) error_ = status;
    if (error_.ok() && left_ > 0) Submit(slot);
  }

 private:
  void Submit(uint64_t slot) {
    const absl::Status status = disk_.SubmitRead(order_.Next() * load_.block,
                                                 buffers_[slot].address(), load_.block, this, slot);
    if (!status.ok()) {
      error_ = status;
      return;
    }
    --left_;
    ++in_flight_;
  }

  frontend::BlkDriver& disk_;
  const Load& load_;
  BlockOrder order_;
  std::vector<frontend::GuestBlock> buffers_;
  uint64_t left_ = 0;
  uint32_t in_flight_ = 0;
  absl::Status error_;
};

// The same reads of the same file by three readers in turn: through the whole path, straight on
// io_uring, and on io_uring in another process. A disk whose speed changes, or that is faster after
// a pause, meets all three alike: slices are short, and in a round each reader is once first, once
// second and once third.
absl::Status Compare(frontend::BlkDriver& disk, const std::string& path, const Load& load,
                     int round_count, std::vector<Figure>& figures) {
  OurReader ours(disk, load);
  if (absl::Status status = ours.Allocate(); !status.ok()) return status;
  const ReadLoad bare_load = {.path = path,
                              .block_size = load.block,
                              .depth = load.depth,
                              .random = load.random,
                              .buffers = ours.buffers()};
  absl::StatusOr<std::unique_ptr<BareReader>> bare = BareReader::Open(bare_load);
  if (!bare.ok()) return bare.status();
  absl::StatusOr<std::unique_ptr<HandedOverReader>> handed_over =
      HandedOverReader::Open(bare_load, kServiceProcessor);
  if (!handed_over.ok()) return handed_over.status();
  const auto read = [&](int reader) {
    if (reader == 0) return ours.Read(load.slice);
    return reader == 1 ? (*bare)->Read(load.slice) : (*handed_over)->Read(load.slice);
  };
  std::vector<Pair> beside[2];
  for (int round = -1; round < round_count; ++round) {  // the first one warms up
    absl::Duration took[3];
    for (int turn = 0; turn < 9; ++turn) {
      const int reader = (turn + turn / 3) % 3;
      absl::StatusOr<absl::Duration> time = read(reader);
      if (!time.ok()) return time.status();
      took[reader] += *time;
    }
    const auto rate = [&](int reader) {
      return 3 * static_cast<double>(load.slice) / absl::ToDoubleSeconds(took[reader]);
    };
    if (round < 0) continue;
    beside[0].push_back({rate(0), rate(1)});
    beside[1].push_back({rate(0), rate(2)});
  }
  for (const std::vector<Pair>& rounds : beside) {
    const auto [low, high] = Quartiles(rounds);
    const Pair median = MedianByRatio(rounds);
    figures.push_back({absl::StrCat(load.name, &rounds == beside ? "" : ", handed over"),
                       median.ours, "IOPS", median.bare, kBound, Figure::Kind::kAtLeast, low,
                       high});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Figure>> Block(const Options& options) {
  absl::StatusOr<std::unique_ptr<test::Machine>> machine = test::Machine::Start();
  if (!machine.ok()) return machine.status();
  const std::string path =
      options.image.empty()
          ? (*machine)->MakeFile("disk.img", test::Machine::Pattern(kImageBytes, 1))
          : options.image;
  // Nothing of it is to be written back while it is read.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) return absl::ErrnoToStatus(errno, "syncing the image");
  close(fd);
  absl::StatusOr<grants::DomainId> guest =
      (*machine)->CreateGuest("g1", {absl::StrCat("type=blk,readonly=1,path=", path)});
  if (!guest.ok()) return guest.status();
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection =
      (*machine)->Connect(*guest, {.pages = 8192});
  if (!connection.ok()) return connection.status();
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> client =
      frontend::DeviceClient::Probe((*connection)->bus(), (*connection)->memory(), 0);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<frontend::BlkDriver>> disk =
      frontend::BlkDriver::Create(*std::move(client));
  if (!disk.ok()) return disk.status();

  // Guest and backend on a processor each, the bare loop where the guest is: each has a
  // processor that asks, and ours and the one that hands over another that serves.
  const OnProcessor here(kGuestProcessor);
  KeepProcessOn(kServiceProcessor, (*machine)->service().pid());
  std::vector<Figure> figures;
  for (const Load& load : kLoads) {
    absl::Status status =
        Compare(**disk, path, load, options.quick ? kQuickRounds : kRounds, figures);
    if (!status.ok()) return status;
  }
  return figures;
}

}  // namespace vmsg::bench
