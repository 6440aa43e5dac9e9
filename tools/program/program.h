// SPDX-License-Identifier: Apache-2.0
// What all of our programs do the same.
#pragma once

namespace vmsg {

// The project's version, such as "0.1.0".
const char* Version();

// Runs `main` as the program `name`, and returns its exit status. `--version` is answered here when
// it is the first argument; `-h` is handed on as `--help`. A standard output that could not be
// written entirely makes a success a failure (1), with the reason on standard error: whoever
// redirects it to a full disk learns of it.
int RunProgram(const char* name, int argc, char** argv, int (*main)(int argc, char** argv));

}  // namespace vmsg
