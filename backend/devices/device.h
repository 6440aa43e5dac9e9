// SPDX-License-Identifier: Apache-2.0
// What a device type implements, and what it is given. No type of Xen, of messages or of event
// channels appears here, and none of virtio's life cycle can be overridden: reset, status,
// features, queues and their draining are the transport's (backend/transport). A new device type is
// one folder below backend/devices and one row in registry.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "backend/devices/device_health.h"
#include "backend/devices/unique_fd.h"
#include "backend/runtime/event_loop.h"
#include "backend/virtqueue/split_queue.h"

namespace vmsg::backend {

class AsyncFileIo;  // backend/devices/async_file_io.h

// Facts that do not change in a device's life.
struct DeviceIdentity {
  uint32_t device_id = 0;    // virtio device type (1 net, 2 block, 3 console, 4 entropy)
  uint64_t features = 0;     // device-type bits only (0..23, 50..63); the transport adds its own
  uint32_t config_size = 0;  // bytes
  std::vector<uint32_t> max_queue_sizes;  // one per virtqueue
};

// What a running device may ask of its transport. Calls are from the session's thread.
class DeviceHost {
 public:
  virtual ~DeviceHost() = default;
  // The queue, or nullptr while it is not set up or the device does not run.
  virtual SplitQueue* queue(uint32_t index) = 0;
  // Publishes what was returned on the queue and tells the driver if it wants to be told.
  virtual void Completed(uint32_t queue) = 0;
  // Configuration bytes [offset, offset + length) are about to change to what `change` makes of
  // them: the generation is incremented first, EVENT_CONFIG follows.
  virtual void ChangeConfig(uint32_t offset, uint32_t length,
                            absl::AnyInvocable<void()> change) = 0;
  // The device cannot go on without a reset: DEVICE_NEEDS_RESET. The reason goes to the log.
  virtual void NeedsReset(const absl::Status& reason) = 0;
  // Something that whoever looks after the guest should know; for a log at a bounded rate.
  virtual void Report(const absl::Status& what) = 0;
  // What Settle waited for has ended.
  virtual void Settled() = 0;
};

// Shared by the devices of one I/O thread.
struct DeviceEnvironment {
  EventLoop* loop = nullptr;
  AsyncFileIo* io = nullptr;
};

// Takes a device's counters one by one. A name stays the same and is used by one type of device.
using CounterVisitor = absl::FunctionRef<void(absl::string_view name, uint64_t value)>;

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceIdentity& identity() const = 0;

  // What an administrator sees of the device.
  virtual void VisitCounters(CounterVisitor visit) const { (void)visit; }

  // Whether requests of the driver's are at work on storage (Poller::AwaitsStorage).
  virtual bool AwaitsStorage() const { return false; }

  // `out` lies within config_size.
  virtual void ReadConfig(uint32_t offset, std::span<std::byte> out) const = 0;
  // InvalidArgument: the field is not writable or the value is not allowed; nothing changed.
  virtual absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data) = 0;

  // The driver's features were accepted (FEATURES_OK): `features`, all negotiated bits, decide from
  // now on what configuration reads. Before OnStart; not called again until OnReset.
  virtual void OnFeatures(uint64_t features) { (void)features; }

  // The driver set DRIVER_OK. `features`: all negotiated bits. Queues are reached through `host`
  // until OnReset.
  virtual void OnStart(DeviceHost& host, uint64_t features) = 0;
  // The driver made buffers available on the queue (or the queue was just set up): take chains
  // until there are none or `budget` were taken. True: more are waiting, call again soon. False:
  // call again when the driver makes more available. A device that waits for something of its own
  // (a terminal that does not read) also says false, leaves chains in the queue and takes them
  // itself later, so HasAvailable() after false is no reason to call again at once. Whether the
  // driver's kicks are on (DisableKicks, EnableKicks) is the transport's business; only a device
  // that took chains outside OnQueue calls EnableKicks afterwards, because what the transport armed
  // is behind the queue's position then. Completed is called only when chains were returned.
  virtual bool OnQueue(uint32_t queue, uint32_t budget) = 0;
  // The queue takes no more chains. Return those in flight when their I/O ends (drop what can be
  // dropped at once); the transport waits for it.
  virtual void OnQueueStopping(uint32_t queue) { (void)queue; }
  // All queues have drained, OnReset or the device's end is next. True: nothing of the device's own
  // is at work either. False: host.Settled follows, and this is asked again.
  virtual bool Settle(DeviceHost& host) {
    (void)host;
    return true;
  }
  // Everything has drained; the device is as new. Configuration that the driver wrote returns to
  // its default.
  virtual void OnReset() {}
};

// One device as the administrator described it: type, number and the type's keys. Checked text,
// from xenstore or an xl config.
struct DeviceEntry {
  uint16_t number = 0;
  std::string type;
  absl::btree_map<std::string, std::string> keys;  // without type and number
};

// What a device needs, opened: plain values and descriptors, so that the session that runs it needs
// neither store nor path. It is kept as long as the entry is there and each session gets a
// duplicate, so a guest that connects again meets the same terminal and the same file.
struct OpenedDevice {
  uint16_t number = 0;
  std::string type;
  std::vector<UniqueFd> fds;
  absl::btree_map<std::string, std::string> options;  // checked
  // One for all duplicates.
  std::shared_ptr<DeviceHealth> health = std::make_shared<DeviceHealth>();
  // Keys that the entry is to have from now on, where it lacks them: what opening has found out
  // once and must not come out otherwise when it is opened again.
  absl::btree_map<std::string, std::string> found_keys;
  // What was opened, in words that are others for another file or another size; empty: nothing that
  // could be another the next time.
  std::string seen_as;

  // The same open files under new descriptors, which `closer` closes (null: whoever lets go of
  // them). ResourceExhausted: there are no more descriptors.
  absl::StatusOr<OpenedDevice> Duplicate(const std::shared_ptr<FdCloser>& closer = nullptr) const;
};

struct DeviceType {
  absl::string_view name;                    // value of type=
  absl::Span<const absl::string_view> keys;  // keys an entry may have
  // In the control thread: checks the entry's keys and opens what they name. InvalidArgument names
  // the key, the value and the rule.
  absl::StatusOr<OpenedDevice> (*open)(const DeviceEntry& entry);
  // In the session: builds the device from opened resources.
  absl::StatusOr<std::unique_ptr<Device>> (*create)(OpenedDevice opened,
                                                    const DeviceEnvironment& environment);
  // Removes what open made in the file system (a link, a socket); null: it made nothing.
  void (*remove_names)(const OpenedDevice& opened) = nullptr;
  // Whether what the entry names is there, as far as that can be seen without taking or making
  // anything; null: it names nothing.
  absl::Status (*check)(const DeviceEntry& entry) = nullptr;
};

// The table of device types (registry.cc).
absl::Span<const DeviceType> DeviceTypes();
// Unknown types and unknown keys are refused here, with the names that are known.
absl::StatusOr<OpenedDevice> OpenDevice(const DeviceEntry& entry);
// What OpenDevice would refuse before it opens anything, in its words: for whoever wants to know it
// of several entries before the first is attached. May wait for a disk.
absl::Status CheckEntry(const DeviceEntry& entry);
absl::StatusOr<std::unique_ptr<Device>> CreateDevice(OpenedDevice opened,
                                                     const DeviceEnvironment& environment);
// The end of what OpenDevice made: nobody will be given it any more.
void CloseDevice(OpenedDevice opened);

}  // namespace vmsg::backend
