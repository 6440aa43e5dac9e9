// SPDX-License-Identifier: Apache-2.0
// Real Xen, through libxengnttab, libxenevtchn and libxenctrl on Linux's /dev/xen devices. All are
// opened close-on-exec by the libraries. NotFound or PermissionDenied when a device cannot be
// opened.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "grants/domain_list.h"
#include "grants/event_channels.h"
#include "grants/grant_mapper.h"
#include "grants/grant_sharer.h"

struct xentoollog_logger;

namespace vmsg::grants {

absl::StatusOr<std::unique_ptr<GrantMapper>> OpenNativeGrantMapper();
absl::StatusOr<std::unique_ptr<GrantSharer>> OpenNativeGrantSharer();
absl::StatusOr<std::unique_ptr<EventChannels>> OpenNativeEventChannels();
absl::StatusOr<std::unique_ptr<DomainList>> OpenNativeDomainList();

// A logger that says nothing: the libraries would write to stderr whenever a guest gives a bad
// grant, as often as it likes. The Status says the same. Lives as long as the program.
xentoollog_logger* SilentXenLogger();

}  // namespace vmsg::grants
