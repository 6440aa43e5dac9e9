// SPDX-License-Identifier: Apache-2.0
// What an errno of Linux's Xen drivers (gntdev, gntalloc, evtchn) means, as a Status that says what
// to do. Pure functions: the numbers come from the caller. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grants/xen_types.h"

namespace vmsg::grants {

// The parameter `limit` of a loaded module (xen_gntdev, xen_gntalloc); nullopt if it is not there.
std::optional<uint64_t> ReadModuleLimit(absl::string_view module);

// Opening `device`, which `module` serves. NotFound, PermissionDenied, else Unavailable.
absl::Status OpenError(int error, absl::string_view device, absl::string_view module);

// Mapping `pages` pages of `domain`; `limit` is gntdev's. InvalidArgument: the hypervisor refused.
// ResourceExhausted: over a limit, which is named.
absl::Status MapError(int error, DomainId domain, size_t pages, std::optional<uint64_t> limit);

// Copying grant `ref` of `domain`; `status` is Xen's GNTST_* (xen/grant_table.h), not okay.
absl::Status CopyError(int status, DomainId domain, GrantRef ref);

// Sharing `pages` pages with `domain`; `limit` is gntalloc's. As MapError.
absl::Status ShareError(int error, DomainId domain, size_t pages, std::optional<uint64_t> limit);

// An operation on event channels, `what` says which. InvalidArgument: no such domain or port, or
// it is not for us. ResourceExhausted: out of ports.
absl::Status EventError(int error, absl::string_view what);

// Asking Xen for its domains. PermissionDenied: this is no control domain. FailedPrecondition: the
// library and the hypervisor are of different versions.
absl::Status DomainListError(int error);

// InvalidArgument unless `domain` is a domain's number.
absl::Status CheckDomain(DomainId domain);

}  // namespace vmsg::grants
