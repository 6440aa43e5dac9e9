// SPDX-License-Identifier: Apache-2.0
// What /sys/hypervisor/guest_type says about the domain that this program runs in.
#pragma once

#include "absl/strings/string_view.h"

namespace vmsg::grants {

// Whether Xen translates the domain's addresses, so that a mapped grant is ordinary memory to its
// kernel. Not in a PV domain, and not known where the kernel does not tell (before Linux 4.13).
inline bool IsTranslatedDomain(absl::string_view guest_type) {
  return guest_type == "PVH" || guest_type == "HVM";
}

}  // namespace vmsg::grants
