// SPDX-License-Identifier: Apache-2.0
// What libxl does around a domain's life: its nodes in xenstore.
#pragma once

#include "absl/status/status.h"
#include "tools/xen-emu/domains/domain.h"
#include "tools/xen-emu/store/store_server.h"

namespace vmsg::emu {

// Dom0's own nodes, as init-xenstore-domain makes them.
absl::Status DescribeDom0(store::StoreServer& store);

// The nodes of a new guest with libxl's owners and permissions; then @introduceDomain fires.
absl::Status DescribeDomain(store::StoreServer& store, const Domain& domain);

// Before the domain dies. Like libxl, leaves alone what it does not know: a backend's directory.
void ForgetDomain(store::StoreServer& store, const Domain& domain);

}  // namespace vmsg::emu
