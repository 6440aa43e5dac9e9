// SPDX-License-Identifier: Apache-2.0
// Real or emulated Xen: chosen once, where a program starts (`--xen=native` or
// `--xen=emulated:<dir>`).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grants/domain_list.h"
#include "grants/event_channels.h"
#include "grants/grant_mapper.h"
#include "grants/grant_sharer.h"

namespace vmsg::grants {

// The domain this program runs in, as seen through one Xen. Thread-safe. What it opens may outlive
// it.
class Platform {
 public:
  virtual ~Platform() = default;

  virtual absl::StatusOr<std::unique_ptr<GrantMapper>> OpenGrantMapper() = 0;
  virtual absl::StatusOr<std::unique_ptr<GrantSharer>> OpenGrantSharer() = 0;
  virtual absl::StatusOr<std::unique_ptr<EventChannels>> OpenEventChannels() = 0;
  // Only a control domain has one that answers: elsewhere this fails, or its List does.
  virtual absl::StatusOr<std::unique_ptr<DomainList>> OpenDomainList() = 0;

  // Whether mapped grants may not be unmapped, by the end of the process neither, while the kernel
  // reads or writes their pages: in a PV domain that leaves them pinned for good and the kernel
  // damaged. What cannot be found out counts as PV.
  virtual bool unmapping_is_unsafe_during_io() const = 0;

  // The Unix socket of xenstored to give to xenstore::OpenStore; empty means libxenstore's own
  // default (the daemon's socket, then /dev/xen/xenbus).
  virtual std::string store_socket() const = 0;

  // A file of this Xen's own, there as long as it is, in which the one program that serves others
  // from this domain holds a lock. Others do not write to it.
  virtual std::string lock_path() const = 0;

  // "native" or "emulated:<dir>".
  virtual std::string name() const = 0;
};

// Parses the value of --xen. "emulated:<dir>": <dir> is what `xen-emu serve --dir` was given (then
// this program is in Dom0), or <dir>/domains/<domid> (then it is in that guest): which domain one
// is, follows from the directory one was given, and cannot be chosen otherwise, as on a real
// machine. Empty text: native when this machine runs on Xen (/dev/xen/evtchn or /proc/xen exist),
// else FailedPrecondition with a text that names both choices.
absl::StatusOr<std::unique_ptr<Platform>> OpenPlatform(absl::string_view xen_option);

// Implementations, for OpenPlatform only.
absl::StatusOr<std::unique_ptr<Platform>> OpenNativePlatform();
absl::StatusOr<std::unique_ptr<Platform>> OpenEmulatedPlatform(absl::string_view dir);

}  // namespace vmsg::grants
