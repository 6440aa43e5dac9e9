// SPDX-License-Identifier: Apache-2.0
#include "backend/bus/device_channel.h"

#include <bit>
#include <utility>

namespace vmsg::backend {

using wire::MessageId;

absl::Status DeviceChannel::Attach(std::unique_ptr<Device> device, grants::Window& window,
                                   bool queue_resume) {
  absl::StatusOr<std::unique_ptr<DeviceTransport>> transport =
      DeviceTransport::Create(std::move(device), window, *this, queue_resume);
  if (!transport.ok()) return transport.status();
  transport_ = *std::move(transport);
  return absl::OkStatus();
}

void DeviceChannel::TakeRequest(const wire::Message& message, std::span<const std::byte> record) {
  if (must_wait() || !pending_.empty()) {
    pending_.emplace_back(record.begin(), record.end());
    return;
  }
  Serve(message);
}

template <class Request, class Handler>
void DeviceChannel::Answer(const wire::Message& message, Handler handler) {
  absl::StatusOr<Request> request = wire::Parse<Request>(owner_.outbox().profile(), message);
  if (!request.ok()) {
    owner_.outbox().CancelResponse();
    owner_.ChannelMalformed(number_, request.status());
    return;
  }
  owner_.outbox().Respond(message.envelope, handler(*request));
}

template <class Request, class Begin>
void DeviceChannel::AnswerLater(const wire::Message& message, Begin begin) {
  absl::StatusOr<Request> request = wire::Parse<Request>(owner_.outbox().profile(), message);
  if (!request.ok()) {
    owner_.outbox().CancelResponse();
    owner_.ChannelMalformed(number_, request.status());
    return;
  }
  in_progress_ = true;
  begin(*request);
}

void DeviceChannel::Serve(const wire::Message& message) {
  Outbox& outbox = owner_.outbox();
  if (leaving_) {
    AnswerWithZeros(outbox, message);
    return;
  }
  DeviceTransport& transport = *transport_;
  const wire::Envelope envelope = message.envelope;
  const auto handle = [&](const auto& request) { return transport.Handle(request); };
  const auto handle_with_scratch = [&](const auto& request) {
    return transport.Handle(request, outbox.scratch());
  };
  switch (message.spec->id) {
    case MessageId::kGetDeviceInfo:
      return Answer<wire::GetDeviceInfoRequest>(message, handle);
    case MessageId::kGetDeviceFeatures:
      return Answer<wire::GetDeviceFeaturesRequest>(message, handle_with_scratch);
    case MessageId::kSetDriverFeatures:
      return Answer<wire::SetDriverFeaturesRequest>(message, handle);
    case MessageId::kGetConfig:
      return Answer<wire::GetConfigRequest>(message, handle_with_scratch);
    case MessageId::kSetConfig:
      return Answer<wire::SetConfigRequest>(message, handle);
    case MessageId::kGetDeviceStatus:
      return Answer<wire::GetDeviceStatusRequest>(message, handle);
    case MessageId::kGetVqueue:
      return Answer<wire::GetVqueueRequest>(message, handle);
    case MessageId::kGetShm:
      return Answer<wire::GetShmRequest>(message, handle);
    case MessageId::kSetDeviceStatus:
      return AnswerLater<wire::SetDeviceStatusRequest>(message, [&](const auto& request) {
        transport.HandleDeferred(request, [this, envelope](wire::SetDeviceStatusResponse response) {
          in_progress_ = false;
          owner_.outbox().Respond(envelope, response);
          if (response.status == 0) owner_.ChannelReset(number_);
        });
      });
    case MessageId::kSetVqueue:
      return AnswerLater<wire::SetVqueueRequest>(message, [&](const auto& request) {
        transport.HandleDeferred(request, [this, envelope] {
          in_progress_ = false;
          owner_.outbox().Respond(envelope, wire::SetVqueueResponse{});
        });
      });
    case MessageId::kResetVqueue:
      return AnswerLater<wire::ResetVqueueRequest>(message, [&](const auto& request) {
        transport.HandleDeferred(request, [this, envelope] {
          in_progress_ = false;
          owner_.outbox().Respond(envelope, wire::ResetVqueueResponse{});
        });
      });
    default:
      outbox.CancelResponse();
      owner_.ChannelMalformed(number_, absl::InvalidArgumentError("not a request to a device"));
  }
}

void DeviceChannel::ServePending() {
  while (!pending_.empty() && !must_wait()) {
    const std::vector<std::byte> record = std::move(pending_.front());
    pending_.pop_front();
    Outbox& outbox = owner_.outbox();
    // It was decoded before it was kept, so this cannot fail; if it does, no answer is owed.
    absl::StatusOr<wire::Message> message =
        wire::Decode(outbox.profile(), record, outbox.message_size());
    if (message.ok()) {
      Serve(*message);
    } else {
      outbox.CancelResponse();
    }
  }
}

void DeviceChannel::TakeEvent(const wire::Message& message) {
  if (leaving_) return;
  absl::StatusOr<wire::EventAvail> event =
      wire::Parse<wire::EventAvail>(owner_.outbox().profile(), message);
  if (!event.ok()) {
    owner_.ChannelMalformed(number_, event.status());
    return;
  }
  transport_->HandleEvent(*event);
}

bool DeviceChannel::Turn(uint32_t chains_per_queue) {
  bool worked = false;
  if (std::exchange(wants_turn_, false)) {
    transport_->Advance();
    worked = true;
  }
  if (!pending_.empty() && !must_wait()) {
    ServePending();
    worked = true;
  }
  worked |= transport_->RunQueues(chains_per_queue);
  return worked;
}

bool DeviceChannel::Flush() {
  Outbox& outbox = owner_.outbox();
  const wire::Envelope envelope{.dev_num = number_, .token = 0};
  if (config_due_) {
    // Taken only when there is room for the largest, because taking it forgets what changed.
    if (!outbox.HasCredit()) return false;
    config_due_ = false;
    if (!outbox.TrySend(envelope, transport_->TakeConfigEvent(outbox.scratch()))) return false;
  }
  while (used_due_ != 0) {
    const uint32_t queue = static_cast<uint32_t>(std::countr_zero(used_due_));
    if (!outbox.TrySend(envelope, wire::EventUsed{.vq_index = queue})) return false;
    used_due_ &= used_due_ - 1;
  }
  return true;
}

void DeviceChannel::Remove(absl::AnyInvocable<void()> done) {
  if (done != nullptr) done_.push_back(std::move(done));
  if (std::exchange(leaving_, true)) return;
  used_due_ = 0;
  config_due_ = false;
  transport_->Shutdown([this] {
    drained_ = true;
    WantTurn();
  });
  WantTurn();
}

void DeviceChannel::WantEventUsed(uint32_t queue) {
  if (leaving_) return;
  const uint64_t bit = uint64_t{1} << queue;
  if ((used_due_ & bit) != 0) {
    owner_.EventCoalesced();
    return;
  }
  used_due_ |= bit;
  owner_.ChannelNeedsTurn(*this);
}

void DeviceChannel::WantEventConfig() {
  if (leaving_) return;
  if (config_due_) owner_.EventCoalesced();
  config_due_ = true;
  owner_.ChannelNeedsTurn(*this);
}

void DeviceChannel::WantTurn() {
  wants_turn_ = true;
  owner_.ChannelNeedsTurn(*this);
}

namespace {

template <class Response>
void Zeros(Outbox& outbox, const wire::Message& request) {
  outbox.Respond(request.envelope, Response{});
}

}  // namespace

void AnswerWithZeros(Outbox& outbox, const wire::Message& request) {
  switch (request.spec->id) {
    case MessageId::kGetDeviceInfo:
      return Zeros<wire::GetDeviceInfoResponse>(outbox, request);
    case MessageId::kGetDeviceFeatures:
      return Zeros<wire::GetDeviceFeaturesResponse>(outbox, request);
    case MessageId::kSetDriverFeatures:
      return Zeros<wire::SetDriverFeaturesResponse>(outbox, request);
    case MessageId::kGetConfig:
      return Zeros<wire::GetConfigResponse>(outbox, request);
    case MessageId::kSetConfig:
      return Zeros<wire::SetConfigResponse>(outbox, request);
    case MessageId::kGetDeviceStatus:
      return Zeros<wire::GetDeviceStatusResponse>(outbox, request);
    case MessageId::kSetDeviceStatus:
      return Zeros<wire::SetDeviceStatusResponse>(outbox, request);
    case MessageId::kGetVqueue:
      return Zeros<wire::GetVqueueResponse>(outbox, request);
    case MessageId::kSetVqueue:
      return Zeros<wire::SetVqueueResponse>(outbox, request);
    case MessageId::kResetVqueue:
      return Zeros<wire::ResetVqueueResponse>(outbox, request);
    case MessageId::kGetShm:
      return Zeros<wire::GetShmResponse>(outbox, request);
    default:
      outbox.CancelResponse();
  }
}

}  // namespace vmsg::backend
