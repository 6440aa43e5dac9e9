// SPDX-License-Identifier: Apache-2.0
// Every message and response of the table, byte for byte as the specification lays it out. The hex
// was written by hand from its structures and shares nothing with the table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"
#include "virtio-msg/codec.h"

namespace vmsg::wire {
namespace {

struct Golden {
  std::string name;
  std::string hex;
  MessageId id;
  bool response;
  std::function<absl::StatusOr<size_t>(std::span<std::byte> out)> encode;
  // Decodes, parses and encodes again.
  std::function<std::string(std::span<const std::byte> record)> again;
};

constexpr Envelope kDev{0x0201, 0x0403};
constexpr Envelope kBus{0, 0x0403};

template <class Body>
Golden Case(std::string name, Body body, std::string hex) {
  constexpr MessageId id = MessageIdOf<Body>();
  const bool bus = (static_cast<uint16_t>(id) & 0x100) != 0;
  const Envelope envelope = bus ? kBus : kDev;
  Golden golden{std::move(name), std::move(hex), id, BodyTraits<Body>::kResponse, {}, {}};
  golden.encode = [=](std::span<std::byte> out) {
    return Encode(Profile::V1(), envelope, body, out);
  };
  golden.again = [=](std::span<const std::byte> record) -> std::string {
    const auto message = Decode(Profile::V1(), record);
    if (!message.ok()) return message.status().ToString();
    const auto parsed = Parse<Body>(Profile::V1(), *message);
    if (!parsed.ok()) return parsed.status().ToString();
    std::vector<std::byte> out(kMaxMessageSize);
    const auto size = Encode(Profile::V1(), message->envelope, *parsed, out);
    if (!size.ok()) return size.status().ToString();
    return ToHex(std::span(out).first(*size));
  };
  return golden;
}

const std::vector<std::byte>& Data() {
  static const auto data = new std::vector<std::byte>(Hex("a1a2a3"));
  return *data;
}
const std::vector<std::byte>& TwoWords() {
  static const auto words = new std::vector<std::byte>(Hex("30000000 01010000"));
  return *words;
}
const std::vector<std::byte>& Bitmap() {
  static const auto bitmap = new std::vector<std::byte>(Hex("2500"));
  return *bitmap;
}

const std::vector<Golden>& Goldens() {
  // Header: type, msg_id, dev_num 0x0201, token 0x0403, msg_size.
  static const auto all = new std::vector<Golden>{
      Case("GetDeviceInfoRequest", GetDeviceInfoRequest{}, "00 02 0102 0304 0800"),
      Case("GetDeviceInfoResponse", GetDeviceInfoResponse{2, 0x1af4, 64, 60, 0x01020304, 7, 9},
           "01 02 0102 0304 2000  02000000 f41a0000 40000000 3c000000 04030201 0700 0900"),
      Case("GetDeviceFeaturesRequest", GetDeviceFeaturesRequest{1, 2},
           "00 03 0102 0304 1000  01000000 02000000"),
      Case("GetDeviceFeaturesResponse", GetDeviceFeaturesResponse{0, 2, WordView(TwoWords())},
           "01 03 0102 0304 1800  00000000 02000000 30000000 01010000"),
      Case("SetDriverFeaturesRequest", SetDriverFeaturesRequest{5, 2, WordView(TwoWords())},
           "00 04 0102 0304 1800  05000000 02000000 30000000 01010000"),
      Case("SetDriverFeaturesResponse", SetDriverFeaturesResponse{}, "01 04 0102 0304 0800"),
      Case("GetConfigRequest", GetConfigRequest{0x10, 8},
           "00 05 0102 0304 1000  10000000 08000000"),
      Case("GetConfigResponse", GetConfigResponse{0x11223344, 5, 3, Data()},
           "01 05 0102 0304 1700  44332211 05000000 03000000 a1a2a3"),
      Case("SetConfigRequest", SetConfigRequest{6, 32, 3, Data()},
           "00 06 0102 0304 1700  06000000 20000000 03000000 a1a2a3"),
      Case("SetConfigResponse", SetConfigResponse{7, 32, 3, Data()},
           "01 06 0102 0304 1700  07000000 20000000 03000000 a1a2a3"),
      Case("SetConfigResponseWithoutData", SetConfigResponse{7, 32, 3, {}},
           "01 06 0102 0304 1400  07000000 20000000 03000000"),
      Case("SetConfigResponseRejected", SetConfigResponse{7, 32, 0, {}},
           "01 06 0102 0304 1400  07000000 20000000 00000000"),
      Case("GetDeviceStatusRequest", GetDeviceStatusRequest{}, "00 07 0102 0304 0800"),
      Case("GetDeviceStatusResponse", GetDeviceStatusResponse{0x0f},
           "01 07 0102 0304 0c00  0f000000"),
      Case("SetDeviceStatusRequest", SetDeviceStatusRequest{0x0b},
           "00 08 0102 0304 0c00  0b000000"),
      Case("SetDeviceStatusResponse", SetDeviceStatusResponse{0x40},
           "01 08 0102 0304 0c00  40000000"),
      Case("GetVqueueRequest", GetVqueueRequest{3}, "00 09 0102 0304 0c00  03000000"),
      Case("GetVqueueResponse",
           GetVqueueResponse{3, 0x8000, 0x100, 0x1000, 0x2000, 0x1122334455667788},
           "01 09 0102 0304 3000  03000000 00800000 00010000 00000000"
           " 0010000000000000 0020000000000000 8877665544332211"),
      Case("SetVqueueRequest", SetVqueueRequest{3, 0x100, 0x1000, 0x1122334455667788, 0x3000},
           "00 0a 0102 0304 3000  03000000 00000000 00010000 00000000"
           " 0010000000000000 8877665544332211 0030000000000000"),
      Case("SetVqueueResponse", SetVqueueResponse{}, "01 0a 0102 0304 0800"),
      Case("ResetVqueueRequest", ResetVqueueRequest{4}, "00 0b 0102 0304 0c00  04000000"),
      Case("ResetVqueueResponse", ResetVqueueResponse{}, "01 0b 0102 0304 0800"),
      Case("GetShmRequest", GetShmRequest{5}, "00 0c 0102 0304 0c00  05000000"),
      Case("GetShmResponse", GetShmResponse{5, 0x1000, 0xfee00000},
           "01 0c 0102 0304 1400  05000000 00100000 0000e0fe"),
      Case("EventConfig", EventConfig{0x4f, 9, 16, 3, Data()},
           "00 40 0102 0304 1b00  4f000000 09000000 10000000 03000000 a1a2a3"),
      Case("EventConfigWithoutData", EventConfig{0x0f, 9, 16, 0, {}},
           "00 40 0102 0304 1800  0f000000 09000000 10000000 00000000"),
      Case("EventAvail", EventAvail{2, 0x80000005}, "00 41 0102 0304 1000  02000000 05000080"),
      Case("EventUsed", EventUsed{2}, "00 42 0102 0304 0c00  02000000"),
      Case("GetDevicesRequest", GetDevicesRequest{8, 16}, "02 02 0000 0304 0c00  0800 1000"),
      Case("GetDevicesResponse", GetDevicesResponse{0, 16, 16, Bitmap()},
           "03 02 0000 0304 1000  0000 1000 1000 2500"),
      Case("PingRequest", PingRequest{0xdeadbeef}, "02 03 0000 0304 0c00  efbeadde"),
      Case("PingResponse", PingResponse{0xdeadbeef}, "03 03 0000 0304 0c00  efbeadde"),
      Case("EventDevice", EventDevice{0x0201, kDeviceRemovalRequested},
           "02 40 0000 0304 0c00  0102 0080"),
      Case("WindowExtendRequest", WindowExtendRequest{77, 2048},
           "02 80 0000 0304 1000  4d000000 00080000"),
      Case("WindowExtendResponse", WindowExtendResponse{2, 1024},
           "03 80 0000 0304 1000  02000000 00040000"),
      Case("WindowWithdrawRequest", WindowWithdrawRequest{1024, 2048},
           "02 81 0000 0304 1000  00040000 00080000"),
      Case("WindowWithdrawResponse", WindowWithdrawResponse{4}, "03 81 0000 0304 0c00  04000000"),
  };
  return *all;
}

class GoldenBytes : public testing::TestWithParam<Golden> {};

// [driver:Basic Concepts / Endianness / Driver]
// [device:Basic Concepts / Endianness / Device]
// [driver:Basic Concepts / Common Message Format / Driver]
// [device:Basic Concepts / Common Message Format / Device]
TEST_P(GoldenBytes, AreWhatEncodeWrites) {
  std::vector<std::byte> out(kMaxMessageSize, std::byte{0xee});
  const auto size = GetParam().encode(out);
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(ToHex(std::span(out).first(*size)), ToHex(Hex(GetParam().hex)));
  EXPECT_EQ(out[*size], std::byte{0xee}) << "a byte after the message was written";
}

TEST_P(GoldenBytes, AreReadBackInFull) {
  const std::vector<std::byte> record = Hex(GetParam().hex);
  EXPECT_EQ(GetParam().again(record), ToHex(record));
}

TEST_P(GoldenBytes, EachShorterRecordIsRefused) {
  const std::vector<std::byte> record = Hex(GetParam().hex);
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_FALSE(Decode(Profile::V1(), std::span(record).first(size)).ok()) << size;
  }
}

// Buffers and limits one byte too small: no byte is written behind the end (the sanitizer watches).
TEST_P(GoldenBytes, EncodeRefusesASmallerBuffer) {
  const size_t size = Hex(GetParam().hex).size();
  std::vector<std::byte> out(size - 1);
  EXPECT_EQ(GetParam().encode(out).status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Messages, GoldenBytes, testing::ValuesIn(Goldens()),
                         [](const auto& info) { return info.param.name; });

TEST(GoldenBytesTable, CoverEachMessageAndResponse) {
  std::set<std::pair<uint16_t, bool>> covered;
  for (const Golden& golden : Goldens()) {
    covered.emplace(static_cast<uint16_t>(golden.id), golden.response);
  }
  for (const MessageSpec& spec : Profile::V1().messages()) {
    const uint16_t id = static_cast<uint16_t>(spec.id);
    EXPECT_EQ(covered.count({id, false}), 1u) << spec.name;
    EXPECT_EQ(covered.count({id, true}), spec.kind == Kind::kEvent ? 0u : 1u) << spec.name;
  }
}

// [bus:Basic Concepts / Relationship between bus and transport / Bus Messages]
// [device:Basic Concepts / Versioning and Forward Compatibility / Device]
// [device:Transport Messages / Mandatory / Device]
// [driver:Transport Messages / Mandatory / Driver]
TEST(GoldenBytesTable, HasTheMessagesOfTheSpecificationAndOursAndNoOther) {
  std::vector<std::string> names;
  for (const MessageSpec& spec : Profile::V1().messages()) names.emplace_back(spec.name);
  EXPECT_THAT(
      names, testing::UnorderedElementsAre(
                 "GET_DEVICE_INFO", "GET_DEVICE_FEATURES", "SET_DRIVER_FEATURES", "GET_CONFIG",
                 "SET_CONFIG", "GET_DEVICE_STATUS", "SET_DEVICE_STATUS", "GET_VQUEUE", "SET_VQUEUE",
                 "RESET_VQUEUE", "GET_SHM", "EVENT_CONFIG", "EVENT_AVAIL", "EVENT_USED",
                 "GET_DEVICES", "PING", "EVENT_DEVICE", "WINDOW_EXTEND", "WINDOW_WITHDRAW"));
}

// [bus:Basic Concepts / Revisions / Message Size]
// SET_VQUEUE does not fit the transport's least message size; the binding's least is 52 for that.
TEST(GoldenBytesTable, FixedPartsFitTheBindingsLeastMessageSize) {
  EXPECT_LE(kMinMessageSize, kMaxMessageSize);
  EXPECT_LE(kMaxMessageSize, 264u);
  for (const MessageSpec& spec : Profile::V1().messages()) {
    EXPECT_LE(kHeaderSize + spec.request.fixed, 52u) << spec.name;
    EXPECT_LE(kHeaderSize + spec.response.fixed, 52u) << spec.name;
    EXPECT_LE(kHeaderSize + spec.request.fixed + spec.request.variable_max, kMaxMessageSize);
    EXPECT_LE(kHeaderSize + spec.response.fixed + spec.response.variable_max, kMaxMessageSize);
  }
}

}  // namespace
}  // namespace vmsg::wire
