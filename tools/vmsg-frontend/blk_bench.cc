// SPDX-License-Identifier: Apache-2.0
// vmsg-frontend blk bench: a fixed number of requests in flight, submitted again as they complete.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/vmsg-frontend/commands.h"
#include "tools/vmsg-frontend/latencies.h"

namespace vmsg::frontend_tool {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::Clock;
using frontend::GuestBlock;

struct Workload {
  std::string name;
  bool write = false;
  bool random = false;
  uint32_t block = 4096;
  uint32_t depth = 32;
  uint64_t count = UINT64_MAX;
  Clock::duration duration = std::chrono::seconds(5);
};

absl::StatusOr<Workload> ReadWorkload(const BlkDriver& disk, const Arguments& arguments) {
  Workload load;
  load.name = arguments.Text("rw", "randread");
  load.write = load.name == "write" || load.name == "randwrite";
  load.random = load.name == "randread" || load.name == "randwrite";
  if (!load.write && !load.random && load.name != "read") {
    return UsageError(absl::StrCat("--rw=", load.name, ": randread, read, randwrite or write"));
  }
  absl::StatusOr<uint64_t> number = arguments.Number(
      "bs", 4096, 512, std::min<uint64_t>(disk.limits().max_request, disk.limits().capacity));
  if (!number.ok()) return number.status();
  if (*number % 512 != 0) return UsageError("--bs is a multiple of 512");
  load.block = static_cast<uint32_t>(*number);
  load.depth = disk.depth();
  if (arguments.Has("count")) {
    number = arguments.Number("count", 0, 1, UINT64_MAX);
    if (!number.ok()) return number.status();
    load.count = *number;
    load.duration = std::chrono::hours(1);
  }
  number = arguments.Number("seconds", 5, 1, 3600);
  if (!number.ok()) return number.status();
  if (!arguments.Has("count") || arguments.Has("seconds")) {
    load.duration = std::chrono::seconds(*number);
  }
  return load;
}

class Bench final : public frontend::BlkCompletion {
 public:
  Bench(BlkDriver& disk, const Workload& load)
      : disk_(disk), load_(load), blocks_(disk.limits().capacity / load.block) {}

  absl::Status Run();
  void OnBlkDone(uint64_t tag, const absl::Status& status) override;

  const Latencies& latencies() const { return latencies_; }
  uint64_t completed() const { return completed_; }
  Clock::duration elapsed() const { return elapsed_; }

 private:
  void Submit(uint64_t tag);
  // The time of this turn of the bus's loop, read once: on Xen's clock a reading can be a call.
  Clock::time_point TurnTime() {
    if (turn_time_ == Clock::time_point()) turn_time_ = Clock::now();
    return turn_time_;
  }

  BlkDriver& disk_;
  const Workload& load_;
  const uint64_t blocks_;
  std::vector<GuestBlock> buffers_;
  std::vector<Clock::time_point> started_;
  std::mt19937_64 random_{1};
  uint64_t next_ = 0;
  uint64_t submitted_ = 0;
  uint64_t completed_ = 0;
  uint32_t outstanding_ = 0;
  Clock::time_point turn_time_;  // the default: not read in this turn
  Clock::time_point end_;
  Clock::duration elapsed_{};
  Latencies latencies_;
  absl::Status error_;
};

void Bench::Submit(uint64_t tag) {
  const uint64_t block = load_.random ? random_() % blocks_ : next_++ % blocks_;
  const uint64_t address = buffers_[tag].address();
  started_[tag] = TurnTime();
  const absl::Status status =
      load_.write ? disk_.SubmitWrite(block * load_.block, address, load_.block, this, tag)
                  : disk_.SubmitRead(block * load_.block, address, load_.block, this, tag);
  if (!status.ok()) {
    if (error_.ok()) error_ = status;
    return;
  }
  ++submitted_;
  ++outstanding_;
}

void Bench::OnBlkDone(uint64_t tag, const absl::Status& status) {
  --outstanding_;
  if (!status.ok() && error_.ok()) error_ = status;
  latencies_.Add(TurnTime() - started_[tag]);
  ++completed_;
  if (error_.ok() && submitted_ < load_.count && TurnTime() < end_) Submit(tag);
}

absl::Status Bench::Run() {
  started_.resize(load_.depth);
  for (uint32_t i = 0; i < load_.depth; ++i) {
    absl::StatusOr<GuestBlock> buffer = disk_.client().memory().Allocate(load_.block, 4096);
    if (!buffer.ok()) return buffer.status();
    buffers_.push_back(*std::move(buffer));
  }
  const Clock::time_point begin = Clock::now();
  end_ = begin + load_.duration;
  for (uint64_t tag = 0; tag < load_.depth && submitted_ < load_.count; ++tag) Submit(tag);
  absl::Status status = disk_.client().bus().WaitUntil(
      [this] {
        turn_time_ = {};
        return outstanding_ == 0;
      },
      end_ + kPatience);
  elapsed_ = Clock::now() - begin;
  return error_.ok() ? status : error_;
}

}  // namespace

absl::Status RunBlkBench(BlkDriver& disk, const Arguments& arguments) {
  absl::StatusOr<Workload> load = ReadWorkload(disk, arguments);
  if (!load.ok()) return load.status();
  Bench bench(disk, *load);
  const bool events = arguments.Has("events");
  if (events) {
    PrintBusStates(disk.client().bus(), stderr);
    std::fputs("started\n", stderr);
  }
  if (absl::Status status = bench.Run(); !status.ok()) {
    // Nothing may still point at the bench when it goes.
    disk.Quiesce(After(kPatience)).IgnoreError();
    return status;
  }
  if (events) disk.client().bus().SetBusStateListener(nullptr);
  const double seconds = std::chrono::duration<double>(bench.elapsed()).count();
  const double iops = static_cast<double>(bench.completed()) / seconds;
  const double megabytes = iops * load->block / 1e6;
  const Latencies& l = bench.latencies();
  frontend::RingLink& link = disk.client().bus().link();
  if (arguments.Has("json")) {
    std::printf(
        "{\"rw\":\"%s\",\"bs\":%u,\"depth\":%u,\"count\":%llu,\"seconds\":%.3f,\"iops\":%.1f,"
        "\"mb_per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,"
        "\"notifications\":%llu,\"sleeps\":%llu}\n",
        load->name.c_str(), load->block, load->depth,
        static_cast<unsigned long long>(bench.completed()), seconds, iops, megabytes,
        l.Percentile(50), l.Percentile(99), l.Percentile(99.9), l.Max(),
        static_cast<unsigned long long>(link.notifications_sent()),
        static_cast<unsigned long long>(link.sleeps()));
  } else {
    std::printf("%s, %u bytes, depth %u: %.0f IOPS, %.1f MB/s\n", load->name.c_str(), load->block,
                load->depth, iops, megabytes);
    std::printf("latency us: p50 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n", l.Percentile(50),
                l.Percentile(99), l.Percentile(99.9), l.Max());
  }
  return absl::OkStatus();
}

}  // namespace vmsg::frontend_tool
