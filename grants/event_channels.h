// SPDX-License-Identifier: Apache-2.0
// Event channels. Follows xenevtchn.h; the semantics are /dev/xen/evtchn's.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "grants/xen_types.h"

namespace vmsg::grants {

// A handle with any number of ports. fd() is readable while an unmasked port is pending.
// One handle per thread; no method may be called from two threads at once, except Notify, which any
// thread may call. Ports still bound are closed with the handle. A port closed by one end becomes
// unbound again, for the same domid, at the other, so a restarted peer can bind it.
class EventChannels {
 public:
  virtual ~EventChannels() = default;

  virtual int fd() const = 0;

  // A new port that `remote` may bind.
  virtual absl::StatusOr<EventPort> AllocateUnbound(DomainId remote) = 0;

  // Binds to a port that `remote` allocated for this domain. One spurious event is delivered to the
  // caller at once. InvalidArgument: no such domain or port, or the port is not for us or is bound
  // already.
  virtual absl::StatusOr<EventPort> BindInterdomain(DomainId remote, EventPort remote_port) = 0;

  // Raises the other end's event. Returns OK also when the other end is gone (as Xen does).
  virtual absl::Status Notify(EventPort port) = 0;

  // The next pending port, which is masked until Unmask; nullopt when there is none. Never blocks.
  virtual absl::StatusOr<std::optional<EventPort>> NextPending() = 0;

  // Lets the port be delivered again; an event that arrived meanwhile is pending at once. A
  // port that is not of this handle is left alone, without an error.
  virtual absl::Status Unmask(EventPort port) = 0;

  // Closes the port.
  virtual absl::Status Unbind(EventPort port) = 0;
};

}  // namespace vmsg::grants
