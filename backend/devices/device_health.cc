// SPDX-License-Identifier: Apache-2.0
#include "backend/devices/device_health.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::backend {
namespace {

std::string Text(const IoFailure& failure) {
  std::string text = failure.operation;
  if (failure.bytes != 0) {
    absl::StrAppend(&text, " of ", failure.bytes, " bytes at ", failure.offset);
  }
  if (failure.error == 0) return absl::StrCat(text, ": the file ends before");
  const char* const name = strerrorname_np(failure.error);
  return absl::StrCat(text, ": ", std::strerror(failure.error), " (",
                      name != nullptr ? name : absl::StrCat(failure.error), ")");
}

}  // namespace

void DeviceHealth::Record(const IoFailure& failure) {
  std::lock_guard lock(mutex_);
  ++failures_;
  last_ = failure;
  if (failed_ != nullptr && !std::exchange(announced_, true)) failed_();
}

DeviceHealth::Report DeviceHealth::Read() const {
  std::lock_guard lock(mutex_);
  Report report{.failures = failures_, .last = failures_ == 0 ? "" : Text(last_)};
  if (data_lost()) {
    absl::StrAppend(&report.last, "; data may be lost: flushes fail until it is attached anew");
  }
  read_ = failures_;
  return report;
}

void DeviceHealth::OnFailure(absl::AnyInvocable<void()> failed) {
  std::lock_guard lock(mutex_);
  failed_ = std::move(failed);
}

bool DeviceHealth::Rearm() {
  std::lock_guard lock(mutex_);
  if (failures_ != read_) return true;
  announced_ = false;
  return false;
}

}  // namespace vmsg::backend
