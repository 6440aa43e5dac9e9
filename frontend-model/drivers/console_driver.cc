// SPDX-License-Identifier: Apache-2.0
#include "frontend-model/drivers/console_driver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "virtio-msg/virtio_console.h"

namespace vmsg::frontend {
namespace {

constexpr uint64_t kConsoleFeatures = wire::kConsoleFeatureSize | wire::kFeatureEventIdx |
                                      wire::kFeatureRingReset | wire::kFeatureAccessPlatform;

}  // namespace

absl::StatusOr<std::unique_ptr<ConsoleDriver>> ConsoleDriver::Create(
    std::unique_ptr<DeviceClient> client) {
  if (client->info().device_id != wire::kDeviceIdConsole) {
    return absl::InvalidArgumentError(absl::StrCat("device ", client->dev_num(), " is of type ",
                                                   client->info().device_id,
                                                   ", not a console (3)"));
  }
  std::unique_ptr<ConsoleDriver> driver(new ConsoleDriver(std::move(client)));
  if (absl::Status status = driver->Start(); !status.ok()) return status;
  return driver;
}

absl::Status ConsoleDriver::Start() {
  absl::StatusOr<uint64_t> features = client_->Negotiate(kConsoleFeatures);
  if (!features.ok()) return features.status();
  absl::StatusOr<DriverQueue*> receive = client_->SetUpQueue(wire::kConsoleReceiveQueue, kBuffers);
  if (!receive.ok()) return receive.status();
  absl::StatusOr<DriverQueue*> transmit =
      client_->SetUpQueue(wire::kConsoleTransmitQueue, kBuffers);
  if (!transmit.ok()) return transmit.status();
  for (uint32_t i = 0; i < 2 * kBuffers; ++i) {
    absl::StatusOr<GuestBlock> block = client_->memory().Allocate(kBufferSize);
    if (!block.ok()) return block.status();
    blocks_.push_back(*std::move(block));
    (i < kBuffers ? idle_receive_ : idle_transmit_).push_back(i);
  }
  client_->set_config_listener([this] { size_changed_ = true; });
  if (absl::Status status = client_->Start(); !status.ok()) return status;
  receive_ = *receive;
  transmit_ = *transmit;
  RefillReceive();
  client_->bus().AddPollSource(this);
  return failure_;
}

ConsoleDriver::~ConsoleDriver() {
  client_->bus().RemovePollSource(this);
  client_->set_config_listener(nullptr);
  client_->LetGo();
}

absl::Status ConsoleDriver::Broken() {
  failure_.Update(client_->failure());
  if (!failure_.ok()) return failure_;
  if (client_->removed() || client_->removal_requested()) {
    return absl::UnavailableError("the console is being removed");
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> ConsoleDriver::TrySend(absl::string_view bytes) {
  if (absl::Status status = Broken(); !status.ok()) return status;
  size_t sent = 0;
  while (sent < bytes.size() && !idle_transmit_.empty()) {
    const uint32_t index = idle_transmit_.back();
    GuestBlock& block = blocks_[index];
    const size_t piece = std::min<size_t>(bytes.size() - sent, kBufferSize);
    std::memcpy(block.bytes().data(), bytes.data() + sent, piece);
    const Buffer buffer = {.address = block.address(), .size = static_cast<uint32_t>(piece)};
    absl::StatusOr<bool> added = transmit_->Add({&buffer, 1}, index);
    if (!added.ok()) return added.status();
    if (!*added) break;
    idle_transmit_.pop_back();
    sent += piece;
  }
  return sent;
}

absl::Status ConsoleDriver::Send(absl::string_view bytes, Deadline deadline) {
  absl::Status error;
  const auto step = [&] {
    absl::StatusOr<size_t> sent = TrySend(bytes);
    if (!sent.ok()) {
      error = sent.status();
      return true;
    }
    bytes.remove_prefix(*sent);
    return bytes.empty() && idle_transmit_.size() == kBuffers;
  };
  absl::Status waited = client_->bus().WaitUntil(step, deadline);
  return error.ok() ? waited : error;
}

void ConsoleDriver::RefillReceive() {
  while (!idle_receive_.empty() && received_.size() < kMaxUnread && failure_.ok()) {
    const uint32_t index = idle_receive_.back();
    const Buffer buffer = {
        .address = blocks_[index].address(), .size = kBufferSize, .device_writes = true};
    absl::StatusOr<bool> added = receive_->Add({&buffer, 1}, index);
    if (!added.ok()) failure_ = added.status();
    if (!added.ok() || !*added) return;
    idle_receive_.pop_back();
  }
}

bool ConsoleDriver::PollReceive() {
  bool worked = false;
  for (uint32_t i = 0; i < kBuffers && failure_.ok(); ++i) {
    absl::StatusOr<std::optional<DriverQueue::Completion>> completion = receive_->Pop();
    if (!completion.ok()) failure_ = completion.status();
    if (!completion.ok() || !completion->has_value()) break;
    const auto index = static_cast<uint32_t>((*completion)->cookie);
    received_.append(reinterpret_cast<const char*>(blocks_[index].bytes().data()),
                     (*completion)->written);
    idle_receive_.push_back(index);
    worked = true;
  }
  RefillReceive();
  return worked;
}

bool ConsoleDriver::PollTransmit() {
  bool worked = false;
  for (uint32_t i = 0; i < kBuffers && failure_.ok(); ++i) {
    absl::StatusOr<std::optional<DriverQueue::Completion>> completion = transmit_->Pop();
    if (!completion.ok()) failure_ = completion.status();
    if (!completion.ok() || !completion->has_value()) break;
    idle_transmit_.push_back(static_cast<uint32_t>((*completion)->cookie));
    worked = true;
  }
  return worked;
}

bool ConsoleDriver::Poll() {
  failure_.Update(client_->failure());
  if (client_->removed() || !failure_.ok()) return false;
  const bool received = PollReceive();
  const bool transmitted = PollTransmit();
  for (const uint32_t queue : {wire::kConsoleReceiveQueue, wire::kConsoleTransmitQueue}) {
    if (absl::Status status = client_->Publish(queue); !status.ok()) client_->bus().Fail(status);
  }
  return received || transmitted;
}

bool ConsoleDriver::PrepareToSleep() {
  if (client_->removed() || !failure_.ok()) return false;
  const bool received = receive_->EnableNotifications();
  const bool transmitted = transmit_->EnableNotifications();
  return received || transmitted;
}

std::string ConsoleDriver::TakeReceived() { return std::exchange(received_, {}); }

absl::Status ConsoleDriver::WaitReceived(Deadline deadline) {
  absl::Status waited =
      client_->bus().WaitUntil([this] { return !received_.empty() || !Broken().ok(); }, deadline);
  return received_.empty() && waited.ok() ? Broken() : waited;
}

absl::StatusOr<ConsoleSize> ConsoleDriver::ReadSize() {
  if (!client_->has_feature(wire::kConsoleFeatureSize)) {
    return absl::FailedPreconditionError("the console does not report its size");
  }
  wire::ConsoleConfig config = {};
  size_changed_ = false;
  absl::Status status = client_->ReadConfig(
      offsetof(wire::ConsoleConfig, cols), std::as_writable_bytes(std::span(&config, 1))
                                               .first(offsetof(wire::ConsoleConfig, max_nr_ports)));
  if (!status.ok()) return status;
  return ConsoleSize{.columns = config.cols, .rows = config.rows};
}

}  // namespace vmsg::frontend
