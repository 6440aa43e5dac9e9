// SPDX-License-Identifier: Apache-2.0
// tools/bench: the figures of the whole path, each beside its limit of the same run.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "tests/benchmarks/sections.h"

namespace vmsg::bench {
namespace {

struct Section {
  const char* name;
  absl::StatusOr<std::vector<Figure>> (*run)(const Options&);
};
constexpr Section kSections[] = {{"round-trip", RoundTrip},
                                 {"block", Block},
                                 {"mapping", Mapping},
                                 {"idle", Idle},
                                 {"event-storm", EventStorm}};

int Main(const std::vector<std::string>& words) {
  bool json = false;
  Options options;
  std::vector<std::string> wanted;
  for (const std::string& word : words) {
    if (word == "--json") {
      json = true;
    } else if (word == "--quick") {
      options.quick = true;
    } else if (absl::StartsWith(word, "--image=")) {
      options.image = word.substr(sizeof("--image=") - 1);
    } else if (word == "--help") {
      absl::PrintF(
          "usage: vmsg-bench [--json] [--quick] [--image=FILE]\n"
          "                  [round-trip|block|mapping|idle|event-storm]...\n"
          "--json: one object a line with name, value, unit, reference, ratio\n"
          "--image=FILE: what block reads, a block device for instance\n");
      return 0;
    } else {
      wanted.push_back(word);
    }
  }
  int status = 0;
  for (const Section& section : kSections) {
    bool run = wanted.empty();
    for (const std::string& name : wanted) run = run || name == section.name;
    if (!run) continue;
    absl::StatusOr<std::vector<Figure>> figures = section.run(options);
    if (!figures.ok()) {
      absl::FPrintF(stderr, "%s: %s\n", section.name, figures.status().ToString());
      status = 1;
      continue;
    }
    for (const Figure& figure : *figures) Print(figure, json);
  }
  return status;
}

}  // namespace
}  // namespace vmsg::bench

int main(int argc, char** argv) {
  return vmsg::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
