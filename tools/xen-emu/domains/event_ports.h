// SPDX-License-Identifier: Apache-2.0
// The event-channel ports of all domains. Events themselves pass between the processes
// (grants/emulated/event_page.h); here is who is connected to whom.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/event_page.h"
#include "grants/emulated/shared_page.h"
#include "grants/xen_types.h"

namespace vmsg::emu {

// One open handle of a process: its event page and eventfd, and what xen-emu tells it.
class EventHandle {
 public:
  static absl::StatusOr<std::unique_ptr<EventHandle>> Create(uint64_t id, grants::DomainId domain);

  const uint64_t id;  // never 0, never used twice
  const grants::DomainId domain;

 private:
  friend class EventPorts;
  friend class Hypervisor;
  EventHandle(uint64_t id, grants::DomainId domain) : id(id), domain(domain) {}

  OwnedFd page_;
  OwnedFd control_file_;
  OwnedFd eventfd_;
  SharedPage<ControlPage> control_;
  std::bitset<kEventSlots> slots_;
  std::set<grants::EventPort> ports_;
};

class EventPorts {
 public:
  static constexpr grants::EventPort kLastPort = 131071;  // Xen's FIFO event channels

  struct Port {
    EventHandle* handle = nullptr;
    uint32_t slot = 0;
    grants::DomainId remote = 0;        // who may bind it, or has
    grants::EventPort remote_port = 0;  // 0: unbound
  };

  absl::StatusOr<grants::EventPort> AllocateUnbound(EventHandle* handle, grants::DomainId remote);
  // InvalidArgument: no such port, not for this domain, or bound already.
  absl::StatusOr<grants::EventPort> BindInterdomain(EventHandle* handle, grants::DomainId remote,
                                                    grants::EventPort remote_port);
  // A port of this handle. The other end becomes unbound, for the same domid.
  absl::Status Close(EventHandle* handle, grants::EventPort port);
  void CloseAll(EventHandle* handle);

  // nullptr: no such port.
  const Port* Find(grants::DomainId domain, grants::EventPort port) const;
  // The other end, nullptr when there is none.
  const Port* PeerOf(const Port& port) const;

  // The next `count` events sent to this port are lost. InvalidArgument: no such port, or nothing
  // is connected to it.
  absl::Status LoseEvents(grants::DomainId domain, grants::EventPort port, uint32_t count);

  struct Counts {
    uint32_t ports = 0;
    uint32_t bound = 0;
  };
  Counts CountsOf(grants::DomainId domain) const;

 private:
  using DomainPorts = std::map<grants::EventPort, Port>;
  absl::StatusOr<grants::EventPort> Add(EventHandle* handle, const Port& port);
  Port* FindMutable(grants::DomainId domain, grants::EventPort port);
  static void Changed(Port& port, bool connected);

  std::map<grants::DomainId, DomainPorts> domains_;
};

}  // namespace vmsg::emu
