// SPDX-License-Identifier: Apache-2.0
// The messages of virtio-msg PATCH v1, transport revision 1, and of this bus: one row each.
#include <cstddef>
#include <type_traits>

#include "virtio-msg/bodies.h"
#include "virtio-msg/codec.h"
#include "virtio-msg/message_table.h"

namespace vmsg::wire {
namespace {

// A field at a wire offset that has its body member's name and width.
#define V1_FIELD_AS(body, member, wire_offset, radix)                          \
  FieldSpec {                                                                  \
#member, wire_offset, sizeof(body::member), radix, offsetof(body, member), \
        sizeof(body::member)                                                   \
  }
#define V1_FIELD(body, member, wire_offset) V1_FIELD_AS(body, member, wire_offset, Radix::kDecimal)
#define V1_HEX(body, member, wire_offset) V1_FIELD_AS(body, member, wire_offset, Radix::kHex)

constexpr FieldSpec Reserved(uint8_t wire_offset, uint8_t width) {
  return FieldSpec{"reserved", wire_offset, width};
}

constexpr FieldSpec kDeviceInfo[] = {V1_FIELD(GetDeviceInfoResponse, device_id, 0),
                                     V1_HEX(GetDeviceInfoResponse, vendor_id, 4),
                                     V1_FIELD(GetDeviceInfoResponse, num_feature_bits, 8),
                                     V1_FIELD(GetDeviceInfoResponse, config_size, 12),
                                     V1_FIELD(GetDeviceInfoResponse, max_virtqueues, 16),
                                     V1_FIELD(GetDeviceInfoResponse, admin_vq_start, 20),
                                     V1_FIELD(GetDeviceInfoResponse, admin_vq_count, 22)};

constexpr FieldSpec kGetFeatures[] = {V1_FIELD(GetDeviceFeaturesRequest, block_index, 0),
                                      V1_FIELD(GetDeviceFeaturesRequest, num_blocks, 4)};
constexpr FieldSpec kFeatures[] = {V1_FIELD(GetDeviceFeaturesResponse, block_index, 0),
                                   V1_FIELD(GetDeviceFeaturesResponse, num_blocks, 4)};
constexpr FieldSpec kSetFeatures[] = {V1_FIELD(SetDriverFeaturesRequest, block_index, 0),
                                      V1_FIELD(SetDriverFeaturesRequest, num_blocks, 4)};

constexpr FieldSpec kGetConfig[] = {V1_FIELD(GetConfigRequest, offset, 0),
                                    V1_FIELD(GetConfigRequest, length, 4)};
constexpr FieldSpec kConfig[] = {V1_FIELD(GetConfigResponse, generation, 0),
                                 V1_FIELD(GetConfigResponse, offset, 4),
                                 V1_FIELD(GetConfigResponse, length, 8)};
constexpr FieldSpec kSetConfig[] = {V1_FIELD(SetConfigRequest, generation, 0),
                                    V1_FIELD(SetConfigRequest, offset, 4),
                                    V1_FIELD(SetConfigRequest, length, 8)};
constexpr FieldSpec kConfigSet[] = {V1_FIELD(SetConfigResponse, generation, 0),
                                    V1_FIELD(SetConfigResponse, offset, 4),
                                    V1_FIELD(SetConfigResponse, length, 8)};

constexpr FieldSpec kStatus[] = {V1_HEX(GetDeviceStatusResponse, status, 0)};
constexpr FieldSpec kSetStatus[] = {V1_HEX(SetDeviceStatusRequest, status, 0)};
constexpr FieldSpec kStatusSet[] = {V1_HEX(SetDeviceStatusResponse, status, 0)};

constexpr FieldSpec kGetVqueue[] = {V1_FIELD(GetVqueueRequest, index, 0)};
constexpr FieldSpec kVqueue[] = {
    V1_FIELD(GetVqueueResponse, index, 0),     V1_FIELD(GetVqueueResponse, max_size, 4),
    V1_FIELD(GetVqueueResponse, cur_size, 8),  Reserved(12, 4),
    V1_HEX(GetVqueueResponse, desc_addr, 16),  V1_HEX(GetVqueueResponse, driver_addr, 24),
    V1_HEX(GetVqueueResponse, device_addr, 32)};
constexpr FieldSpec kSetVqueue[] = {
    V1_FIELD(SetVqueueRequest, index, 0),     Reserved(4, 4),
    V1_FIELD(SetVqueueRequest, size, 8),      Reserved(12, 4),
    V1_HEX(SetVqueueRequest, desc_addr, 16),  V1_HEX(SetVqueueRequest, driver_addr, 24),
    V1_HEX(SetVqueueRequest, device_addr, 32)};
constexpr FieldSpec kResetVqueue[] = {V1_FIELD(ResetVqueueRequest, index, 0)};

constexpr FieldSpec kGetShm[] = {V1_FIELD(GetShmRequest, index, 0)};
constexpr FieldSpec kShm[] = {V1_FIELD(GetShmResponse, index, 0),
                              V1_FIELD(GetShmResponse, length, 4),
                              V1_HEX(GetShmResponse, address, 8)};

constexpr FieldSpec kEventConfig[] = {
    V1_HEX(EventConfig, device_status, 0), V1_FIELD(EventConfig, generation, 4),
    V1_FIELD(EventConfig, offset, 8), V1_FIELD(EventConfig, length, 12)};
constexpr FieldSpec kEventAvail[] = {V1_FIELD(EventAvail, vq_index, 0),
                                     V1_HEX(EventAvail, next_offset, 4)};
constexpr FieldSpec kEventUsed[] = {V1_FIELD(EventUsed, vq_index, 0)};

constexpr FieldSpec kGetDevices[] = {V1_FIELD(GetDevicesRequest, offset, 0),
                                     V1_FIELD(GetDevicesRequest, count, 2)};
constexpr FieldSpec kDevices[] = {V1_FIELD(GetDevicesResponse, offset, 0),
                                  V1_FIELD(GetDevicesResponse, count, 2),
                                  V1_FIELD(GetDevicesResponse, next_offset, 4)};
constexpr FieldSpec kPing[] = {V1_HEX(PingRequest, data, 0)};
constexpr FieldSpec kPong[] = {V1_HEX(PingResponse, data, 0)};
constexpr FieldSpec kEventDevice[] = {V1_FIELD(EventDevice, device_number, 0),
                                      V1_HEX(EventDevice, device_bus_state, 2)};

constexpr FieldSpec kExtend[] = {V1_FIELD(WindowExtendRequest, directory_ref, 0),
                                 V1_FIELD(WindowExtendRequest, pages, 4)};
constexpr FieldSpec kExtended[] = {V1_FIELD(WindowExtendResponse, result, 0),
                                   V1_FIELD(WindowExtendResponse, first_page, 4)};
constexpr FieldSpec kWithdraw[] = {V1_FIELD(WindowWithdrawRequest, first_page, 0),
                                   V1_FIELD(WindowWithdrawRequest, pages, 4)};
constexpr FieldSpec kWithdrawn[] = {V1_FIELD(WindowWithdrawResponse, result, 0)};

#undef V1_HEX
#undef V1_FIELD
#undef V1_FIELD_AS

constexpr PayloadSpec Fixed(std::span<const FieldSpec> fields) {
  PayloadSpec spec;
  spec.fields = fields;
  for (const FieldSpec& field : fields) spec.fixed = field.offset + field.width;
  return spec;
}

enum class Part { kRequired, kOptional };

// The variable part follows the fixed one; `count` is the name of the field that says its length.
constexpr PayloadSpec Variable(std::span<const FieldSpec> fields, absl::string_view name,
                               uint16_t unit, absl::string_view count, uint8_t count_bits,
                               Part part = Part::kRequired) {
  PayloadSpec spec = Fixed(fields);
  spec.variable_name = name;
  spec.variable_unit = unit;
  spec.variable_max = (kMaxMessageSize - kHeaderSize - spec.fixed) / unit * unit;
  spec.variable_optional = part == Part::kOptional;
  spec.count_bits = count_bits;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].name == count) spec.count_field = static_cast<uint8_t>(i);
  }
  return spec;
}

