// SPDX-License-Identifier: Apache-2.0
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backend/session/map_bus.h"
#include "grants/directory.h"
#include "tests/benchmarks/figure.h"
#include "tests/benchmarks/processors.h"
#include "tests/benchmarks/sections.h"
#include "tests/emulated-xen/emulated_xen.h"

namespace vmsg::bench {

absl::StatusOr<std::vector<Figure>> Mapping(const Options& options) {
  absl::StatusOr<std::unique_ptr<test::EmulatedXen>> xen = test::EmulatedXen::Start();
  if (!xen.ok()) return xen.status();
  absl::StatusOr<grants::DomainId> guest = (*xen)->CreateDomain("g1");
  if (!guest.ok()) return guest.status();
  absl::StatusOr<std::unique_ptr<grants::Platform>> in_guest = (*xen)->OpenPlatform(*guest);
  if (!in_guest.ok()) return in_guest.status();
  absl::StatusOr<std::unique_ptr<grants::GrantSharer>> sharer = (*in_guest)->OpenGrantSharer();
  if (!sharer.ok()) return sharer.status();
  const uint32_t pages = options.quick ? 2'048 : 16'384;
  absl::StatusOr<grants::SharedPages> window =
      (*sharer)->Share(0, pages, grants::Access::kReadWrite);
  if (!window.ok()) return window.status();
  absl::StatusOr<grants::SharedPages> directory =
      (*sharer)->Share(0, grants::DirectoryPagesFor(pages), grants::Access::kReadOnly);
  if (!directory.ok()) return directory.status();
  absl::Status written =
      grants::WriteDirectory(window->refs(), directory->bytes(), directory->refs());
  if (!written.ok()) return written;

  absl::StatusOr<std::unique_ptr<grants::Platform>> in_dom0 = (*xen)->OpenPlatform(0);
  if (!in_dom0.ok()) return in_dom0.status();
  absl::StatusOr<std::unique_ptr<grants::GrantMapper>> mapper = (*in_dom0)->OpenGrantMapper();
  if (!mapper.ok()) return mapper.status();

  const auto budget = std::make_shared<backend::PageBudget>(pages);
  // Xen runs on the processor that calls it, and so does what stands for it here.
  const OnProcessor here(0);
  KeepProcessOn(0, (*xen)->pid());
  std::vector<Pair> rounds;
  for (int round = 0; round < (options.quick ? 5 : 31); ++round) {
    absl::Time start = absl::Now();
    {
      absl::StatusOr<grants::GrantMapping> ours =
          backend::MapWindowPages(**mapper, *guest, directory->refs().front(), pages, budget);
      if (!ours.ok()) return ours.status();
      const absl::Duration took = absl::Now() - start;
      start = absl::Now();
      rounds.push_back({absl::ToDoubleMicroseconds(took), 0});
    }
    start = absl::Now();
    absl::StatusOr<grants::GrantMapping> bare =
        (*mapper)->Map(*guest, window->refs(), grants::Access::kReadWrite);
    if (!bare.ok()) return bare.status();
    rounds.back().bare = absl::ToDoubleMicroseconds(absl::Now() - start);
  }
  const Pair median = MedianByRatio(std::move(rounds));
  return std::vector<Figure>{{"map a directory of 16384 pages", median.ours, "us", median.bare, 1.1,
                              Figure::Kind::kAtMost}};
}

}  // namespace vmsg::bench
