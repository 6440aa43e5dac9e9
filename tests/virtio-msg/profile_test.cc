// SPDX-License-Identifier: Apache-2.0
// The layout is the connection's: the same body structs travel in whatever form the profile's table
// says. And every body survives the way there and back with any values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <type_traits>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"
#include "virtio-msg/codec.h"

namespace vmsg::wire {
namespace {

// GET_SHM with other widths and another order than in V1, as a later revision might have it.
constexpr FieldSpec kRequest[] = {
    {"index", 0, 2, Radix::kDecimal, offsetof(GetShmRequest, index), 4}};
constexpr FieldSpec kResponse[] = {
    {"address", 0, 8, Radix::kHex, offsetof(GetShmResponse, address), 4},
    {"length", 8, 3, Radix::kDecimal, offsetof(GetShmResponse, length), 4},
    {"reserved", 11, 1},
    {"index", 12, 4, Radix::kDecimal, offsetof(GetShmResponse, index), 4}};
constexpr MessageSpec kRows[] = {
    {"GET_SHM", MessageId::kGetShm, MessageClass::kTransport, Sender::kDriver, Kind::kRequest,
     PayloadSpec{.fixed = 2, .fields = kRequest}, PayloadSpec{.fixed = 16, .fields = kResponse}}};
constexpr Profile kOther("other", kRows);

TEST(AnotherProfile, HasItsOwnLayoutForTheSameBodies) {
  std::vector<std::byte> out(kMaxMessageSize);
  const auto size = Encode(kOther, {1, 2}, GetShmResponse{3, 0x040506, 0x11223344}, out);
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(ToHex(std::span(out).first(*size)),
            ToHex(Hex("010c 0100 0200 1800 4433221100000000 060504 00 03000000")));
  const auto message = Decode(kOther, std::span(out).first(*size));
  ASSERT_TRUE(message.ok()) << message.status();
  const auto body = Parse<GetShmResponse>(kOther, *message);
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(body->index, 3u);
  EXPECT_EQ(body->length, 0x040506u);
  EXPECT_EQ(body->address, 0x11223344u);
}

TEST(AnotherProfile, RefusesAValueThatItsFieldCannotHold) {
  std::vector<std::byte> out(kMaxMessageSize);
  EXPECT_TRUE(Encode(kOther, {}, GetShmRequest{0xffff}, out).ok());
  EXPECT_THAT(std::string(Encode(kOther, {}, GetShmRequest{0x10000}, out).status().message()),
              testing::HasSubstr("index is 65536, the wire has 16 bits"));
}

TEST(AnotherProfile, RefusesAValueThatTheBodyCannotHold) {
  const std::vector<std::byte> record =
      Hex("010c 0000 0000 1800 0000000001000000 00000000 00000000");
  const auto message = Decode(kOther, record);
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_THAT(std::string(Parse<GetShmResponse>(kOther, *message).status().message()),
              testing::HasSubstr("address is 4294967296, over 32 bits"));
}

TEST(AnotherProfile, KnowsOnlyItsOwnMessages) {
  std::vector<std::byte> out(kMaxMessageSize);
  EXPECT_FALSE(Encode(kOther, {}, PingRequest{1}, out).ok());
  EXPECT_FALSE(Decode(kOther, Hex("0203 0000 0000 0c00 00000000")).ok());
}

template <class Body>
class AnyValues : public testing::Test {};

using Bodies =
    testing::Types<GetDeviceInfoRequest, GetDeviceInfoResponse, GetDeviceFeaturesRequest,
                   GetDeviceFeaturesResponse, SetDriverFeaturesRequest, SetDriverFeaturesResponse,
                   GetConfigRequest, GetConfigResponse, SetConfigRequest, SetConfigResponse,
                   GetDeviceStatusRequest, GetDeviceStatusResponse, SetDeviceStatusRequest,
                   SetDeviceStatusResponse, GetVqueueRequest, GetVqueueResponse, SetVqueueRequest,
                   SetVqueueResponse, ResetVqueueRequest, ResetVqueueResponse, GetShmRequest,
                   GetShmResponse, EventConfig, EventAvail, EventUsed, GetDevicesRequest,
                   GetDevicesResponse, PingRequest, PingResponse, EventDevice, WindowExtendRequest,
                   WindowExtendResponse, WindowWithdrawRequest, WindowWithdrawResponse>;
TYPED_TEST_SUITE(AnyValues, Bodies);

// [driver:Basic Concepts / Common Message Format / Driver]
// The payload is made of random bytes with a right count: what is parsed and encoded again is the
// same, reserved fields as zeros.
TYPED_TEST(AnyValues, SurviveParsingAndEncoding) {
  using Traits = BodyTraits<TypeParam>;
  const uint16_t id = static_cast<uint16_t>(Traits::kId);
  const bool bus = (id & 0x100) != 0;
  const MessageSpec* spec = Profile::V1().Find(bus ? MessageClass::kBus : MessageClass::kTransport,
                                               static_cast<uint8_t>(id & 0xff));
  ASSERT_NE(spec, nullptr);
  const PayloadSpec& payload = Traits::kResponse ? spec->response : spec->request;
  std::mt19937 random(id);
  for (int round = 0; round < 200; ++round) {
    size_t variable = 0;
    if (payload.variable_unit != 0) {
      variable =
          random() % (payload.variable_max + 1) / payload.variable_unit * payload.variable_unit;
    }
    std::vector<std::byte> record(kHeaderSize + payload.fixed + variable);
    for (std::byte& byte : record) byte = std::byte(random());
    record[0] = std::byte((Traits::kResponse ? kTypeResponse : 0) | (bus ? kTypeBus : 0));
    record[1] = std::byte(id & 0xff);
    if (bus) record[2] = record[3] = std::byte{0};
    record[6] = std::byte(record.size() & 0xff);
    record[7] = std::byte(record.size() >> 8);
    for (size_t i = 0; i < payload.fields.size(); ++i) {
      const FieldSpec& field = payload.fields[i];
      if (field.body_width != 0 && i != payload.count_field) continue;
      uint64_t value = i == payload.count_field ? variable * 8 / payload.count_bits : 0;
      for (size_t b = 0; b < field.width; ++b, value >>= 8) {
        record[kHeaderSize + field.offset + b] = std::byte(value & 0xff);
      }
    }
    const auto message = Decode(Profile::V1(), record);
    ASSERT_TRUE(message.ok()) << message.status();
    const auto body = Parse<TypeParam>(Profile::V1(), *message);
    ASSERT_TRUE(body.ok()) << body.status();
    std::vector<std::byte> out(kMaxMessageSize);
    const auto size = Encode(Profile::V1(), message->envelope, *body, out);
    ASSERT_TRUE(size.ok()) << size.status();
    ASSERT_EQ(ToHex(std::span(out).first(*size)), ToHex(record));
  }
}

}  // namespace
}  // namespace vmsg::wire