constexpr PayloadSpec kEmpty;

constexpr MessageClass ClassOf(MessageId id) {
  return (static_cast<uint16_t>(id) & 0x100) != 0 ? MessageClass::kBus : MessageClass::kTransport;
}
constexpr Kind KindOf(MessageId id) {
  return (static_cast<uint16_t>(id) & 0x40) != 0 ? Kind::kEvent : Kind::kRequest;
}

// The fields of a body tile the fixed part without gap, in order, and there is a variable part
// exactly when the struct has one.
template <class Body>
constexpr bool Fits(const PayloadSpec& spec) {
  size_t end = 0;
  for (const FieldSpec& field : spec.fields) {
    if (field.offset != end) return false;
    if (field.body_width != 0 && field.body_offset + field.body_width > sizeof(Body)) return false;
    end += field.width;
  }
  const bool counted = spec.count_field != kNoCount && spec.count_bits != 0;
  const bool variable = spec.variable_unit != 0;
  return end == spec.fixed && variable == BodyTraits<Body>::kHasVariable && variable == counted;
}

// Called in constant expressions only: a row that does not fit its structs does not compile.
template <class Request, class Response>
consteval MessageSpec Row(absl::string_view name, Sender sender, const PayloadSpec& request,
                          const PayloadSpec& response) {
  static_assert(MessageIdOf<Request>() == MessageIdOf<Response>());
  static_assert(!BodyTraits<Request>::kResponse && BodyTraits<Response>::kResponse);
  static_assert(KindOf(MessageIdOf<Request>()) == Kind::kRequest);
  if (!Fits<Request>(request) || !Fits<Response>(response)) throw "layout";
  constexpr MessageId id = MessageIdOf<Request>();
  return MessageSpec{name, id, ClassOf(id), sender, Kind::kRequest, request, response};
}

