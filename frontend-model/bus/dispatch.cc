// SPDX-License-Identifier: Apache-2.0
// What the frontend's bus does with a record that came in, and the requests of the bus itself.
#include <utility>

#include "absl/strings/str_cat.h"
#include "frontend-model/bus/frontend_bus.h"

namespace vmsg::frontend {

void FrontendBus::Dispatch(std::span<const std::byte> record) {
  absl::StatusOr<wire::Message> message = wire::Decode(profile_, record, link_.max_message_size());
  if (!message.ok()) {
    ++counters_.malformed;
    return;
  }
  if (message->response) return DispatchResponse(*message);
  if (message->spec->sender == wire::Sender::kDriver) {
    ++counters_.malformed;
    return;
  }
  if (message->spec->kind == wire::Kind::kEvent) {
    ++counters_.events_received;
    return DispatchEvent(*message);
  }
  if (message->spec->id == wire::MessageId::kPing) return AnswerPing(*message);
  ++counters_.malformed;
}

void FrontendBus::DispatchResponse(const wire::Message& message) {
  Pending& slot = pending_[message.envelope.token % kMaxOutstanding];
  if (!slot.used || slot.token != message.envelope.token || slot.id != message.spec->id ||
      slot.dev_num != message.envelope.dev_num) {
    ++counters_.stray_responses;
    return;
  }
  slot.used = false;
  // The handler may send, and so take this very slot.
  ResponseHandler handler = std::exchange(slot.handler, nullptr);
  handler(message);
}

void FrontendBus::DispatchEvent(const wire::Message& message) {
  if (message.spec->id == wire::MessageId::kEventDevice) {
    absl::StatusOr<wire::EventDevice> event = wire::Parse<wire::EventDevice>(profile_, message);
    if (!event.ok()) {
      ++counters_.malformed;
      return;
    }
    if (bus_state_listener_) bus_state_listener_(*event);
    const auto device = devices_.find(event->device_number);
    if (device != devices_.end()) device->second->OnBusState(event->device_bus_state);
    return;
  }
  const auto device = devices_.find(message.envelope.dev_num);
  if (device == devices_.end()) {
    ++counters_.unknown_devices;
    return;
  }
  if (message.spec->id == wire::MessageId::kEventUsed) {
    absl::StatusOr<wire::EventUsed> event = wire::Parse<wire::EventUsed>(profile_, message);
    if (event.ok()) return device->second->OnUsed(event->vq_index);
  } else if (message.spec->id == wire::MessageId::kEventConfig) {
    absl::StatusOr<wire::EventConfig> event = wire::Parse<wire::EventConfig>(profile_, message);
    if (event.ok()) return device->second->OnConfig(*event);
  }
  ++counters_.malformed;
}

void FrontendBus::AnswerPing(const wire::Message& message) {
  absl::StatusOr<wire::PingRequest> ping = wire::Parse<wire::PingRequest>(profile_, message);
  if (!ping.ok()) {
    ++counters_.malformed;
    return;
  }
  if (ping_backlog_.size() >= kMaxPingBacklog) {
    ++counters_.backlog_overflows;
    return;
  }
  ping_backlog_.emplace_back(message.envelope.token, ping->data);
  ++counters_.pings_answered;
}

absl::StatusOr<std::vector<uint16_t>> FrontendBus::ListDevices(Deadline deadline) {
  constexpr uint32_t kNumbers = 65536;
  // What the response's bitmap can hold within the message size.
  const uint32_t window =
      static_cast<uint32_t>(link_.max_message_size() - wire::kHeaderSize - 6) * 8;
  std::vector<uint16_t> devices;
  for (uint32_t offset = 0; offset < kNumbers;) {
    const uint16_t count = static_cast<uint16_t>(std::min(window, kNumbers - offset));
    absl::StatusOr<wire::GetDevicesResponse> response = Call<wire::GetDevicesResponse>(
        0, wire::GetDevicesRequest{.offset = static_cast<uint16_t>(offset), .count = count},
        deadline);
    if (!response.ok()) return response.status();
    const uint32_t next = response->next_offset;
    if (response->offset != offset || response->count > count ||
        (next != 0 && (next % 8 != 0 || next < offset + response->count || next <= offset))) {
      return absl::InternalError(absl::StrCat(
          "GET_DEVICES(", offset, ", ", count, ") was answered with offset ", response->offset,
          ", count ", response->count, ", next_offset ", next, ": the walk cannot go on"));
    }
    for (uint32_t i = 0; i < response->count; ++i) {
      const uint32_t bits = std::to_integer<uint32_t>(response->bitmap[i / 8]);
      if ((bits >> (i % 8) & 1) != 0) devices.push_back(static_cast<uint16_t>(offset + i));
    }
    if (next == 0) break;
    offset = next;
  }
  return devices;
}

absl::StatusOr<Clock::duration> FrontendBus::Ping(uint32_t data, Deadline deadline) {
  const Deadline begin = Clock::now();
  absl::StatusOr<wire::PingResponse> response =
      Call<wire::PingResponse>(0, wire::PingRequest{data}, deadline);
  if (!response.ok()) return response.status();
  if (response->data != data) {
    return absl::InternalError(absl::StrCat("PING ", data, " was answered with ", response->data));
  }
  return Clock::now() - begin;
}

}  // namespace vmsg::frontend
