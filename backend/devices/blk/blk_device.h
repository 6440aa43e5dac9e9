// SPDX-License-Identifier: Apache-2.0
// The block device (virtio 1.4, "Block Device"): executes parsed requests on an image.
#pragma once

#include <memory>
#include <vector>

#include "backend/devices/async_file_io.h"
#include "backend/devices/blk/flushes.h"
#include "backend/devices/blk/image.h"
#include "backend/devices/blk/request.h"
#include "backend/devices/blk/write_gate.h"
#include "backend/devices/device.h"
#include "virtio-msg/virtio_blk.h"

namespace vmsg::backend {

// Entries of each queue at most. With it comes the bound on what a guest makes us hold: 256
// requests a queue, of 256 buffers each.
inline constexpr uint32_t kBlkMaxQueueSize = 256;
// Data buffers of a request: the queue size without header and status, so that a chain that is
// longer than offered is refused by its queue.
inline constexpr uint32_t kBlkMaxSegments = kBlkMaxQueueSize - 2;
// Of each data buffer, where the driver accepted SIZE_MAX; of all together in any case, the largest
// that can be made of them.
inline constexpr uint32_t kBlkMaxSegmentBytes = 1 << 20;
inline constexpr uint64_t kBlkMaxRequestBytes = uint64_t{kBlkMaxSegments} * kBlkMaxSegmentBytes;

// Stable storage: a completed FLUSH means that all writes completed before it are stable. A write
// is stable when it completes while the cache is writethrough, which it is when the driver set
// `writeback` to 0, or negotiated no FLUSH at all, or the administrator chose it and the driver
// did not negotiate CONFIG_WCE. When the cache becomes writethrough with data that are not stable,
// the device flushes by itself: a driver that sees writethrough sends no FLUSH for them.
//
// Lost data: when a flush failed, or a write that had to be stable, something that was said to be
// written may be gone, and the kernel does not tell again. From then on every FLUSH and every write
// that has to be stable fails, of later connections too, until the disk is attached anew
// (DeviceHealth). An ordinary write that fails loses nothing: the driver knows of exactly that one,
// and what it wrote before is where it was. Nor does a stable one for which there is no space.
class BlkDevice final : public Device, private BatchListener, private FlushOwner {
 public:
  // `io` must outlive it. Nothing may be in flight when it is destroyed.
  BlkDevice(BlkImage image, AsyncFileIo* io);
  ~BlkDevice() override;

  const DeviceIdentity& identity() const override { return identity_; }
  bool AwaitsStorage() const override { return slots_in_use_ > 0; }
  void ReadConfig(uint32_t offset, std::span<std::byte> out) const override;
  absl::Status WriteConfig(uint32_t offset, std::span<const std::byte> data) override;
  void OnFeatures(uint64_t features) override;
  void OnStart(DeviceHost& host, uint64_t features) override;
  bool OnQueue(uint32_t queue, uint32_t budget) override;
  void OnQueueStopping(uint32_t queue) override;
  bool Settle(DeviceHost& host) override;
  void OnReset() override;

 private:
  // A request from Pop to Return. As many as were ever in flight at once exist.
  struct Slot : FileOperation, WriteGateEntry, FlushEntry {
    BlkDevice* device = nullptr;
    SplitQueue* split_queue = nullptr;
    uint32_t queue = 0;
    DescriptorChain chain;
    BlkRequest request;
    bool gated = false;    // WriteGate::Leave is due
    bool at_work = false;  // given to the AsyncFileIo, not done
    bool stable = false;   // a write that is stable when it completes
    Slot* next_free = nullptr;
  };

  void Execute(uint32_t queue, SplitQueue* split_queue, DescriptorChain chain);
  void Transfer(Slot* slot);
  void StartTransfer(Slot* slot, bool direct);
  void GetId(Slot* slot);
  static void OnDone(FileOperation* operation, int64_t result);
  void LeaveGate(Slot* slot);
  void OnTransferred(Slot* slot, int64_t result);
  void OnFlushed(FlushEntry* entry, bool stable) override;
  void OnFlushesEnd() override;
  // The cache may have become writethrough.
  void FlushIfStable();
  // The slot's last moment: status, return, free. May end in the destruction of this device.
  void Finish(Slot* slot, uint8_t status);
  void OnBatchEnd() override;
  bool SuitsDirect(const BlkRequest& request) const;
  bool WithinLimits(const BlkRequest& request) const;
  bool WritesAreStable() const;
  Slot* TakeSlot();

  const BlkImage image_;
  AsyncFileIo* const io_;
  DeviceIdentity identity_;
  wire::BlkConfig config_ = {};
  DeviceHost* host_ = nullptr;
  uint64_t features_ = 0;
  WriteGate gate_;
  Flushes flushes_;
  DeviceHost* settling_ = nullptr;  // waits for flushes_
  std::vector<std::unique_ptr<Slot[]>> slots_;
  Slot* free_slots_ = nullptr;
  uint32_t slots_in_use_ = 0;
  bool outside_reported_ = false;  // to this driver
  uint32_t dirty_queues_ = 0;      // a bit for each queue with something returned and not published
};

}  // namespace vmsg::backend
