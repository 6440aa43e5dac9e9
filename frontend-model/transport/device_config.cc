// SPDX-License-Identifier: Apache-2.0
// Configuration space: reads that span messages come from one generation, writes carry the newest.
#include <algorithm>
#include <cstring>

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
      torn = response->generation != first_generation;
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

void DeviceClient::OnConfig(const wire::EventConfig& event) {
  generation_ = event.generation;
  const bool needed_reset = needs_reset_;
  needs_reset_ = (event.device_status & wire::kStatusDeviceNeedsReset) != 0;
  if (config_listener_) config_listener_();
  if (needs_reset_ && !needed_reset && state_listener_) state_listener_();
}

}  // namespace vmsg::frontend
