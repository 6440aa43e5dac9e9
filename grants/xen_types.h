// SPDX-License-Identifier: Apache-2.0
// The identifiers Xen gives out, and the page size of its interfaces.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vmsg::grants {

using DomainId = uint16_t;  // xen/xen.h: domid_t
using GrantRef = uint32_t;  // xen/grant_table.h: grant_ref_t
using EventPort =
    uint32_t;  // xen/event_channel.h: evtchn_port_t, valid only in the domain that holds it

// Xen's grants are of 4 KiB pages, whatever page size the guest's kernel uses.
inline constexpr size_t kPageSize = 4096;

// GNTTAB_NR_RESERVED_ENTRIES (xen/grant_table.h): entries 0..7 belong to the toolstack (console,
// xenstore). Mapping them succeeds on real Xen, so we refuse them before the hypervisor is asked.
inline constexpr GrantRef kReservedGrantRefs = 8;

// First domid that is not a domain (xen/xen.h: DOMID_FIRST_RESERVED).
inline constexpr DomainId kFirstReservedDomain = 0x7ff0;

enum class Access { kReadOnly, kReadWrite };

}  // namespace vmsg::grants
