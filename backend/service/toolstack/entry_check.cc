// SPDX-License-Identifier: Apache-2.0
#include "backend/service/toolstack/entry_check.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/devices/device.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg::backend {
namespace {

// Looks that have not come back, each with a thread. With so many, no other is begun.
constexpr int kMostHanging = 8;

}  // namespace

absl::Status CheckItems(const std::vector<xenstore::AttachItem>& items) {
  for (const xenstore::AttachItem& item : items) {
    absl::Status checked =
        CheckEntry({.number = item.number, .type = item.entry.type, .keys = item.entry.keys});
    if (checked.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat(item.label, ": ", checked.message()));
  }
  return absl::OkStatus();
}

struct PatientCheck::Shared {
  Check check;
  std::mutex mutex;
  std::condition_variable answered;
  int hanging = 0;  // guarded by mutex
};

PatientCheck::PatientCheck(absl::Duration patience, Check check)
    : patience_(patience), shared_(std::make_shared<Shared>()) {
  shared_->check = std::move(check);
}

absl::Status PatientCheck::operator()(const std::vector<xenstore::AttachItem>& items) {
  const auto answer = std::make_shared<std::optional<absl::Status>>();
  std::unique_lock lock(shared_->mutex);
  if (shared_->hanging >= kMostHanging) return absl::OkStatus();
  ++shared_->hanging;
  std::thread([shared = shared_, answer, items] {
    absl::Status result = shared->check(items);
    std::lock_guard guard(shared->mutex);
    --shared->hanging;
    *answer = std::move(result);
    shared->answered.notify_all();
  }).detach();
  if (shared_->answered.wait_for(lock, absl::ToChronoNanoseconds(patience_),
                                 [&] { return answer->has_value(); })) {
    return **answer;
  }
  Log(LogLevel::kWarning,
      absl::StrCat(items.empty() ? "" : items[0].label,
                   ": what it or the entries after it name does not answer; attached unchecked"));
  return absl::OkStatus();
}

}  // namespace vmsg::backend
