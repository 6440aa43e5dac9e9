// SPDX-License-Identifier: Apache-2.0
// The commands of vmsg-frontend. Each returns an error to print; the exit status follows from it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "frontend-model/bus/bus_connection.h"
#include "frontend-model/drivers/blk_driver.h"
#include "grants/platform.h"
#include "tools/vmsg-frontend/arguments.h"

namespace vmsg::frontend_tool {

// How long one transfer, or one answer of a device, may take.
inline constexpr auto kPatience = std::chrono::seconds(60);

absl::Status RunList(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunBlk(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunBlkBench(frontend::BlkDriver& disk, const Arguments& arguments);
absl::Status RunRng(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunConsole(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunPing(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunHold(frontend::BusConnection& connection, const Arguments& arguments);
// What a look can tell of a bus that another program, or the kernel, has; false: nobody has it.
absl::StatusOr<bool> ListHeldBus(const grants::Platform& platform, uint32_t bus_id);
// nbd, in order: what is asked for can be had, the disk is there, this program becomes nbdkit
// (returns only on an error).
absl::Status CheckNbdArguments(const Arguments& arguments);
absl::Status FindDisk(frontend::BusConnection& connection, const Arguments& arguments);
absl::Status RunNbd(const Arguments& arguments);

// The device that --dev names, or the first one of this type. A bus that has just connected may
// still be opening its devices, so one that is missing is waited for, briefly.
absl::StatusOr<std::unique_ptr<frontend::DeviceClient>> OpenDevice(
    frontend::BusConnection& connection, const Arguments& arguments, uint32_t device_id,
    const std::string& type);

// Prints "device N ready", "device N removed", ... for each EVENT_DEVICE.
void PrintBusStates(frontend::FrontendBus& bus, FILE* out);

// "blk", "rng", ...; the number for types this program does not know.
std::string DeviceTypeName(uint32_t device_id);

// Writes everything to a file descriptor.
absl::Status WriteAll(int fd, const void* bytes, size_t size);

}  // namespace vmsg::frontend_tool
