// SPDX-License-Identifier: Apache-2.0
#include "backend/service/domain_check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"

namespace vmsg::backend {
namespace {

// No guest's lane has it.
constexpr WorkerPool::Key kLane = ~WorkerPool::Key{0};

}  // namespace

DomainCheck::DomainCheck(Parts parts) : parts_(std::move(parts)) {
  if (parts_.domains.ok()) {
    domains_ = *std::move(parts_.domains);
  } else {
    Log(LogLevel::kInfo, absl::StrCat("guests' lives are followed in xenstore alone: ",
                                      parts_.domains.status().message()));
  }
}

DomainCheck::~DomainCheck() {
  *alive_ = false;
  if (timer_ != 0) parts_.loop->Cancel(timer_);
}

void DomainCheck::SetNeeded(bool needed) {
  if (std::exchange(needed_, needed) == needed) return;
  if (!needed && timer_ != 0) parts_.loop->Cancel(std::exchange(timer_, 0));
  if (needed) Now();
  Arm();
}

void DomainCheck::Arm() {
  if (!needed_ || timer_ != 0 || domains_ == nullptr || parts_.interval <= absl::ZeroDuration()) {
    return;
  }
  timer_ = parts_.loop->RunAfter(parts_.interval, [this] {
    timer_ = 0;
    Now();
    Arm();
  });
}

void DomainCheck::Now() {
  if (domains_ == nullptr || !needed_) return;
  if (asking_) {
    again_ = true;
    return;
  }
  asking_ = true;
  // Only those of now are judged by the answer: a guest that is created meanwhile may not be in it.
  parts_.workers->Submit(kLane, [this, alive = alive_, domains = domains_, loop = parts_.loop,
                                 asked = parts_.guests()]() mutable {
    loop->Post([this, alive, asked = std::move(asked), answer = domains->List()] {
      if (*alive) OnAnswer(asked, answer);
    });
  });
}

void DomainCheck::OnAnswer(const std::vector<uint16_t>& asked,
                           const absl::StatusOr<std::vector<grants::DomainInfo>>& domains) {
  asking_ = false;
  if (domains.ok()) {
    failing_ = false;
    absl::erase_if(shut_down_, [&](uint16_t guest) {
      return !std::binary_search(asked.begin(), asked.end(), guest);
    });
    for (const uint16_t guest : asked) Judge(guest, *domains);
  } else if (absl::IsPermissionDenied(domains.status()) ||
             absl::IsFailedPrecondition(domains.status())) {
    Log(LogLevel::kInfo,
        absl::StrCat("guests' lives are followed in xenstore alone: ", domains.status().message()));
    domains_ = nullptr;
    if (timer_ != 0) parts_.loop->Cancel(std::exchange(timer_, 0));
  } else if (!std::exchange(failing_, true)) {
    Log(LogLevel::kWarning,
        absl::StrCat("cannot learn which guests live: ", domains.status().message()));
  }
  if (std::exchange(again_, false)) Now();
}

void DomainCheck::Judge(uint16_t guest, const std::vector<grants::DomainInfo>& domains) {
  const auto info = std::lower_bound(
      domains.begin(), domains.end(), guest,
      [](const grants::DomainInfo& domain, uint16_t id) { return domain.id < id; });
  const bool listed = info != domains.end() && info->id == guest;
  if (!listed || info->dying) {
    shut_down_.erase(guest);
    parts_.ended(guest);
  } else if (!info->shut_down) {
    shut_down_.erase(guest);
  } else if (shut_down_.insert(guest).second) {
    Log(LogLevel::kInfo, absl::StrCat(parts_.label(guest),
                                      ": shut down and not destroyed; it is disconnected when "
                                      "it is"));
  }
}

}  // namespace vmsg::backend
