// SPDX-License-Identifier: Apache-2.0
// The block device's numbers and layouts (virtio 1.4, section "Block Device"), for both sides.
// Layout only: no code. All fields are little-endian, sectors are always 512 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "virtio-msg/virtio_ids.h"

namespace vmsg::wire {

inline constexpr uint32_t kBlkSectorSize = 512;
inline constexpr uint32_t kBlkIdSize = 20;  // GET_ID: NUL-padded, not terminated when it is full

inline constexpr uint64_t kBlkFeatureSizeMax = FeatureMask(1);
inline constexpr uint64_t kBlkFeatureSegMax = FeatureMask(2);
inline constexpr uint64_t kBlkFeatureGeometry = FeatureMask(4);
inline constexpr uint64_t kBlkFeatureReadOnly = FeatureMask(5);
inline constexpr uint64_t kBlkFeatureBlkSize = FeatureMask(6);
inline constexpr uint64_t kBlkFeatureFlush = FeatureMask(9);
inline constexpr uint64_t kBlkFeatureTopology = FeatureMask(10);
inline constexpr uint64_t kBlkFeatureConfigWce = FeatureMask(11);
inline constexpr uint64_t kBlkFeatureMultiQueue = FeatureMask(12);
inline constexpr uint64_t kBlkFeatureDiscard = FeatureMask(13);
inline constexpr uint64_t kBlkFeatureWriteZeroes = FeatureMask(14);
inline constexpr uint64_t kBlkFeatureLifetime = FeatureMask(15);
inline constexpr uint64_t kBlkFeatureSecureErase = FeatureMask(16);
inline constexpr uint64_t kBlkFeatureZoned = FeatureMask(17);

// Configuration space. The part about zones, which follows, is not described here.
struct BlkConfig {
  uint64_t capacity;  // sectors
  uint32_t size_max;  // bytes of one segment
  uint32_t seg_max;   // data segments of a request
  uint16_t cylinders;
  uint8_t heads;
  uint8_t sectors;
  uint32_t blk_size;           // bytes
  uint8_t physical_block_exp;  // log2 of logical blocks per physical block
  uint8_t alignment_offset;    // logical blocks
  uint16_t min_io_size;        // logical blocks
  uint32_t opt_io_size;        // logical blocks
  uint8_t writeback;           // 0 writethrough, 1 writeback; writable with ConfigWce
  uint8_t unused0;
  uint16_t num_queues;
  uint32_t max_discard_sectors;
  uint32_t max_discard_seg;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused1[3];
  uint32_t max_secure_erase_sectors;
  uint32_t max_secure_erase_seg;
  uint32_t secure_erase_sector_alignment;
};
static_assert(sizeof(BlkConfig) == 72);
static_assert(offsetof(BlkConfig, seg_max) == 12 && offsetof(BlkConfig, cylinders) == 16 &&
              offsetof(BlkConfig, blk_size) == 20 && offsetof(BlkConfig, opt_io_size) == 28 &&
              offsetof(BlkConfig, writeback) == 32 && offsetof(BlkConfig, num_queues) == 34 &&
              offsetof(BlkConfig, max_discard_sectors) == 36 &&
              offsetof(BlkConfig, max_write_zeroes_sectors) == 48 &&
              offsetof(BlkConfig, write_zeroes_may_unmap) == 56 &&
              offsetof(BlkConfig, max_secure_erase_sectors) == 60);

// A request: this header (device-readable), data, one status byte (device-writable, last).
struct BlkRequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(BlkRequestHeader) == 16 && offsetof(BlkRequestHeader, sector) == 8);

inline constexpr uint32_t kBlkRequestIn = 0;   // read
inline constexpr uint32_t kBlkRequestOut = 1;  // write
inline constexpr uint32_t kBlkRequestFlush = 4;
inline constexpr uint32_t kBlkRequestGetId = 8;
inline constexpr uint32_t kBlkRequestGetLifetime = 10;
inline constexpr uint32_t kBlkRequestDiscard = 11;
inline constexpr uint32_t kBlkRequestWriteZeroes = 13;
inline constexpr uint32_t kBlkRequestSecureErase = 14;

// The data of DISCARD and WRITE_ZEROES is an array of these.
struct BlkDiscardSegment {
  uint64_t sector;
  uint32_t num_sectors;
  uint32_t flags;
};
static_assert(sizeof(BlkDiscardSegment) == 16 && offsetof(BlkDiscardSegment, flags) == 12);
inline constexpr uint32_t kBlkDiscardFlagUnmap = 1;  // WRITE_ZEROES only

inline constexpr uint8_t kBlkStatusOk = 0;
inline constexpr uint8_t kBlkStatusIoError = 1;
inline constexpr uint8_t kBlkStatusUnsupported = 2;

}  // namespace vmsg::wire
