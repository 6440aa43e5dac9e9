// SPDX-License-Identifier: Apache-2.0
// What a process holds, to be compared before and after a flood.
#pragma once

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/scale/counts.h"

namespace vmsg::testing {

// Bytes.
inline size_t ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  size_t all = 0;
  size_t resident = 0;
  file >> all >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

struct HeldResources {
  size_t descriptors = 0;
  size_t mappings = 0;  // of the address space
  size_t shared = 0;    // of these: windows and rings
  size_t heap = 0;      // bytes allocated and not freed; 0 where a sanitizer has the heap
  size_t resident = 0;  // bytes

  static HeldResources OfThisProcess() {
    std::ifstream maps("/proc/self/maps");
    HeldResources held;
    for (std::string line; std::getline(maps, line);) {
      ++held.mappings;
      held.shared += line.at(line.find(' ') + 4) == 's';  // "<from>-<to> rw-s ...", proc(5)
    }
    for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
      ++held.descriptors;
    }
    held.heap = mallinfo2().uordblks;
    held.resident = ResidentBytes(getpid());
    return held;
  }

  // Nothing more is held now but what caches fill up: a word or a page leaked by each of tens of
  // thousands of repetitions would be far more.
  void ExpectNoMoreThan(const HeldResources& before) const {
    EXPECT_EQ(descriptors, before.descriptors);
    EXPECT_EQ(shared, before.shared);
    EXPECT_LE(heap, before.heap + (size_t{128} << 10));
    if (!kSanitized) {  // a sanitizer's own mappings come and go
      EXPECT_LE(mappings, before.mappings + 16);
      EXPECT_LE(resident, before.resident + (size_t{4} << 20));
    }
  }
};

}  // namespace vmsg::testing
