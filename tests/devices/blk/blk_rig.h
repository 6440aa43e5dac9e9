// SPDX-License-Identifier: Apache-2.0
// A block device on a disk whose completions the test lets go, with its requests copied and not.
#pragma once

#include <fcntl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/devices/blk/blk_device.h"
#include "tests/devices/device_rig.h"
#include "tests/devices/held_file_io.h"
#include "tests/devices/manual_loop.h"

namespace vmsg::testing {

inline constexpr uint64_t kAllBlkFeatures = ~uint64_t{0};

class BlkTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr uint64_t kDiskBytes = 256 * 512;
  static constexpr uint64_t kHeader = DeviceRig::kBuffers;
  static constexpr uint64_t kData = DeviceRig::kBuffers + 4096;
  static constexpr uint64_t kStatus = DeviceRig::kBuffers + 1024 * 1024;

  void SetUp() override { Build({}); }
  void TearDown() override {
    if (rig == nullptr) return;
    rig->BeginReset();
    io.CompleteAll();
    while (!rig->device().Settle(*rig)) io.CompleteAll();
    rig->EndReset();
  }

  void Build(backend::BlkImage image, uint64_t features = kAllBlkFeatures) {
    if (rig != nullptr) TearDown();
    if (image.bytes == 0) image.bytes = kDiskBytes;
    rig.reset();
    auto made = backend::NewGuestFileIo(&io, &loop, GetParam());
    ASSERT_TRUE(made.ok()) << made.status();
    share = *std::move(made);
    rig = std::make_unique<DeviceRig>(
        std::make_unique<backend::BlkDevice>(std::move(image), share.get()));
    rig->Start(features);
    requests_ = 0;
  }

  // Each request has its own header and status byte. Its head.
  uint16_t Submit(uint32_t type, uint64_t sector, std::vector<DeviceRig::Buffer> data) {
    const uint64_t header = kHeader + 16 * requests_;
    wire::BlkRequestHeader bytes{type, 0, sector};
    rig->Put(header, std::string(reinterpret_cast<char*>(&bytes), sizeof bytes));
    rig->Put(StatusOf(requests_), "\xee");
    data.insert(data.begin(), {header, 16, false});
    data.push_back({StatusOf(requests_), 1, true});
    ++requests_;
    return rig->Submit(0, data);
  }
  static uint64_t StatusOf(uint32_t request) { return kStatus + request; }
  // Of the n-th request submitted.
  int Status(uint32_t request) { return static_cast<uint8_t>(rig->Get(StatusOf(request), 1)[0]); }

  HeldFileIo io{kDiskBytes};
  ManualLoop loop;
  std::unique_ptr<backend::AsyncFileIo> share;  // what the device is given
  std::unique_ptr<DeviceRig> rig;
  uint32_t requests_ = 0;
};

inline constexpr int kUnwritten = 0xee;

}  // namespace vmsg::testing
