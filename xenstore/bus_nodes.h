// SPDX-License-Identifier: Apache-2.0
// Where a bus lives in xenstore and what its nodes are called. docs/binding.md gives the whole
// contract: who owns, writes and reads each, and its values. Follows the conventions of
// xen/io/xenbus.h and libxl's device directories.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmsg::xenstore {

inline constexpr char kKind[] = "virtio-msg";
inline constexpr uint16_t kLastDomain =
    0x7FEF;  // ids above are reserved: xen.h, DOMID_FIRST_RESERVED

// One bus instance between frontend domain F and backend domain B.
struct BusAddress {
  uint16_t frontend = 0;
  uint16_t backend = 0;
  uint32_t id = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison with 0 for a pointer.
  auto operator<=>(const BusAddress&) const = default;

  std::string FrontendPath() const {
    return absl::StrCat("/local/domain/", frontend, "/device/", kKind, "/", id);
  }
  std::string BackendPath() const {
    return absl::StrCat("/local/domain/", backend, "/backend/", kKind, "/", frontend, "/", id);
  }
};

// In both directories.
inline constexpr char kState[] = "state";  // xenbus state, decimal

// In the backend directory, written by the toolstack.
inline constexpr char kFrontend[] = "frontend";       // absolute path of the frontend directory
inline constexpr char kFrontendId[] = "frontend-id";  // F
inline constexpr char kOnline[] = "online";           // 1; 0 asks for removal
inline constexpr char kForce[] = "force";             // 1 with online=0: do not ask the drivers
inline constexpr char kDevice[] = "device";           // device/<dev_num>/..., not readable by F
inline constexpr char kType[] = "type";               // device/<n>/type: blk, rng, console, ...
inline constexpr char kDeviceOnline[] =
    "online";  // device/<n>/online: 1; 0 asks for the device's removal
inline constexpr char kDeviceForce[] =
    "force";  // device/<n>/force: 1 with online=0: remove without asking the driver

// Below device/<n>/type are notes. Beside it every name is either one of those here or a parameter
// of the device, so that a new one there would be a parameter that an older backend refuses.
inline constexpr char kEntryId[] = "type/entry-id";        // no other entry has had it
inline constexpr char kFromConfig[] = "type/from-config";  // the xl config that it is from

// In device/<n>, written by the backend.
inline constexpr char kHotplugStatus[] = "hotplug-status";  // one of these:
inline constexpr char kStatusConnected[] = "connected";
inline constexpr char kStatusError[] = "error";
// To be removed, and the driver was asked to let go of it.
inline constexpr char kStatusAsked[] = "asked";
// To be removed, and no driver has it any more; requests to what it names are still to end.
inline constexpr char kStatusDraining[] = "draining";
inline constexpr char kHotplugError[] = "hotplug-error";  // why the entry was refused
// Notes, as above.
inline constexpr char kIoErrors[] = "type/io-errors";  // requests that the disk failed
inline constexpr char kIoError[] = "type/io-error";    // the last of them
inline constexpr char kOpenedAs[] = "type/opened-as";  // what was opened last, in words
// found/<key>: the value that <key> has from now on, where the entry says nothing of it.
inline constexpr char kFoundKeys[] = "type/found";

// In the backend directory, written by the backend before state 2.
inline constexpr char kVersions[] =
    "versions";  // "1": binding versions, comma separated, ascending
inline constexpr char kMaxMessageSize[] = "max-message-size";  // bytes, 264
inline constexpr char kMaxWindowPages[] = "max-window-pages";
inline constexpr char kMaxRingOrder[] = "max-ring-order";
inline constexpr char kFeatureRingEventIdx[] =
    "feature-ring-event-idx";  // both directories: 1 = notification suppression
inline constexpr char kFeatureQueueResume[] =
    "feature-queue-resume";  // both directories: 1 = a virtqueue goes on where its used ring is
inline constexpr char kHotplugErrorNode[] =
    "hotplug-error";  // backend directory: why the bus was refused

// In the frontend directory, written by the toolstack.
inline constexpr char kBackend[] = "backend";       // absolute path of the backend directory
inline constexpr char kBackendId[] = "backend-id";  // B

// In the frontend directory, written by the frontend before state 3.
inline constexpr char kVersion[] = "version";
inline constexpr char kMessageSize[] = "message-size";
inline constexpr char kRingRef[] = "ring-ref";                // grant of the ring's interface page
inline constexpr char kEventChannel[] = "event-channel";      // port allocated by F for B
inline constexpr char kDirectoryRef[] = "directory-ref";      // grant of the first directory page
inline constexpr char kDirectoryPages[] = "directory-pages";  // pages of window (not of directory)

// Where either side reports an error: error/device/virtio-msg/<id>/error below the frontend's
// domain for the frontend, and error/backend/virtio-msg/<F>/<id>/error below the backend's domain
// for the backend (as xenbus_dev_error does).
inline std::string BackendErrorPath(const BusAddress& bus) {
  return absl::StrCat("/local/domain/", bus.backend, "/error/backend/", kKind, "/", bus.frontend,
                      "/", bus.id, "/error");
}
inline std::string FrontendErrorPath(const BusAddress& bus) {
  return absl::StrCat("/local/domain/", bus.frontend, "/error/device/", kKind, "/", bus.id,
                      "/error");
}

// Nodes of a device entry that are not the type's parameters.
inline bool IsControlNode(absl::string_view node) {
  return node == kType || node == kDeviceOnline || node == kDeviceForce || node == kHotplugStatus ||
         node == kHotplugError;
}

}  // namespace vmsg::xenstore
