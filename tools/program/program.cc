// SPDX-License-Identifier: Apache-2.0
#include "tools/program/program.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

namespace vmsg {
namespace {

// What a `main` printed is there only when it has been written, and some file systems say only at
// the end that it was not.
bool CloseOutput() {
  std::cout.flush();
  const bool failed_before = std::ferror(stdout) != 0;
  if (std::fclose(stdout) == 0) return !failed_before;
  // Closed by whoever started us, and nothing was printed.
  return errno == EBADF && !failed_before;
}

}  // namespace

const char* Version() { return VMSG_VERSION; }

int RunProgram(const char* name, int argc, char** argv, int (*main)(int argc, char** argv)) {
  static char help[] = "--help";
  int status = 0;
  if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("%s %s\n", name, Version());
  } else {
    if (argc > 1 && std::strcmp(argv[1], "-h") == 0) argv[1] = help;
    status = main(argc, argv);
  }
  errno = 0;
  if (!CloseOutput()) {
    std::fprintf(stderr, "%s: cannot write standard output: %s\n", name,
                 errno != 0 ? std::strerror(errno) : "an earlier write failed");
    if (status == 0) status = 1;
  }
  return status;
}

}  // namespace vmsg
