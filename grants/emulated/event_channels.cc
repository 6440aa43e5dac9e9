// SPDX-License-Identifier: Apache-2.0
// Event channels whose events pass through shared memory and eventfds (event_page.h). xen-emu is
// asked when a port is made, bound or closed, and at the first notification after its other end
// changed; never for an event.
#include <bit>
#include <mutex>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/event_page.h"
#include "grants/emulated/handles.h"
#include "grants/emulated/protocol.h"
#include "grants/emulated/shared_page.h"
#include "grants/event_channels.h"

namespace vmsg::emu {
namespace {

using grants::DomainId;
using grants::EventPort;

// The handle at the other end of one or more ports.
struct Peer {
  SharedPage<EventPage> page;
  OwnedFd eventfd;
};

class EmulatedEventChannels final : public grants::EventChannels {
 public:
  static absl::StatusOr<std::unique_ptr<EmulatedEventChannels>> Open(
      std::unique_ptr<Connection> connection) {
    absl::StatusOr<Reply> reply = connection->Call(Operation::kOpenEvents, {});
    if (!reply.ok()) return reply.status();
    auto page = SharedPage<EventPage>::Map(reply->fds[0]);
    if (!page.ok()) return page.status();
    auto control = SharedPage<ControlPage>::Map(reply->fds[1]);
    if (!control.ok()) return control.status();
    auto handle = std::make_unique<EmulatedEventChannels>();
    handle->connection_ = std::move(connection);
    handle->page_ = *std::move(page);
    handle->control_ = *std::move(control);
    handle->eventfd_ = std::move(reply->fds[2]);
    if (!handle->eventfd_) return absl::InternalError("emulated Xen: no eventfd came");
    return handle;
  }

  int fd() const override { return eventfd_.get(); }

  absl::StatusOr<EventPort> AllocateUnbound(DomainId remote) override {
    return AddPort(Operation::kAllocateUnbound, {.port = 0, .remote = remote, .reserved = 0});
  }

  absl::StatusOr<EventPort> BindInterdomain(DomainId remote, EventPort remote_port) override {
    absl::StatusOr<EventPort> port = AddPort(
        Operation::kBindInterdomain, {.port = remote_port, .remote = remote, .reserved = 0});
    // As Xen does; it also covers what the other end sent before this end could listen.
    if (port.ok() && page_->Raise(ports_.find(*port)->second.slot)) SignalEventFd(fd());
    return port;
  }

