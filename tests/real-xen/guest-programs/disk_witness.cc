// SPDX-License-Identifier: Apache-2.0
// A guest's disk I/O that can tell afterwards what was lost.
//
//   disk-witness write [--gently]        in a guest: rounds of writes in flight together, a flush
//                                        and a comparison of what is read back, without end; after
//                                        each round its number goes into the node data/flushed, and
//                                        that of the connections that it has had by then into
//                                        data/connections. Ends with 0 at SIGTERM, with 1 at the
//                                        first error. --gently: leaves the processor to others for
//                                        a while after each round.
//   disk-witness check IMAGE ROUND       in Dom0: every block that was flushed is in the image, at
//                                        least up to this round
//
// A block begins with its sequence number, which also makes the rest of it. Round R writes blocks
// R * 8 to R * 8 + 7, at their number modulo the blocks that the disk has. A round begins after the
// flush of the one before it: only blocks of the newest round in the image may be unfinished.
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/drivers/blk_driver.h"
#include "grants/platform.h"
#include "xenstore/store.h"

namespace vmsg::test {
namespace {

using frontend::After;
using frontend::BlkDriver;
using frontend::BusConnection;
using frontend::GuestBlock;

constexpr uint64_t kBlockSize = 16384;
constexpr uint64_t kRoundBlocks = 8;
constexpr auto kPatience = std::chrono::minutes(2);
constexpr int kGentlePauseMs = 50;

volatile sig_atomic_t stopping = 0;

// splitmix64.
uint64_t Word(uint64_t block, uint64_t position) {
  if (position == 0) return block;
  uint64_t z = block * 0xd1342543de82ef95u + position * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void Fill(std::byte* bytes, uint64_t block) {
  for (uint64_t i = 0; i < kBlockSize; i += 8) {
    const uint64_t word = Word(block, i);
    std::memcpy(bytes + i, &word, 8);
  }
}

// Where it differs from what it should be; kBlockSize: nowhere.
uint64_t FirstDifference(const std::byte* bytes, uint64_t block) {
  for (uint64_t i = 0; i < kBlockSize; i += 8) {
    const uint64_t word = Word(block, i);
    if (std::memcmp(bytes + i, &word, 8) != 0) return i;
  }
  return kBlockSize;
}

uint64_t SequenceOf(const std::byte* bytes) {
  uint64_t block;
  std::memcpy(&block, bytes, 8);
  return block;
}

class Writer final : public frontend::BlkCompletion {
 public:
  Writer(xenstore::Store& store, BusConnection& bus, bool gently)
      : store_(store), bus_(bus), gently_(gently) {}

  // OK: told to stop.
  absl::Status Run() {
    absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> device =
        frontend::DeviceClient::Probe(bus_.bus(), bus_.memory(), 0);
    if (!device.ok()) return device.status();
    absl::StatusOr<std::unique_ptr<BlkDriver>> disk = BlkDriver::Create(*std::move(device));
    if (!disk.ok()) return disk.status();
    absl::StatusOr<GuestBlock> buffer = bus_.memory().Allocate(kRoundBlocks * kBlockSize, 4096);
    if (!buffer.ok()) return buffer.status();
    absl::Status status;
    while (status.ok() && stopping == 0) {
      status = Round(**disk, *buffer);
      if (gently_) ::poll(nullptr, 0, kGentlePauseMs);
    }
    if (!bus_.bus().failure().ok()) (*disk)->Abandon(bus_.bus().failure());
    (*disk)->Quiesce(After(kPatience)).IgnoreError();
    return status;
  }

  void OnBlkDone(uint64_t, const absl::Status& status) override {
    --outstanding_;
    if (result_.ok()) result_ = status;
  }

 private:
  absl::Status Transfer(BlkDriver& disk, const GuestBlock& buffer, bool write) {
    const uint64_t slots = disk.limits().capacity / kBlockSize;
    result_ = absl::OkStatus();
    for (uint64_t i = 0; i < kRoundBlocks; ++i) {
      const uint64_t offset = (round_ * kRoundBlocks + i) % slots * kBlockSize;
      const uint64_t address = buffer.address() + i * kBlockSize;
      absl::Status status = write ? disk.SubmitWrite(offset, address, kBlockSize, this, i)
                                  : disk.SubmitRead(offset, address, kBlockSize, this, i);
      if (!status.ok()) return status;
      ++outstanding_;
    }
    absl::Status status =
        disk.client().bus().WaitUntil([this] { return outstanding_ == 0; }, After(kPatience));
    return status.ok() ? result_ : status;
  }

  absl::Status Round(BlkDriver& disk, const GuestBlock& buffer) {
    if (disk.client().removal_requested()) return absl::UnavailableError("the disk is to go");
    outstanding_ = 0;
    for (uint64_t i = 0; i < kRoundBlocks; ++i) {
      Fill(buffer.bytes().data() + i * kBlockSize, round_ * kRoundBlocks + i);
    }
    absl::Status status = Transfer(disk, buffer, /*write=*/true);
    if (status.ok()) status = disk.Flush(After(kPatience));
    if (!status.ok()) return status;
    std::memset(buffer.bytes().data(), 0, buffer.size());
    status = Transfer(disk, buffer, /*write=*/false);
    if (!status.ok()) return status;
    for (uint64_t i = 0; i < kRoundBlocks; ++i) {
      const std::byte* bytes = buffer.bytes().data() + i * kBlockSize;
      if (FirstDifference(bytes, round_ * kRoundBlocks + i) == kBlockSize) continue;
      std::cerr << "disk-witness: block " << round_ * kRoundBlocks + i
                << " is not what was written; it says to be " << SequenceOf(bytes) << "\n";
      return absl::DataLossError("what was read is not what was written");
    }
    status = store_.Write("data/connections", absl::StrCat(1 + disk.client().bus().losses()));
    return status.ok() ? store_.Write("data/flushed", absl::StrCat(round_++)) : status;
  }

  xenstore::Store& store_;
  BusConnection& bus_;
  const bool gently_;
  uint64_t round_ = 1;
  uint64_t outstanding_ = 0;
  absl::Status result_;
};

absl::Status Write(bool gently) {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = grants::OpenPlatform("");
  if (!platform.ok()) return platform.status();
  absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
      xenstore::OpenStore((*platform)->store_socket());
  if (!store.ok()) return store.status();
  const frontend::ConnectOptions options{
      .pages = 256, .timeout = kPatience, .notice = [](absl::string_view text) {
        std::cerr << "disk-witness: " << text << std::endl;
      }};
  absl::StatusOr<std::unique_ptr<BusConnection>> bus = BusConnection::Open(**platform, options);
  if (!bus.ok()) return bus.status();
  absl::Status status = Writer(**store, **bus, gently).Run();
  return status.ok() ? (*bus)->Close() : status;
}

absl::Status Check(const std::string& image, uint64_t round) {
  std::ifstream file(image, std::ios::binary);
  std::vector<char> content((std::istreambuf_iterator<char>(file)), {});
  const auto* const bytes = reinterpret_cast<const std::byte*>(content.data());
  const uint64_t slots = content.size() / kBlockSize;
  if (slots < 3 * kRoundBlocks) return absl::InvalidArgumentError("the image is too small");
  uint64_t newest = 0;
  for (uint64_t slot = 0; slot < slots; ++slot) {
    const uint64_t sequence = SequenceOf(bytes + slot * kBlockSize);
    if (sequence % slots == slot) newest = std::max(newest, sequence);
  }
  const uint64_t flushed = std::max(round, newest / kRoundBlocks - (newest > 0 ? 1 : 0));
  if (newest / kRoundBlocks < round) {
    return absl::DataLossError(
        absl::StrCat("round ", round, " was flushed; the image ends with ", newest / kRoundBlocks));
  }
  uint64_t compared = 0;
  for (uint64_t slot = 0; slot < slots; ++slot) {
    const uint64_t last = flushed * kRoundBlocks + kRoundBlocks - 1;
    if ((slot + slots - (last + 1) % slots) % slots < kRoundBlocks) continue;  // the next round's
    const uint64_t block = last - (last + slots - slot) % slots;
    if (block > last || block < kRoundBlocks) continue;  // none was written here
    const uint64_t difference = FirstDifference(bytes + slot * kBlockSize, block);
    if (difference != kBlockSize) {
      return absl::DataLossError(absl::StrCat("block ", block, " of round ", block / kRoundBlocks,
                                              " differs at byte ", difference, " although round ",
                                              flushed, " was flushed; it says to be ",
                                              SequenceOf(bytes + slot * kBlockSize)));
    }
    ++compared;
  }
  std::cout << "rounds up to " << flushed << " are in the image (" << compared
            << " blocks compared)\n";
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  struct sigaction action = {};
  action.sa_handler = [](int) { stopping = 1; };
  sigaction(SIGTERM, &action, nullptr);
  const std::vector<std::string> words(argv + 1, argv + argc);
  uint64_t round = 0;
  absl::Status status = absl::InvalidArgumentError("write [--gently], or check IMAGE ROUND");
  if (words.size() == 3 && words[0] == "check" && absl::SimpleAtoi(words[2], &round)) {
    status = Check(words[1], round);
  } else if (!words.empty() && words[0] == "write") {
    status = Write(std::find(words.begin() + 1, words.end(), "--gently") != words.end());
  }
  if (status.ok()) return 0;
  std::cerr << "disk-witness: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace vmsg::test

int main(int argc, char** argv) { return vmsg::test::Main(argc, argv); }
