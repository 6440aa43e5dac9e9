// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "frontend-model/drivers/blk_driver.h"
#include "tests/benchmarks/sections.h"
#include "tests/end-to-end/machine.h"

namespace vmsg::bench {
namespace {

constexpr uint32_t kWindowPages = 64;

// One number of /proc/<pid>/<file>, "VmRSS:" or "voluntary_ctxt_switches:".
uint64_t ProcNumber(const std::filesystem::path& file, absl::string_view name) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (!absl::StartsWith(line, name)) continue;
    uint64_t value = 0;
    std::istringstream(line.substr(name.size())) >> value;
    return value;
  }
  return 0;
}

std::filesystem::path Proc(pid_t pid) { return absl::StrCat("/proc/", pid); }

uint64_t WakeUps(pid_t pid) {
  uint64_t sum = 0;
  for (const auto& thread : std::filesystem::directory_iterator(Proc(pid) / "task")) {
    sum += ProcNumber(thread.path() / "status", "voluntary_ctxt_switches:");
  }
  return sum;
}

// A guest that attached, started its disk and then does nothing.
struct Guest {
  std::unique_ptr<frontend::BusConnection> connection;
  std::unique_ptr<frontend::BlkDriver> disk;
};

absl::StatusOr<Guest> AttachGuest(test::Machine& machine, int number) {
  const std::string name = absl::StrCat("idle", number);
  const std::string image = machine.MakeFile(name, std::string(65536, 'x'));
  absl::StatusOr<grants::DomainId> domain =
      machine.CreateGuest(name, {absl::StrCat("type=blk,path=", image)});
  if (!domain.ok()) return domain.status();
  Guest guest;
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> connection =
      machine.Connect(*domain, {.pages = kWindowPages, .ring_order = 1});
  if (!connection.ok()) return connection.status();
  guest.connection = *std::move(connection);
  absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> client =
      frontend::DeviceClient::Probe(guest.connection->bus(), guest.connection->memory(), 0);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::unique_ptr<frontend::BlkDriver>> disk =
      frontend::BlkDriver::Create(*std::move(client), {.depth = 16, .queue_size = 64});
  if (!disk.ok()) return disk.status();
  guest.disk = *std::move(disk);
  return guest;
}

// The look at which guests live, every 30 s, may fall into the time measured: the control thread
// and the worker that asks, each woken and asleep again.
constexpr double kWakeUpsOfOneLook = 4;

}  // namespace

absl::StatusOr<std::vector<Figure>> Idle(const Options& options) {
  const int guests = options.quick ? 50 : 1'000;
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  absl::StatusOr<std::unique_ptr<test::Machine>> machine = test::Machine::Start();
  if (!machine.ok()) return machine.status();
  const pid_t service = (*machine)->service().pid();
  std::vector<Guest> attached;
  // The first guest brings what all of them share: threads, caches, the allocator's first arenas.
  absl::StatusOr<Guest> first = AttachGuest(**machine, 0);
  if (!first.ok()) return first.status();
  attached.push_back(*std::move(first));
  const uint64_t before = ProcNumber(Proc(service) / "status", "VmRSS:");
  for (int i = 1; i <= guests; ++i) {
    absl::StatusOr<Guest> guest = AttachGuest(**machine, i);
    if (!guest.ok()) {
      return absl::Status(guest.status().code(),
                          absl::StrCat("guest ", i, ": ", guest.status().message()));
    }
    attached.push_back(*std::move(guest));
  }
  const uint64_t after = ProcNumber(Proc(service) / "status", "VmRSS:");
  const double each = static_cast<double>(after - before) / guests - kWindowPages * 4;

  const uint64_t slept = WakeUps(service);
  timespec quiet = {.tv_sec = options.quick ? 1 : 5, .tv_nsec = 0};
  nanosleep(&quiet, nullptr);
  const double woken = static_cast<double>(WakeUps(service) - slept);
  return std::vector<Figure>{{absl::StrCat("memory of each of ", guests, " idle guests"), each,
                              "KiB", 100, 1, Figure::Kind::kAtMost},
                             {absl::StrCat("wake-ups of vmsgd in ", quiet.tv_sec, " s"), woken, "",
                              1, kWakeUpsOfOneLook, Figure::Kind::kAtMost}};
}

}  // namespace vmsg::bench
