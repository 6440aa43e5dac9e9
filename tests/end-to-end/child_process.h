// SPDX-License-Identifier: Apache-2.0
// Programs under test as child processes.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace vmsg::test {

struct Finished {
  int exit_status = -1;  // -signal when a signal ended it
  std::string out;
  std::string err;
};

// Runs to its end with this standard input.
absl::StatusOr<Finished> RunProgram(const std::vector<std::string>& arguments,
                                    const std::string& input = "");

// A child that runs on. It is killed when this or the test's process goes.
class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  // Standard output is a pipe to ReadLine, standard input a pipe that stays open, standard error
  // goes to the file `log`.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& arguments,
                                            const std::string& log);

  // The next line of its standard output, waited for (with a deadline that only a failure meets).
  absl::StatusOr<std::string> ReadLine();
  // Closes its standard input.
  void CloseInput();
  // After SIGSTOP no thread of it runs any more.
  void Signal(int signal);
  // Waits for its end; exit status, or -signal.
  int Wait();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  int in_ = -1;
  std::string buffered_;
};

}  // namespace vmsg::test
