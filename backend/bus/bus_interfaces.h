// SPDX-License-Identifier: Apache-2.0
// What a bus endpoint is given by whoever runs it, and what it counts.
#pragma once

#include <cstdint>
#include <span>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/grant_mapper.h"

namespace vmsg::backend {

// The bus's end of its event channel. On the session's thread.
class Doorbell {
 public:
  virtual ~Doorbell() = default;
  virtual void Notify() = 0;  // raises the frontend's event
  virtual void Unmask() = 0;  // lets the next event of the frontend be delivered
};

// Maps and unmaps the guest's pages elsewhere: both can take long. `done` runs later, on the
// session's thread. A call is always answered.
class WindowMapper {
 public:
  virtual ~WindowMapper() = default;
  // The window pages that the directory at `directory_ref` lists. InvalidArgument: the directory
  // breaks a rule or lists a page that is mapped already; OutOfRange: more than this guest may have
  // in all its buses; any other error: mapping failed.
  virtual void Map(uint32_t directory_ref, uint32_t pages,
                   absl::AnyInvocable<void(absl::StatusOr<grants::GrantMapping>)> done) = 0;
  virtual void Unmap(grants::GrantMapping mapping, absl::AnyInvocable<void()> done) = 0;
};

// Sees every message, without padding, in the order of the rings.
class MessageTap {
 public:
  virtual ~MessageTap() = default;
  virtual void OnMessage(bool from_driver, std::span<const std::byte> message) = 0;
};

// What the endpoint reports. Called in its own turn; the endpoint must not be destroyed in it.
class BusEvents {
 public:
  virtual ~BusEvents() = default;
  // The guest broke the ring: nothing is taken or sent any more. Once; Close is next.
  virtual void OnBusBroken(const absl::Status& why) = 0;
  // The driver has reset the device.
  virtual void OnDeviceReset(uint16_t number) = 0;
  // Something a guest or a device did wrong. `device` < 0: on the bus.
  virtual void OnProblem(int device, const absl::Status& what) = 0;
};

struct BusCounters {
  uint64_t messages_received = 0;
  uint64_t messages_sent = 0;
  uint64_t malformed = 0;         // dropped: header, payload, or not the driver's to send
  uint64_t unknown_device = 0;    // requests answered with zeros, events dropped
  uint64_t events_coalesced = 0;  // EVENT_USED and EVENT_CONFIG that one already due stood for
  uint64_t notifications_sent = 0;
  uint64_t wakeups = 0;           // events of the frontend
  uint64_t spurious_wakeups = 0;  // of these, those that announced nothing
  uint64_t ring_full = 0;         // turns that ended for want of room in the ring
  uint64_t pings_answered = 0;    // of ours
  uint64_t problems = 0;
};

}  // namespace vmsg::backend
