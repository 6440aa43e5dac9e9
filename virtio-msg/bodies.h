// SPDX-License-Identifier: Apache-2.0
// What ties each body struct of messages.h to its message: the id, whether it is the response, and
// which member is the variable part. The table's rows and the codec's templates both use it.
#pragma once

#include "virtio-msg/messages.h"

namespace vmsg::wire {

template <class Body>
struct BodyTraits;  // defined below for every body, and for nothing else

template <MessageId id, bool response = false>
struct FixedBody {
  static constexpr MessageId kId = id;
  static constexpr bool kResponse = response;
  static constexpr bool kHasVariable = false;
};

template <MessageId id, bool response, auto member>
struct VariableBody {
  static constexpr MessageId kId = id;
  static constexpr bool kResponse = response;
  static constexpr bool kHasVariable = true;
  static constexpr auto kVariable = member;
};

// clang-format off
template <> struct BodyTraits<GetDeviceInfoRequest> : FixedBody<MessageId::kGetDeviceInfo> {};
template <> struct BodyTraits<GetDeviceInfoResponse> : FixedBody<MessageId::kGetDeviceInfo, true> {};
template <> struct BodyTraits<GetDeviceFeaturesRequest> : FixedBody<MessageId::kGetDeviceFeatures> {};
template <> struct BodyTraits<GetDeviceFeaturesResponse>
    : VariableBody<MessageId::kGetDeviceFeatures, true, &GetDeviceFeaturesResponse::features> {};
template <> struct BodyTraits<SetDriverFeaturesRequest>
    : VariableBody<MessageId::kSetDriverFeatures, false, &SetDriverFeaturesRequest::features> {};
template <> struct BodyTraits<SetDriverFeaturesResponse> : FixedBody<MessageId::kSetDriverFeatures, true> {};
template <> struct BodyTraits<GetConfigRequest> : FixedBody<MessageId::kGetConfig> {};
template <> struct BodyTraits<GetConfigResponse>
    : VariableBody<MessageId::kGetConfig, true, &GetConfigResponse::data> {};
template <> struct BodyTraits<SetConfigRequest>
    : VariableBody<MessageId::kSetConfig, false, &SetConfigRequest::data> {};
template <> struct BodyTraits<SetConfigResponse>
    : VariableBody<MessageId::kSetConfig, true, &SetConfigResponse::data> {};
template <> struct BodyTraits<GetDeviceStatusRequest> : FixedBody<MessageId::kGetDeviceStatus> {};
template <> struct BodyTraits<GetDeviceStatusResponse> : FixedBody<MessageId::kGetDeviceStatus, true> {};
template <> struct BodyTraits<SetDeviceStatusRequest> : FixedBody<MessageId::kSetDeviceStatus> {};
template <> struct BodyTraits<SetDeviceStatusResponse> : FixedBody<MessageId::kSetDeviceStatus, true> {};
template <> struct BodyTraits<GetVqueueRequest> : FixedBody<MessageId::kGetVqueue> {};
template <> struct BodyTraits<GetVqueueResponse> : FixedBody<MessageId::kGetVqueue, true> {};
template <> struct BodyTraits<SetVqueueRequest> : FixedBody<MessageId::kSetVqueue> {};
template <> struct BodyTraits<SetVqueueResponse> : FixedBody<MessageId::kSetVqueue, true> {};
template <> struct BodyTraits<ResetVqueueRequest> : FixedBody<MessageId::kResetVqueue> {};
template <> struct BodyTraits<ResetVqueueResponse> : FixedBody<MessageId::kResetVqueue, true> {};
template <> struct BodyTraits<GetShmRequest> : FixedBody<MessageId::kGetShm> {};
template <> struct BodyTraits<GetShmResponse> : FixedBody<MessageId::kGetShm, true> {};
template <> struct BodyTraits<EventConfig>
    : VariableBody<MessageId::kEventConfig, false, &EventConfig::data> {};
template <> struct BodyTraits<EventAvail> : FixedBody<MessageId::kEventAvail> {};
template <> struct BodyTraits<EventUsed> : FixedBody<MessageId::kEventUsed> {};
template <> struct BodyTraits<GetDevicesRequest> : FixedBody<MessageId::kGetDevices> {};
template <> struct BodyTraits<GetDevicesResponse>
    : VariableBody<MessageId::kGetDevices, true, &GetDevicesResponse::bitmap> {};
template <> struct BodyTraits<PingRequest> : FixedBody<MessageId::kPing> {};
template <> struct BodyTraits<PingResponse> : FixedBody<MessageId::kPing, true> {};
template <> struct BodyTraits<EventDevice> : FixedBody<MessageId::kEventDevice> {};
template <> struct BodyTraits<WindowExtendRequest> : FixedBody<MessageId::kWindowExtend> {};
template <> struct BodyTraits<WindowExtendResponse> : FixedBody<MessageId::kWindowExtend, true> {};
template <> struct BodyTraits<WindowWithdrawRequest> : FixedBody<MessageId::kWindowWithdraw> {};
template <> struct BodyTraits<WindowWithdrawResponse> : FixedBody<MessageId::kWindowWithdraw, true> {};
// clang-format on

}  // namespace vmsg::wire