template <class Event>
consteval MessageSpec Row(absl::string_view name, Sender sender, const PayloadSpec& event) {
  static_assert(!BodyTraits<Event>::kResponse);
  static_assert(KindOf(MessageIdOf<Event>()) == Kind::kEvent);
  if (!Fits<Event>(event)) throw "layout";
  constexpr MessageId id = MessageIdOf<Event>();
  return MessageSpec{name, id, ClassOf(id), sender, Kind::kEvent, event, kEmpty};
}

constexpr Sender kDriver = Sender::kDriver;
constexpr Sender kDevice = Sender::kDevice;

constexpr MessageSpec kMessages[] = {
    Row<GetDeviceInfoRequest, GetDeviceInfoResponse>("GET_DEVICE_INFO", kDriver, kEmpty,
                                                     Fixed(kDeviceInfo)),
    Row<GetDeviceFeaturesRequest, GetDeviceFeaturesResponse>(
        "GET_DEVICE_FEATURES", kDriver, Fixed(kGetFeatures),
        Variable(kFeatures, "features", 4, "num_blocks", 32)),
    Row<SetDriverFeaturesRequest, SetDriverFeaturesResponse>(
        "SET_DRIVER_FEATURES", kDriver, Variable(kSetFeatures, "features", 4, "num_blocks", 32),
        kEmpty),
    Row<GetConfigRequest, GetConfigResponse>("GET_CONFIG", kDriver, Fixed(kGetConfig),
                                             Variable(kConfig, "data", 1, "length", 8)),
    Row<SetConfigRequest, SetConfigResponse>(
        "SET_CONFIG", kDriver, Variable(kSetConfig, "data", 1, "length", 8),
        Variable(kConfigSet, "data", 1, "length", 8, Part::kOptional)),
    Row<GetDeviceStatusRequest, GetDeviceStatusResponse>("GET_DEVICE_STATUS", kDriver, kEmpty,
                                                         Fixed(kStatus)),
    Row<SetDeviceStatusRequest, SetDeviceStatusResponse>("SET_DEVICE_STATUS", kDriver,
                                                         Fixed(kSetStatus), Fixed(kStatusSet)),
    Row<GetVqueueRequest, GetVqueueResponse>("GET_VQUEUE", kDriver, Fixed(kGetVqueue),
                                             Fixed(kVqueue)),
    Row<SetVqueueRequest, SetVqueueResponse>("SET_VQUEUE", kDriver, Fixed(kSetVqueue), kEmpty),
    Row<ResetVqueueRequest, ResetVqueueResponse>("RESET_VQUEUE", kDriver, Fixed(kResetVqueue),
                                                 kEmpty),
    Row<GetShmRequest, GetShmResponse>("GET_SHM", kDriver, Fixed(kGetShm), Fixed(kShm)),
    Row<EventConfig>("EVENT_CONFIG", kDevice, Variable(kEventConfig, "data", 1, "length", 8)),
    Row<EventAvail>("EVENT_AVAIL", kDriver, Fixed(kEventAvail)),
    Row<EventUsed>("EVENT_USED", kDevice, Fixed(kEventUsed)),
    Row<GetDevicesRequest, GetDevicesResponse>("GET_DEVICES", kDriver, Fixed(kGetDevices),
                                               Variable(kDevices, "bitmap", 1, "count", 1)),
    Row<PingRequest, PingResponse>("PING", Sender::kAny, Fixed(kPing), Fixed(kPong)),
    Row<EventDevice>("EVENT_DEVICE", kDevice, Fixed(kEventDevice)),
    Row<WindowExtendRequest, WindowExtendResponse>("WINDOW_EXTEND", kDriver, Fixed(kExtend),
                                                   Fixed(kExtended)),
    Row<WindowWithdrawRequest, WindowWithdrawResponse>("WINDOW_WITHDRAW", kDriver, Fixed(kWithdraw),
                                                       Fixed(kWithdrawn)),
};

constexpr Profile kV1("virtio-msg-v1", kMessages);

}  // namespace

const Profile& Profile::V1() { return kV1; }

}  // namespace vmsg::wire
