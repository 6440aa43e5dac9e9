// SPDX-License-Identifier: Apache-2.0
// Bare costs of Xen's primitives, beside which tests/real-xen puts ours. Two domains take part; the
// first line that a holder prints is what the other domain's command wants.
//   xen-measure <xen> share <domid> <pages>            grants a window and its directory; prints
//                                                      the first directory page's reference; holds
//   xen-measure <xen> map <domid> <ref> <pages>        maps that window in each way; prints figures
//   xen-measure <xen> ping <domid> <count>             allocates a port, prints it, waits for its
//                                                      peer (echo) and times round trips
//   xen-measure <xen> echo <domid> <port>              answers every event, until killed
//   xen-measure disk <path> random|sequential <bytes> <depth> <count> [write]
//                                                      so many reads (or writes) of a disk, <depth>
//                                                      at a time
// A figure is a line "name value unit". Times are of CLOCK_MONOTONIC in the calling domain.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "grants/directory.h"
#include "grants/platform.h"
#include "tests/benchmarks/disk/bare_reader.h"

namespace vmsg {
namespace {

using Clock = std::chrono::steady_clock;

double MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void Say(const std::string& line) {
  printf("%s\n", line.c_str());
  fflush(stdout);
}

void Figure(absl::string_view name, double value, absl::string_view unit) {
  Say(absl::StrCat(name, " ", value, " ", unit));
}

absl::Status Share(grants::Platform& xen, grants::DomainId with, uint32_t pages) {
  auto sharer = xen.OpenGrantSharer();
  if (!sharer.ok()) return sharer.status();
  auto window = (*sharer)->Share(with, pages, grants::Access::kReadWrite);
  if (!window.ok()) return window.status();
  auto directory =
      (*sharer)->Share(with, grants::DirectoryPagesFor(pages), grants::Access::kReadOnly);
  if (!directory.ok()) return directory.status();
  if (absl::Status status =
          grants::WriteDirectory(window->refs(), directory->bytes(), directory->refs());
      !status.ok()) {
    return status;
  }
  Say(absl::StrCat(directory->refs().front()));
  for (;;) pause();
}

// Three ways to the same window: each page by itself, all pages in one batch when the references
// are known, and the whole of what connecting does: walk the directory, then map in one batch.
absl::Status Map(grants::Platform& xen, grants::DomainId domain, grants::GrantRef first,
                 uint32_t pages) {
  auto mapper = xen.OpenGrantMapper();
  if (!mapper.ok()) return mapper.status();
  const grants::DirectoryLimits limits{.max_pages = pages};
  auto refs = grants::WalkDirectory(**mapper, domain, first, pages, limits);
  if (!refs.ok()) return refs.status();

  Clock::time_point start = Clock::now();
  {
    auto window = grants::MapWindow(**mapper, domain, first, pages, limits);
    if (!window.ok()) return window.status();
    Figure("directory-walk-and-map", MicrosecondsSince(start) / pages, "us/page");
  }
  start = Clock::now();
  {
    auto batch = (*mapper)->Map(domain, *refs, grants::Access::kReadWrite);
    if (!batch.ok()) return batch.status();
    Figure("map-in-one-batch", MicrosecondsSince(start) / pages, "us/page");
    start = Clock::now();
  }
  Figure("unmap-in-one-batch", MicrosecondsSince(start) / pages, "us/page");

  // As many as show the cost; all of 16,384 would only take longer.
  const size_t singles = std::min<size_t>(refs->size(), 1024);
  std::vector<grants::GrantMapping> alone;
  alone.reserve(singles);
  start = Clock::now();
  for (size_t i = 0; i < singles; ++i) {
    auto page = (*mapper)->Map(domain, absl::MakeConstSpan(*refs).subspan(i, 1),
                               grants::Access::kReadWrite);
    if (!page.ok()) return page.status();
    alone.push_back(std::move(*page));
  }
  Figure("map-page-by-page", MicrosecondsSince(start) / static_cast<double>(singles), "us/page");
  start = Clock::now();
  alone.clear();
  Figure("unmap-page-by-page", MicrosecondsSince(start) / static_cast<double>(singles), "us/page");
  return absl::OkStatus();
}

// The next event of `port`, within ten seconds.
absl::Status Await(grants::EventChannels& events, grants::EventPort port) {
  for (;;) {
    pollfd entry{.fd = events.fd(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, 10'000) <= 0) return absl::DeadlineExceededError("no event in 10 s");
    auto pending = events.NextPending();
    if (!pending.ok()) return pending.status();
    if (!pending->has_value()) continue;
    if (absl::Status status = events.Unmask(**pending); !status.ok()) return status;
    if (**pending == port) return absl::OkStatus();
  }
}

absl::Status Ping(grants::Platform& xen, grants::DomainId with, uint32_t count) {
  auto events = xen.OpenEventChannels();
  if (!events.ok()) return events.status();
  auto port = (*events)->AllocateUnbound(with);
  if (!port.ok()) return port.status();
  Say(absl::StrCat(*port));
  // The echo answers its own spurious first event, which says that it is there.
  if (absl::Status status = Await(**events, *port); !status.ok()) return status;
  const Clock::time_point start = Clock::now();
  for (uint32_t i = 0; i < count; ++i) {
    if (absl::Status status = (*events)->Notify(*port); !status.ok()) return status;
    if (absl::Status status = Await(**events, *port); !status.ok()) return status;
  }
  Figure("event-round-trip", MicrosecondsSince(start) / count, "us");
  return absl::OkStatus();
}

absl::Status Echo(grants::Platform& xen, grants::DomainId with, grants::EventPort remote) {
  auto events = xen.OpenEventChannels();
  if (!events.ok()) return events.status();
  auto port = (*events)->BindInterdomain(with, remote);
  if (!port.ok()) return port.status();
  for (;;) {
    pollfd entry{.fd = (*events)->fd(), .events = POLLIN, .revents = 0};
    poll(&entry, 1, -1);
    auto pending = (*events)->NextPending();
    if (!pending.ok()) return pending.status();
    if (!pending->has_value()) continue;
    if (absl::Status status = (*events)->Unmask(**pending); !status.ok()) return status;
    if (absl::Status status = (*events)->Notify(*port); !status.ok()) return status;
  }
}

absl::Status Disk(const bench::ReadLoad& load) {
  auto bandwidth = bench::BareReadBandwidth(load);
  if (!bandwidth.ok()) return bandwidth.status();
  Figure(load.write ? "writes" : "reads", *bandwidth / load.block_size, "/s");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> Numbers(const std::vector<std::string>& words, size_t first) {
  std::vector<uint32_t> numbers;
  for (size_t i = first; i < words.size(); ++i) {
    uint32_t number = 0;
    if (!absl::SimpleAtoi(words[i], &number) || number == 0 || number > 1u << 30) {
      return absl::InvalidArgumentError(absl::StrCat(words[i], ": not a number from 1 to 2^30"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

absl::Status Run(std::vector<std::string> words) {
  const absl::Status usage =
      absl::InvalidArgumentError("see the head of tests/benchmarks/xen/xen_measure.cc");
  if (!words.empty() && words[0] == "disk") {
    const bool write = words.back() == "write";
    if (write) words.pop_back();
    if (words.size() != 6) return usage;
    auto numbers = Numbers(words, 3);
    if (!numbers.ok()) return numbers.status();
    bench::ReadLoad load{words[1], (*numbers)[0], (*numbers)[1], words[2] == "random",
                         (*numbers)[2]};
    load.write = write;
    return Disk(load);
  }
  if (words.size() < 4) return usage;
  const std::string& what = words[1];
  uint32_t id = 0;
  if (!absl::SimpleAtoi(words[2], &id) || id >= grants::kFirstReservedDomain) return usage;
  const auto domain = static_cast<grants::DomainId>(id);
  auto numbers = Numbers(words, 3);
  if (!numbers.ok()) return numbers.status();
  auto xen = grants::OpenPlatform(words[0]);
  if (!xen.ok()) return xen.status();
  if (what == "share") return Share(**xen, domain, (*numbers)[0]);
  if (what == "map" && numbers->size() == 2) {
    return Map(**xen, domain, (*numbers)[0], (*numbers)[1]);
  }
  if (what == "ping") return Ping(**xen, domain, (*numbers)[0]);
  if (what == "echo") return Echo(**xen, domain, (*numbers)[0]);
  return usage;
}

}  // namespace
}  // namespace vmsg

int main(int argc, char** argv) {
  const absl::Status status = vmsg::Run({argv + 1, argv + argc});
  if (status.ok()) return 0;
  fprintf(stderr, "xen-measure: %s\n", std::string(status.message()).c_str());
  return 1;
}
