// SPDX-License-Identifier: Apache-2.0
// Which domains there are, asked of the hypervisor itself: what it says is true also when a watch
// event of xenstore was lost. Follows xenctrl.h (xc_domain_getinfolist).
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "grants/xen_types.h"

namespace vmsg::grants {

struct DomainInfo {
  DomainId id = 0;
  // Being destroyed, or a zombie that somebody's mappings keep: its domid is not in use any more.
  bool dying = false;
  // Powered off, crashed or suspended, and not destroyed yet: its pages and grants are what they
  // were, and mappings of them stay valid.
  bool shut_down = false;
  bool operator==(const DomainInfo&) const = default;
};

// One thread at a time.
class DomainList {
 public:
  virtual ~DomainList() = default;

  // Every domain of the machine, this one and zombies included, by ascending domid; at most as many
  // as there are domids. Each is as it was at some moment of the call. PermissionDenied: this
  // domain may not ask (Xen tells a control domain only). FailedPrecondition: libxenctrl is not of
  // the running Xen's version.
  virtual absl::StatusOr<std::vector<DomainInfo>> List() = 0;
};

}  // namespace vmsg::grants
