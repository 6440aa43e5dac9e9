// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/blk/image.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/entry_keys.h"

namespace vmsg::backend {

OpenedDevice PackImage(BlkImage image) {
  OpenedDevice opened;
  opened.type = "blk";
  opened.options["bytes"] = absl::StrCat(image.bytes);
  opened.options["logical-block"] = absl::StrCat(image.logical_block);
  opened.options["physical-block"] = absl::StrCat(image.physical_block);
  opened.options["memory-alignment"] = absl::StrCat(image.memory_alignment);
  opened.options["offset-alignment"] = absl::StrCat(image.offset_alignment);
  opened.options["readonly"] = image.read_only ? "1" : "0";
  opened.options["writethrough"] = image.writethrough ? "1" : "0";
  opened.options["queues"] = absl::StrCat(image.queues);
  opened.options["serial"] = image.serial;
  opened.health = std::move(image.health);
  opened.options["direct"] = image.direct ? "1" : "0";
  opened.fds.push_back(std::move(image.buffered));
  if (image.direct) opened.fds.push_back(std::move(image.direct));
  if (image.loop_file) opened.fds.push_back(std::move(image.loop_file));
  return opened;
}

absl::StatusOr<BlkImage> UnpackImage(OpenedDevice opened) {
  BlkImage image;
  uint64_t values[9] = {};
  const absl::string_view names[9] = {"bytes",
                                      "logical-block",
                                      "physical-block",
                                      "memory-alignment",
                                      "offset-alignment",
                                      "readonly",
                                      "writethrough",
                                      "queues",
                                      "direct"};
  for (size_t i = 0; i < 9; ++i) {
    absl::StatusOr<uint64_t> value = OptionNumber(opened, names[i]);
    if (!value.ok()) return value.status();
    values[i] = *value;
  }
  absl::StatusOr<std::string> serial = Option(opened, "serial");
  if (!serial.ok()) return serial.status();
  const size_t used = values[8] != 0 ? 2 : 1;
  if (opened.fds.size() != used && opened.fds.size() != used + 1) {
    return absl::InternalError(absl::StrCat("block device ", opened.number, " was opened with ",
                                            opened.fds.size(), " descriptors instead of ", used,
                                            " or ", used + 1));
  }
  image.bytes = values[0];
  image.logical_block = values[1];
  image.physical_block = values[2];
  image.memory_alignment = values[3];
  image.offset_alignment = values[4];
  image.read_only = values[5] != 0;
  image.writethrough = values[6] != 0;
  image.queues = values[7];
  image.serial = *std::move(serial);
  image.health = std::move(opened.health);
  image.buffered = std::move(opened.fds[0]);
  if (used == 2) image.direct = std::move(opened.fds[1]);
  if (opened.fds.size() > used) image.loop_file = std::move(opened.fds[used]);
  return image;
}

}  // namespace vmsg::backend
