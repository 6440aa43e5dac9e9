// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/domains/event_ports.h"

#include <errno.h>
#include <string.h>

#include "absl/strings/str_cat.h"
#include "tools/xen-emu/domains/memory.h"

namespace vmsg::emu {

using grants::DomainId;
using grants::EventPort;

absl::StatusOr<std::unique_ptr<EventHandle>> EventHandle::Create(uint64_t id, DomainId domain) {
  auto handle = std::unique_ptr<EventHandle>(new EventHandle(id, domain));
  auto page = CreateSealedFile("xen-emu-events", kEventPageSize);
  if (!page.ok()) return page.status();
  auto control = CreateSealedFile("xen-emu-event-control", kControlPageSize);
  if (!control.ok()) return control.status();
  handle->page_ = *std::move(page);
  handle->control_file_ = *std::move(control);
  handle->eventfd_ = OwnedFd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!handle->eventfd_) {
    return absl::ResourceExhaustedError(absl::StrCat("xen-emu: no eventfd: ", strerror(errno)));
  }
  auto control_page = SharedPage<ControlPage>::Map(handle->control_file_);
  if (!control_page.ok()) return control_page.status();
  handle->control_ = *std::move(control_page);
  return handle;
}

absl::StatusOr<EventPort> EventPorts::AllocateUnbound(EventHandle* handle, DomainId remote) {
  if (remote >= grants::kFirstReservedDomain) {
    return absl::InvalidArgumentError(absl::StrCat("domid ", remote, " is no domain"));
  }
  return Add(handle, Port{.handle = handle, .remote = remote});
}

absl::StatusOr<EventPort> EventPorts::BindInterdomain(EventHandle* handle, DomainId remote,
                                                      EventPort remote_port) {
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("port ", remote_port, " of domain ", remote, " ", why));
  };
  Port* other = FindMutable(remote, remote_port);
  if (other == nullptr) return refuse("does not exist");
  if (other->remote != handle->domain) {
    return refuse(absl::StrCat("is for domain ", other->remote, ", not ", handle->domain));
  }
  if (other->remote_port != 0) return refuse("is bound already");
  absl::StatusOr<EventPort> port =
      Add(handle, Port{.handle = handle, .remote = remote, .remote_port = remote_port});
  if (!port.ok()) return port;
  other->remote_port = *port;
  Changed(*other, true);
  Changed(*FindMutable(handle->domain, *port), true);
  return port;
}

absl::StatusOr<EventPort> EventPorts::Add(EventHandle* handle, const Port& port) {
  if (handle->slots_.all()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the handle has all of its ", kEventSlots, " ports"));
  }
  DomainPorts& ports = domains_[handle->domain];
  EventPort number = 1;  // 0 is never a valid port
  for (auto it = ports.begin(); it != ports.end() && it->first == number; ++it) ++number;
  if (number > kLastPort) {
    return absl::ResourceExhaustedError(
        absl::StrCat("domain ", handle->domain, " has all of its ", kLastPort, " event channels"));
  }
  uint32_t slot = 0;
  while (handle->slots_[slot]) ++slot;
  handle->slots_.set(slot);
  handle->ports_.insert(number);
  ports[number] = port;
  ports[number].slot = slot;
  return number;
}

absl::Status EventPorts::Close(EventHandle* handle, EventPort number) {
  Port* port = FindMutable(handle->domain, number);
  if (port == nullptr || port->handle != handle) {
    return absl::InvalidArgumentError(absl::StrCat("port ", number, " is not one of this handle"));
  }
  if (port->remote_port != 0) {
    // A port connected to another of the same handle included: each is closed on its own.
    Port* other = FindMutable(port->remote, port->remote_port);
    other->remote_port = 0;
    Changed(*other, false);
    Changed(*port, false);
  }
  handle->slots_.reset(port->slot);
  handle->ports_.erase(number);
  DomainPorts& ports = domains_[handle->domain];
  ports.erase(number);
  if (ports.empty()) domains_.erase(handle->domain);
  return absl::OkStatus();
}

void EventPorts::CloseAll(EventHandle* handle) {
  while (!handle->ports_.empty()) Close(handle, *handle->ports_.begin()).IgnoreError();
}

// Even: nobody at the other end; odd: somebody. A fault set for what was connected ends with it.
void EventPorts::Changed(Port& port, bool connected) {
  SlotControl& slot = port.handle->control_->slots[port.slot];
  slot.lose_word().store(0);
  const uint32_t now = slot.generation_word().load();
  slot.generation_word().store(now + (now % 2 == (connected ? 1u : 0u) ? 2 : 1));
}

const EventPorts::Port* EventPorts::Find(DomainId domain, EventPort port) const {
  const auto ports = domains_.find(domain);
  if (ports == domains_.end()) return nullptr;
  const auto found = ports->second.find(port);
  return found == ports->second.end() ? nullptr : &found->second;
}

EventPorts::Port* EventPorts::FindMutable(DomainId domain, EventPort port) {
  return const_cast<Port*>(Find(domain, port));
}

const EventPorts::Port* EventPorts::PeerOf(const Port& port) const {
  return port.remote_port == 0 ? nullptr : Find(port.remote, port.remote_port);
}

absl::Status EventPorts::LoseEvents(DomainId domain, EventPort number, uint32_t count) {
  const Port* port = Find(domain, number);
  const Port* sender = port == nullptr ? nullptr : PeerOf(*port);
  if (sender == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("port ", number, " of domain ", domain,
                     port == nullptr ? " does not exist" : " is not connected"));
  }
  sender->handle->control_->slots[sender->slot].lose_word().store(count);
  return absl::OkStatus();
}

EventPorts::Counts EventPorts::CountsOf(DomainId domain) const {
  Counts counts;
  const auto ports = domains_.find(domain);
  if (ports == domains_.end()) return counts;
  for (const auto& [number, port] : ports->second) {
    ++counts.ports;
    if (port.remote_port != 0) ++counts.bound;
  }
  return counts;
}

}  // namespace vmsg::emu
