// SPDX-License-Identifier: Apache-2.0
// The messages of the bus itself: enumeration, hotplug, liveness, the window.
#include <algorithm>
#include <utility>

#include "backend/bus/bus_endpoint.h"

namespace vmsg::backend {

using wire::MessageId;

template <class Request, class Handler>
void BusEndpoint::ParseRequest(const wire::Message& message, Handler handler) {
  absl::StatusOr<Request> request = wire::Parse<Request>(outbox_.profile(), message);
  if (!request.ok()) {
    Malformed(-1, request.status());
    return;
  }
  outbox_.OweResponse();
  handler(*request);
}

bool BusEndpoint::TakeBusMessage(const wire::Message& message) {
  const wire::Envelope envelope = message.envelope;
  if (message.response) {
    absl::StatusOr<wire::PingResponse> pong =
        wire::Parse<wire::PingResponse>(outbox_.profile(), message);
    if (message.spec->id == MessageId::kPing && pong.ok() &&
        std::erase(pings_sent_, std::make_pair(envelope.token, pong->data)) > 0) {
      ++counters_.pings_answered;
    } else {
      Malformed(-1, absl::InvalidArgumentError("a response that no request waits for"));
    }
    return true;
  }
  switch (message.spec->id) {
    case MessageId::kGetDevices:
      ParseRequest<wire::GetDevicesRequest>(
          message, [&](const wire::GetDevicesRequest& request) { Answer(envelope, request); });
      return true;
    case MessageId::kPing:
      ParseRequest<wire::PingRequest>(message, [&](const wire::PingRequest& request) {
        outbox_.Respond(envelope, wire::PingResponse{.data = request.data});
      });
      return true;
    case MessageId::kWindowExtend:
      if (!window_requests_.CanTake()) return false;
      ParseRequest<wire::WindowExtendRequest>(
          message, [&](const auto& request) { window_requests_.Take(envelope, request); });
      return true;
    case MessageId::kWindowWithdraw:
      if (!window_requests_.CanTake()) return false;
      ParseRequest<wire::WindowWithdrawRequest>(
          message, [&](const auto& request) { window_requests_.Take(envelope, request); });
      return true;
    default:
      Malformed(-1, absl::InvalidArgumentError("a bus message that is not the driver's to send"));
      return true;
  }
}

void BusEndpoint::Answer(const wire::Envelope& envelope, const wire::GetDevicesRequest& request) {
  wire::GetDevicesResponse response{
      .offset = request.offset, .count = 0, .next_offset = 0, .bitmap = {}};
  if (request.offset % 8 != 0 || request.count % 8 != 0 || request.count == 0) {
    // Nothing to say about such a window: an empty one, and no hint where to go on.
    outbox_.Respond(envelope, response);
    return;
  }
  constexpr uint32_t kNumbers = 65536;
  constexpr size_t kFixed = 6;
  std::span<std::byte> bitmap = outbox_.scratch().subspan(0, outbox_.scratch().size() - kFixed);
  const uint32_t count =
      std::min({uint32_t{request.count}, static_cast<uint32_t>(8 * bitmap.size()),
                kNumbers - request.offset});
  bitmap = bitmap.first(count / 8);
  std::fill(bitmap.begin(), bitmap.end(), std::byte{0});
  const uint32_t end = request.offset + count;
  auto channel = channels_.lower_bound(request.offset);
  for (; channel != channels_.end() && channel->first < end; ++channel) {
    const uint32_t bit = channel->first - request.offset;
    bitmap[bit / 8] |= static_cast<std::byte>(1u << bit % 8);
  }
  response.count = static_cast<uint16_t>(count);
  // The window that holds the next device, so that sparse numbers cost few requests.
  if (channel != channels_.end()) response.next_offset = channel->first / 8 * 8;
  response.bitmap = bitmap;
  outbox_.Respond(envelope, response);
}

void BusEndpoint::QueueDeviceEvent(uint16_t number, uint16_t state) {
  if (!open()) return;
  // A removal that was asked for twice, or has happened, need not be asked for.
  std::erase_if(device_events_, [&](const wire::EventDevice& due) {
    return due.device_number == number && state != wire::kDeviceReady &&
           due.device_bus_state == wire::kDeviceRemovalRequested;
  });
  // However often a number comes and goes while the frontend does not read, few events wait: READY
  // and the REMOVED after it leave together.
  const auto next = [&](auto from, uint16_t wanted) {
    return std::find_if(from, device_events_.end(), [&](const wire::EventDevice& due) {
      return due.device_number == number && due.device_bus_state == wanted;
    });
  };
  if (std::count_if(device_events_.begin(), device_events_.end(), [&](const auto& due) {
        return due.device_number == number;
      }) >= static_cast<std::ptrdiff_t>(kMaxEventsOfNumber)) {
    const auto ready = next(device_events_.begin(), wire::kDeviceReady);
    const auto removed = next(ready, wire::kDeviceRemoved);
    if (removed != device_events_.end()) {
      device_events_.erase(removed);
      device_events_.erase(ready);
    }
  }
  device_events_.push_back({.device_number = number, .device_bus_state = state});
  Wake();
}

bool BusEndpoint::FlushDeviceEvents() {
  size_t sent = 0;
  while (sent < device_events_.size() && outbox_.TrySend({}, device_events_[sent])) ++sent;
  device_events_.erase(device_events_.begin(), device_events_.begin() + static_cast<long>(sent));
  while (device_events_.empty() && !pings_due_.empty()) {
    const wire::Envelope envelope{.dev_num = 0, .token = next_token_};
    if (!outbox_.TrySend(envelope, wire::PingRequest{.data = pings_due_.front()})) return false;
    pings_sent_.emplace_back(next_token_++, pings_due_.front());
    pings_due_.erase(pings_due_.begin());
  }
  return device_events_.empty() && pings_due_.empty();
}

void BusEndpoint::Ping(uint32_t data) {
  // An administrator's question: what a frontend leaves unanswered is forgotten, oldest first.
  if (!open()) return;
  if (pings_due_.size() >= kMaxPings) return;
  if (pings_sent_.size() >= kMaxPings) pings_sent_.erase(pings_sent_.begin());
  pings_due_.push_back(data);
  Wake();
}

void BusEndpoint::Malformed(int device, const absl::Status& what) {
  ++counters_.malformed;
  parts_.events.OnProblem(device, what);
}

}  // namespace vmsg::backend
