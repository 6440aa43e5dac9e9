// SPDX-License-Identifier: Apache-2.0
#include <sys/capability.h>
#include <sys/prctl.h>

#include <cerrno>
#include <memory>
#include <type_traits>

#include "backend/sandbox/sandbox.h"

namespace vmsg::backend {
namespace {

constexpr cap_value_t kKept = CAP_DAC_OVERRIDE;

struct FreeCapabilities {
  void operator()(void* set) const { cap_free(set); }
};
using CapabilitySet = std::unique_ptr<std::remove_pointer_t<cap_t>, FreeCapabilities>;

// Of whatever this process was given, `kKept` stays.
absl::Status KeepOne() {
  const CapabilitySet now(cap_get_proc());
  const CapabilitySet next(cap_init());
  if (now == nullptr || next == nullptr) return absl::ErrnoToStatus(errno, "cap_get_proc");
  cap_flag_value_t held = CAP_CLEAR;
  cap_get_flag(now.get(), kKept, CAP_PERMITTED, &held);
  if (held == CAP_SET) {
    cap_set_flag(next.get(), CAP_PERMITTED, 1, &kKept, CAP_SET);
    cap_set_flag(next.get(), CAP_EFFECTIVE, 1, &kKept, CAP_SET);
  }
  if (cap_set_proc(next.get()) != 0) return absl::ErrnoToStatus(errno, "cap_set_proc");
  return absl::OkStatus();
}

// Only CAP_SETPCAP may do this; whoever lacks it cannot gain anything by executing either, because
// of no_new_privs.
void NarrowBoundingSet() {
  for (cap_value_t capability = 0; CAP_IS_SUPPORTED(capability); ++capability) {
    if (capability != kKept) (void)cap_drop_bound(capability);
  }
}

}  // namespace

absl::Status ShedPrivileges() {
  if (!SandboxIsAvailable()) return absl::UnimplementedError("built with sanitizers");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return absl::ErrnoToStatus(errno, "prctl(PR_SET_NO_NEW_PRIVS)");
  }
  (void)cap_reset_ambient();
  NarrowBoundingSet();
  if (absl::Status kept = KeepOne(); !kept.ok()) return kept;
  // After the capabilities: changing those may make a process dumpable again.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return absl::ErrnoToStatus(errno, "prctl(PR_SET_DUMPABLE)");
  }
  return absl::OkStatus();
}

}  // namespace vmsg::backend
