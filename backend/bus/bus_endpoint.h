// SPDX-License-Identifier: Apache-2.0
// The backend's end of a bus instance: takes messages from the ring, routes them to devices and
// sends responses and events, on whatever carries the ring (docs/binding.md, sections 2, 3 and 5).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "backend/bus/bus_interfaces.h"
#include "backend/bus/device_channel.h"
#include "backend/bus/outbox.h"
#include "backend/bus/window_requests.h"
#include "backend/devices/device.h"
#include "backend/runtime/event_loop.h"
#include "grants/window.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/flex_ring.h"

namespace vmsg::backend {

// Devices on one bus: what an administrator attaches by hand; each costs a few hundred bytes and
// its queues.
inline constexpr size_t kMaxDevicesPerBus = 256;

// What one guest may take of its thread before the others have their turn.
inline constexpr uint32_t kRecordsPerTurn = 64;
inline constexpr uint32_t kChainsPerQueueTurn = 64;

// A guest that raises its event again and again with nothing to say is unmasked late from then on:
// its storm costs the thread a wake-up each kSpuriousDelay instead of one each few microseconds.
inline constexpr uint32_t kSpuriousWakeups = 32;
inline constexpr absl::Duration kSpuriousDelay = absl::Milliseconds(1);

// Pings of ours that wait to be sent, and that wait for an answer.
inline constexpr size_t kMaxPings = 8;

// EVENT_DEVICE that wait for one number while the frontend does not read. A device that came and
// went beyond them is not told of at all.
inline constexpr size_t kMaxEventsOfNumber = 4;

// The two halves of a ring as they are mapped. The interface page's first 128 bytes are shared.
struct RingMemory {
  wire::RingInterface* interface = nullptr;
  std::span<std::byte> in;         // backend to frontend
  std::span<const std::byte> out;  // frontend to backend
};

struct BusOptions {
  const wire::Profile* profile = nullptr;
  size_t message_size = wire::kMaxMessageSize;  // negotiated, header included
  bool suppression = false;                     // feature-ring-event-idx
  bool queue_resume = false;                    // feature-queue-resume
  uint32_t max_window_pages = 0;
  MessageTap* tap = nullptr;  // may be null
};

// Belongs to one loop's thread, where all methods are called. The parts must outlive it.
class BusEndpoint : public Poller, private ChannelOwner {
 public:
  struct Parts {
    EventLoop& loop;
    Doorbell& doorbell;
    grants::Window& window;
    WindowMapper& mapper;
    BusEvents& events;
  };
  BusEndpoint(const Parts& parts, const RingMemory& ring, const BusOptions& options);
  // Close has finished.
  ~BusEndpoint() override;

  // A new device. `announce`: EVENT_DEVICE ready; without it the driver finds it by GET_DEVICES,
  // as it does on a bus that it has just connected. AlreadyExists, ResourceExhausted, or what the
  // device's identity is refused for.
  absl::Status AddDevice(uint16_t number, std::unique_ptr<Device> device, bool announce);
  // Asks the driver to let go of the device: EVENT_DEVICE 0x8000. OnDeviceReset tells that it did.
  absl::Status AskForRemoval(uint16_t number);
  // Takes the device away. When it has drained it is destroyed, EVENT_DEVICE removed follows, and
  // `done` runs (in a turn, or at once when there is no such device).
  void RemoveDevice(uint16_t number, absl::AnyInvocable<void()> done);
  // The driver's status of the device; 0 also when there is none.
  uint32_t DeviceStatus(uint16_t number) const;

  // The frontend raised its event; its port is masked until Doorbell::Unmask.
  void OnEvent();

  // PING to the frontend; answers are counted.
  void Ping(uint32_t data);

  // Touches the ring no more, drains all devices; `done` runs (in a turn) when the window is not
  // pointed at any more and the mapper has nothing of this bus.
  void Close(absl::AnyInvocable<void()> done);

  const BusCounters& counters() const { return counters_; }
  size_t device_count() const { return channels_.size(); }
  void VisitDevices(absl::FunctionRef<void(uint16_t number, const Device& device)> visit) const;

  // Poller.
  bool Poll() override;
  bool PrepareToSleep() override;
  bool AwaitsStorage() const override;

 private:
  // ChannelOwner.
  Outbox& outbox() override { return outbox_; }
  void ChannelNeedsTurn(DeviceChannel& channel) override;
  void ChannelProblem(uint16_t number, const absl::Status& what) override;
  void ChannelMalformed(uint16_t number, const absl::Status& what) override;
  void ChannelReset(uint16_t number) override { parts_.events.OnDeviceReset(number); }
  void EventCoalesced() override { ++counters_.events_coalesced; }

  void Wake();
  bool TakeRecords();
  // False: it has to wait; what is in record_ is kept.
  bool TakeRecord();
  bool TurnChannels();
  bool FlushEvents();
  void Notify(bool wanted);
  void RearmPort();
  void Break(const absl::Status& why);
  bool CheckRing();  // false: broken, reported
  void DestroyGone();
  void FinishClosing();
  bool open() const { return !broken_ && !closing_; }

  // bus_messages.cc
  bool TakeBusMessage(const wire::Message& message);
  void Answer(const wire::Envelope& envelope, const wire::GetDevicesRequest& request);
  void QueueDeviceEvent(uint16_t number, uint16_t state);
  bool FlushDeviceEvents();
  void Malformed(int device, const absl::Status& what);
  template <class Request, class Handler>
  void ParseRequest(const wire::Message& message, Handler handler);

  Parts parts_;
  BusCounters counters_;
  wire::RingConsumer consumer_;
  Outbox outbox_;
  WindowRequests window_requests_;
  MessageTap* const tap_;
  const bool queue_resume_;

  std::array<std::byte, wire::kMaxMessageSize> record_;
  size_t held_ = 0;  // size of a message in record_ that waits for its device; 0: none

  absl::btree_map<uint16_t, std::unique_ptr<DeviceChannel>> channels_;
  size_t leaving_ = 0;  // of these
  std::vector<DeviceChannel*> turn_list_;
  std::vector<wire::EventDevice> device_events_;  // due, in order
  std::vector<uint32_t> pings_due_;
  std::vector<std::pair<uint16_t, uint32_t>> pings_sent_;  // token and data
  uint16_t next_token_ = 1;

  bool awake_ = false;
  bool no_credit_ = false;
  bool broken_ = false;
  bool closing_ = false;
  absl::AnyInvocable<void()> closed_;

  bool port_masked_ = false;
  bool useful_ = false;       // since the last event of the frontend
  size_t free_at_sleep_ = 0;  // of the `in` half: without suppression a cursor moves too
  uint32_t spurious_in_row_ = 0;
  EventLoop::TimerId unmask_timer_ = 0;
};

}  // namespace vmsg::backend
