// SPDX-License-Identifier: Apache-2.0
// Configuration space: reads that span messages come from one generation, writes carry the newest.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "frontend-model/transport/device_client.h"

namespace vmsg::frontend {
namespace {

constexpr size_t kGetConfigFixed = 12;  // generation, offset, length: of a response
constexpr size_t kSetConfigFixed = 12;

}  // namespace

absl::Status DeviceClient::CheckConfigRange(uint32_t offset, size_t length) const {
  if (offset <= info_.config_size && length <= info_.config_size - offset) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("configuration bytes ", offset, " to ", offset + length,
                                            " of device ", dev_num_, ", which has ",
                                            info_.config_size));
}

absl::Status DeviceClient::ReadConfig(uint32_t offset, std::span<std::byte> out) {
  if (absl::Status status = CheckConfigRange(offset, out.size()); !status.ok()) return status;
  const size_t per_message = bus_.link().max_message_size() - wire::kHeaderSize - kGetConfigFixed;
  for (int attempt = 0; attempt < kMaxConfigRetries; ++attempt) {
    bool torn = false;
    // The generations of two backends say nothing about each other.
    const uint64_t losses = bus_.losses();
    uint32_t first_generation = 0;
    for (size_t done = 0; done < out.size() && !torn;) {
      const wire::GetConfigRequest request = {
          .offset = static_cast<uint32_t>(offset + done),
          .length = static_cast<uint32_t>(std::min(per_message, out.size() - done))};
      absl::StatusOr<wire::GetConfigResponse> response = Call<wire::GetConfigResponse>(request);
      if (!response.ok()) return response.status();
      if (response->offset != request.offset || response->length != request.length ||
          response->data.size() != request.length) {
        return absl::InternalError(
            absl::StrCat("device ", dev_num_, " answered GET_CONFIG(", request.offset, ", ",
                         request.length, ") with offset ", response->offset, ", length ",
                         response->length, " and ", response->data.size(), " bytes"));
      }
      std::memcpy(out.data() + done, response->data.data(), request.length);
      if (done == 0) first_generation = response->generation;
      torn = response->generation != first_generation || (done > 0 && bus_.losses() != losses);
      generation_ = response->generation;
      done += request.length;
    }
    if (!torn) return absl::OkStatus();
  }
  return absl::AbortedError(absl::StrCat("the configuration of device ", dev_num_,
                                         " changed during each of ", kMaxConfigRetries,
                                         " reads in a row"));
}

absl::Status DeviceClient::WriteConfig(uint32_t offset, std::span<const std::byte> data) {
  if (absl::Status status = CheckConfigRange(offset, data.size()); !status.ok()) return status;
  const size_t most = bus_.link().max_message_size() - wire::kHeaderSize - kSetConfigFixed;
  if (data.empty() || data.size() > most) {
    return absl::InvalidArgumentError(absl::StrCat("a configuration write of ", data.size(),
                                                   " bytes; 1 to ", most, " fit a message"));
  }
  for (int attempt = 0; attempt < kMaxConfigRetries; ++attempt) {
    const uint32_t sent_generation = generation_;
    absl::StatusOr<wire::SetConfigResponse> response = Call<wire::SetConfigResponse>(
        wire::SetConfigRequest{.generation = sent_generation,
                               .offset = offset,
                               .length = static_cast<uint32_t>(data.size()),
                               .data = data});
    if (!response.ok()) return response.status();
    if (response->length == data.size()) {
      generation_ = response->generation;
      std::erase_if(config_written_, [&](const auto& one) { return one.first == offset; });
      config_written_.emplace_back(
          offset, std::string(reinterpret_cast<const char*>(data.data()), data.size()));
      return absl::OkStatus();
    }
    if (response->generation == sent_generation) {
      return absl::InvalidArgumentError(absl::StrCat("device ", dev_num_, " rejected a write of ",
                                                     data.size(), " bytes at ", offset,
                                                     " of its configuration"));
    }
    // Stale: what this write was decided on may have changed, so look at it again.
    std::byte seen;
    if (absl::Status status = ReadConfig(offset, std::span(&seen, 1)); !status.ok()) return status;
  }
  return absl::AbortedError(absl::StrCat("the configuration of device ", dev_num_,
                                         " changed before each of ", kMaxConfigRetries,
                                         " writes in a row"));
}

absl::Status DeviceClient::RequestConfig(
    uint32_t offset, uint32_t length,
    absl::AnyInvocable<void(absl::StatusOr<std::string>)> handler) {
  if (absl::Status status = CheckConfigRange(offset, length); !status.ok()) return status;
  return bus_
      .Send(dev_num_, wire::GetConfigRequest{.offset = offset, .length = length},
            [this, offset, length,
             handler = std::move(handler)](absl::StatusOr<wire::Message> message) mutable {
              if (!message.ok()) return handler(message.status());
              const absl::StatusOr<wire::GetConfigResponse> response =
                  wire::Parse<wire::GetConfigResponse>(bus_.profile(), *message);
              if (!response.ok()) return handler(response.status());
              if (response->offset != offset || response->data.size() != length) {
                return handler(absl::InternalError(absl::StrCat(
                    "device ", dev_num_, " answered GET_CONFIG(", offset, ", ", length, ") with ",
                    response->data.size(), " bytes at ", response->offset)));
              }
              generation_ = response->generation;
              handler(std::string(reinterpret_cast<const char*>(response->data.data()), length));
            })
      .status();
}

void DeviceClient::OnConfig(const wire::EventConfig& event) {
  generation_ = event.generation;
  NoteNeedsReset(event.device_status);
  if (config_listener_) config_listener_();
}

}  // namespace vmsg::frontend