  absl::Status Notify(EventPort number) override {
    std::lock_guard lock(mutex_);
    const auto found = ports_.find(number);
    if (found == ports_.end()) return NoSuchPort(number);
    Port& port = found->second;
    SlotControl& control = control_->slots[port.slot];
    if (const uint32_t now = control.generation_word().load(); now != port.generation) {
      port.peer.reset();
      if (now % 2 == 0) return absl::OkStatus();  // nobody there; Xen drops the event silently
      if (absl::Status status = QueryPeer(number, &port); !status.ok()) return status;
    }
    if (port.peer == nullptr) return absl::OkStatus();
    if (control.lose_word().load(std::memory_order_relaxed) != 0) {
      control.lose_word().fetch_sub(1);
      return absl::OkStatus();
    }
    if (port.peer->page->Raise(port.peer_slot)) SignalEventFd(port.peer->eventfd.get());
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<EventPort>> NextPending() override {
    std::optional<EventPort> port = Scan();
    // The eventfd stays readable for what is left. Whoever set a bit has not always written it: a
    // peer that finds the slot masked leaves that to Unmask. So bits say nothing about
    // `signalled_`.
    if (port.has_value() && AnyReady()) return port;
    if (!port.has_value() && drained_) {
      drained_ = false;  // what wrote it since is drained when it wakes us
      return port;
    }
    // With the last port, so that taking it leaves nothing behind that wakes once more.
    DrainEventFd(fd());
    signalled_ = false;
    if (!port.has_value()) port = Scan();
    drained_ = port.has_value();
    if (AnyReady()) {
      // The write that was drained may have stood for further events too.
      SignalEventFd(fd());
      signalled_ = true;
      drained_ = false;
    }
    return port;
  }

  absl::Status Unmask(EventPort number) override {
    const auto found = ports_.find(number);              // ports_ changes on this thread only
    if (found == ports_.end()) return absl::OkStatus();  // as Linux's driver says
    const uint32_t slot = found->second.slot;
    const uint64_t bit = EventPage::Bit(slot);
    deliverable_[slot / 64] |= bit;
    page_->masked_word(slot).fetch_and(~bit);
    if ((page_->pending_word(slot).load() & bit) != 0 && !signalled_) {
      SignalEventFd(fd());
      signalled_ = true;
    }
    return absl::OkStatus();
  }

  absl::Status Unbind(EventPort number) override {
    std::lock_guard lock(mutex_);
    const auto found = ports_.find(number);
    if (found == ports_.end()) return NoSuchPort(number);
    const uint32_t slot = found->second.slot;
    ports_.erase(found);
    slots_[slot] = 0;
    deliverable_[slot / 64] &= ~EventPage::Bit(slot);
    absl::StatusOr<Reply> reply =
        connection_->Call(Operation::kUnbind, PortRequest{.port = number});
    page_->pending_word(slot).fetch_and(~EventPage::Bit(slot));
    page_->masked_word(slot).fetch_and(~EventPage::Bit(slot));
    return reply.status();
  }

 private:
  struct Port {
    uint32_t slot = 0;
    uint32_t generation = 0;  // what `peer` was learnt at
    uint32_t peer_slot = 0;
    std::shared_ptr<Peer> peer;
  };

  static absl::Status NoSuchPort(EventPort port) {
    return absl::InvalidArgumentError(
        absl::StrCat("event channel port ", port, " is not one of this handle"));
  }

  absl::StatusOr<EventPort> AddPort(Operation operation, PortRequest request) {
    std::lock_guard lock(mutex_);
    absl::StatusOr<Reply> reply = connection_->Call(operation, request);
    if (!reply.ok()) return reply.status();
    PortReply answer{};
    if (absl::Status status = reply->Get(0, &answer); !status.ok()) return status;
    if (answer.slot >= kEventSlots) return absl::InternalError("emulated Xen: a slot out of range");
    Port port{.slot = answer.slot};
    if (absl::Status status = Learn(answer, *reply, &port); !status.ok()) {
      connection_->Call(Operation::kUnbind, PortRequest{.port = answer.port}).IgnoreError();
      return status;
    }
    slots_.resize(std::max<size_t>(slots_.size(), answer.slot + 1));
    slots_[answer.slot] = answer.port;
    deliverable_[answer.slot / 64] |= EventPage::Bit(answer.slot);
    ports_[answer.port] = std::move(port);
    return answer.port;
  }

  absl::Status QueryPeer(EventPort number, Port* port) {
    absl::StatusOr<Reply> reply =
        connection_->Call(Operation::kQueryPeer, PortRequest{.port = number});
    if (!reply.ok()) return reply.status();
    PortReply answer{};
    if (absl::Status status = reply->Get(0, &answer); !status.ok()) return status;
    return Learn(answer, *reply, port);
  }

  absl::Status Learn(const PortReply& answer, Reply& reply, Port* port) {
    port->generation = answer.generation;
    port->peer_slot = answer.peer_slot;
    port->peer.reset();
    if (answer.peer_handle == 0) return absl::OkStatus();
    if (answer.peer_slot >= kEventSlots) return absl::InternalError("emulated Xen: bad peer slot");
    std::weak_ptr<Peer>& known = peers_[answer.peer_handle];
    port->peer = known.lock();
    if (port->peer != nullptr) return absl::OkStatus();
    auto page = SharedPage<EventPage>::Map(reply.fds[0]);
    if (!page.ok()) return page.status();
    port->peer = std::make_shared<Peer>(Peer{*std::move(page), std::move(reply.fds[1])});
    known = port->peer;
    std::erase_if(peers_, [](const auto& peer) { return peer.second.expired(); });
    return absl::OkStatus();
  }

  bool AnyReady() {
    const size_t words = (slots_.size() + 63) / 64;
    for (size_t word = 0; word < words; ++word) {
      if ((std::atomic_ref<uint64_t>(page_->pending[word]).load() & deliverable_[word]) != 0) {
        return true;
      }
    }
    return false;
  }

  // Takes the next pending port in turn: masks it, then clears its pending bit, so that an event
  // that comes in between stays pending. Bounded by kEventWords, whatever the page says.
  std::optional<EventPort> Scan() {
    const uint32_t words = (slots_.size() + 63) / 64;
    for (uint32_t i = 0; i <= words && words != 0; ++i) {
      const uint32_t word = (next_slot_ / 64 + i) % words;
      uint64_t ready = std::atomic_ref<uint64_t>(page_->pending[word]).load() & deliverable_[word];
      if (i == 0) ready &= ~uint64_t{0} << (next_slot_ % 64);
      if (ready == 0) continue;
      const uint32_t slot = word * 64 + std::countr_zero(ready);
      const uint64_t bit = EventPage::Bit(slot);
      deliverable_[word] &= ~bit;
      page_->masked_word(slot).fetch_or(bit);
      page_->pending_word(slot).fetch_and(~bit);
      next_slot_ = (slot + 1) % (words * 64);
      return slots_[slot];
    }
    return std::nullopt;
  }

  std::mutex mutex_;  // connection_, peers_, the peers in ports_; changes of ports_
  std::unique_ptr<Connection> connection_;
  SharedPage<EventPage> page_;
  SharedPage<ControlPage> control_;
  OwnedFd eventfd_;
  std::unordered_map<EventPort, Port> ports_;
  std::unordered_map<uint64_t, std::weak_ptr<Peer>> peers_;

  // The owner's thread only.
  std::vector<EventPort> slots_;            // the port of each slot
  uint64_t deliverable_[kEventWords] = {};  // bound and not masked
  uint32_t next_slot_ = 0;
  bool signalled_ = false;  // this handle wrote the eventfd itself since it was last drained
  bool drained_ = false;    // the eventfd was drained with the last port taken
};

}  // namespace

absl::StatusOr<std::unique_ptr<grants::EventChannels>> OpenEventChannels(
    const std::string& directory) {
  auto connection = Connection::Open(absl::StrCat(directory, "/", kHypervisorSocket));
  if (!connection.ok()) return connection.status();
  auto handle = EmulatedEventChannels::Open(*std::move(connection));
  if (!handle.ok()) return handle.status();
  return *std::move(handle);
}

}  // namespace vmsg::emu
