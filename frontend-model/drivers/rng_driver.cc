// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/drivers/rng_driver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::frontend {
namespace {

constexpr uint32_t kQueueSize = 8;
constexpr uint64_t kRngFeatures =
    wire::kFeatureEventIdx | wire::kFeatureRingReset | wire::kFeatureAccessPlatform;

}  // namespace

absl::StatusOr<std::unique_ptr<RngDriver>> RngDriver::Create(std::unique_ptr<DeviceClient> client) {
  if (client->info().device_id != wire::kDeviceIdEntropy) {
    return absl::InvalidArgumentError(absl::StrCat("device ", client->dev_num(), " is of type ",
                                                   client->info().device_id,
                                                   ", not an entropy device (4)"));
  }
  std::unique_ptr<RngDriver> driver(new RngDriver(std::move(client)));
  if (absl::Status status = driver->Start(); !status.ok()) return status;
  return driver;
}

absl::Status RngDriver::Start() {
  absl::StatusOr<uint64_t> features = client_->Negotiate(kRngFeatures);
  if (!features.ok()) return features.status();
  absl::StatusOr<DriverQueue*> queue = client_->SetUpQueue(0, kQueueSize);
  if (!queue.ok()) return queue.status();
  absl::StatusOr<GuestBlock> buffer = client_->memory().Allocate(kBufferSize);
  if (!buffer.ok()) return buffer.status();
  buffer_ = *std::move(buffer);
  if (absl::Status status = client_->Start(); !status.ok()) return status;
  queue_ = *queue;
  client_->bus().AddPollSource(this);
  return absl::OkStatus();
}

RngDriver::~RngDriver() {
  client_->bus().RemovePollSource(this);
  client_->LetGo();
}

absl::Status RngDriver::Fill(std::span<std::byte> out, Deadline deadline) {
  while (!out.empty()) {
    const auto want = static_cast<uint32_t>(std::min<size_t>(out.size(), kBufferSize));
    const Buffer buffer = {.address = buffer_.address(), .size = want, .device_writes = true};
    if (waiting_) return absl::FailedPreconditionError("an earlier request has not ended");
    if (client_->removal_requested()) {
      return absl::UnavailableError("the entropy device is being removed");
    }
    if (!client_->failure().ok()) return client_->failure();
    absl::StatusOr<bool> added = queue_->Add({&buffer, 1}, 0);
    if (!added.ok()) return added.status();
    waiting_ = true;
    absl::Status waited = client_->bus().WaitUntil(
        [this] { return !waiting_ || client_->removed() || !client_->failure().ok(); }, deadline);
    if (!waited.ok()) return waited;
    if (waiting_ && !client_->failure().ok()) return client_->failure();
    if (waiting_) return absl::UnavailableError("the device was removed");
    if (!written_.ok()) return written_.status();
    if (*written_ == 0) {
      return absl::DataLossError("the entropy device returned a buffer with nothing in it");
    }
    std::memcpy(out.data(), buffer_.bytes().data(), *written_);
    out = out.subspan(*written_);
  }
  return absl::OkStatus();
}

bool RngDriver::Poll() {
  if (!waiting_ || client_->removed() || !client_->failure().ok()) return false;
  if (absl::Status status = client_->Publish(0); !status.ok()) client_->bus().Fail(status);
  absl::StatusOr<std::optional<DriverQueue::Completion>> completion = queue_->Pop();
  if (completion.ok() && !completion->has_value()) return false;
  waiting_ = false;
  if (completion.ok()) {
    written_ = (*completion)->written;
  } else {
    written_ = completion.status();
  }
  return true;
}

bool RngDriver::PrepareToSleep() { return waiting_ && queue_->EnableNotifications(); }

}  // namespace vmsg::frontend
