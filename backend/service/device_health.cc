// SPDX-License-Identifier: Apache-2.0
// What the administrator is told of a device's I/O errors: a line in the log and nodes in its
// entry, at a bounded rate, however many there are.
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/bus_control.h"
#include "xenstore/reports/device_reports.h"

namespace vmsg::backend {

void BusControl::WatchHealth(DeviceControl& device) {
  const uint16_t number = device.nodes.number;
  // An earlier vmsgd's.
  xenstore::ReportIoErrors(*services_.store, EntryOf(device), 0, "").IgnoreError();
  // Not the health itself: it would keep itself.
  device.opened->health->OnFailure([number, loop = services_.loop, anchor = anchor_,
                                    weak = std::weak_ptr(device.opened->health)] {
    PostBack(loop, anchor, [number, health = weak.lock()](BusControl& control) {
      control.ReportHealth(number, health);
    });
  });
}

void BusControl::ReportHealth(uint16_t number, const std::shared_ptr<DeviceHealth>& health) {
  auto entry = devices_.find(number);
  // Closed, or another device has its number.
  if (entry == devices_.end() || !entry->second.opened.has_value() ||
      entry->second.opened->health != health) {
    return;
  }
  const DeviceHealth::Report report = health->Read();
  // Beside what the guest causes, so that it cannot hide it.
  Log(LogLevel::kError, absl::StrCat(name_, " device ", number, ": ", report.last, "; ",
                                     report.failures, " I/O errors since it was attached"));
  if (!gone_ && !entry->second.vanished) {
    absl::Status written = xenstore::ReportIoErrors(*services_.store, EntryOf(entry->second),
                                                    report.failures, report.last);
    if (!written.ok() && !absl::IsNotFound(written)) {
      LogLine(LogLevel::kError,
              absl::StrCat("device ", number, ": writing its I/O errors: ", written.message()));
    }
  }
  services_.loop->RunAfter(kIoErrorInterval, [number, health, anchor = anchor_] {
    if (anchor->control != nullptr && health->Rearm()) {
      anchor->control->ReportHealth(number, health);
    }
  });
}

}  // namespace vmsg::backend
