// SPDX-License-Identifier: Apache-2.0
// Where the two sides of a measurement run. Left to the scheduler, the same round trip takes 5 us
// in one run and 10 in the next: with both sides on one processor it is a switch, on two a wake-up.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <charconv>
#include <filesystem>
#include <string>

namespace vmsg::bench {

// Keeps thread `thread` (0: the caller) on one processor; without that processor, nothing.
inline void KeepThreadOn(int processor, pid_t thread = 0) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(thread, sizeof set, &set);
}

// The threads that a process has now, and those that they start.
inline void KeepProcessOn(int processor, pid_t process) {
  std::error_code ended;
  const std::filesystem::path tasks = "/proc/" + std::to_string(process) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks, ended)) {
    const std::string name = task.path().filename();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    if (thread > 0) KeepThreadOn(processor, thread);
  }
}

// The calling thread on one processor, and where it was before afterwards.
class OnProcessor {
 public:
  explicit OnProcessor(int processor) {
    sched_getaffinity(0, sizeof before_, &before_);
    KeepThreadOn(processor);
  }
  ~OnProcessor() { sched_setaffinity(0, sizeof before_, &before_); }
  OnProcessor(const OnProcessor&) = delete;
  OnProcessor& operator=(const OnProcessor&) = delete;

 private:
  cpu_set_t before_;
};

}  // namespace vmsg::bench
