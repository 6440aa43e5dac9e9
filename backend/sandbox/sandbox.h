// SPDX-License-Identifier: Apache-2.0
// What the service gives up before it serves: a guest that takes over the process gets what is
// left. docs/security-model.md says what that is, and why. Linux: capabilities(7), seccomp(2).
#pragma once

#include "absl/status/status.h"

namespace vmsg::backend {

// False in a build with sanitizers, whose run time needs other calls. Both functions below refuse
// then, with Unimplemented.
bool SandboxIsAvailable();

// Drops every capability but CAP_DAC_OVERRIDE (images belong to whom they belong to), also those
// that a program could be given when it is executed, and keeps the memory of guests out of core
// dumps. Capabilities belong to a thread: call it before there are others. The error says what the
// kernel refused.
absl::Status ShedPrivileges();

// From here on every thread, those to come included, may make the calls that serving takes, on Unix
// sockets and on Xen's drivers, terminals and block devices; nothing can be executed, no memory be
// made executable, no io_uring be set up. Any other call ends the process with SIGSYS, and the
// kernel's log names it: a call that merely failed would leave a service that half works. The error
// says what is missing in the kernel.
absl::Status RestrictSystemCalls();

}  // namespace vmsg::backend
