// SPDX-License-Identifier: Apache-2.0
// One test for each way in which a header or payload can be wrong, on the way in and out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"
#include "virtio-msg/codec.h"

namespace vmsg::wire {
namespace {

using testing::HasSubstr;

std::string DecodeError(const std::string& hex, size_t limit = kMaxMessageSize) {
  const std::vector<std::byte> record = Hex(hex);
  const auto message = Decode(Profile::V1(), record, limit);
  if (message.ok()) return "";
  EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(message.status().message());
}

template <class Body>
std::string ParseError(const std::string& hex) {
  const std::vector<std::byte> record = Hex(hex);
  const auto message = Decode(Profile::V1(), record);
  EXPECT_TRUE(message.ok()) << message.status();
  if (!message.ok()) return "";
  const auto body = Parse<Body>(Profile::V1(), *message);
  EXPECT_EQ(CheckPayload(*message).ok(), body.ok());
  return body.ok() ? "" : std::string(body.status().message());
}

template <class Body>
std::string EncodeError(const Body& body, Envelope envelope = {}, size_t limit = kMaxMessageSize) {
  std::vector<std::byte> out(kMaxMessageSize);
  const auto size = Encode(Profile::V1(), envelope, body, out, limit);
  if (size.ok()) return "";
  EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(size.status().message());
}

TEST(MalformedHeader, EmptyRecord) { EXPECT_THAT(DecodeError(""), HasSubstr("record of 0")); }

TEST(MalformedHeader, RecordShorterThanAHeader) {
  EXPECT_THAT(DecodeError("00020000000008"), HasSubstr("record of 7 bytes, the header has 8"));
}

TEST(MalformedHeader, MsgSizeUnderTheHeader) {
  EXPECT_THAT(DecodeError("0002 0000 0000 0700"), HasSubstr("msg_size is 7"));
  EXPECT_THAT(DecodeError("0002 0000 0000 0000"), HasSubstr("msg_size is 0"));
}

TEST(MalformedHeader, MsgSizeLongerThanTheRecord) {
  EXPECT_THAT(DecodeError("0007 0000 0000 0900"), HasSubstr("msg_size is 9, the record has 8"));
}

// [device:Basic Concepts / Revisions / Device Limits]
TEST(MalformedHeader, MsgSizeOverTheLimitOfTheConnection) {
  const std::string set_vqueue = "000a 0000 0000 3000" + std::string(2 * 40, '0');
  EXPECT_EQ(DecodeError(set_vqueue, 48), "");
  EXPECT_THAT(DecodeError(set_vqueue, 47), HasSubstr("msg_size is 48, the limit is 47"));
  EXPECT_THAT(DecodeError("0002 0000 0000 ffff"), HasSubstr("msg_size is 65535"));
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST(MalformedHeader, EachIdThatIsNotInTheTable) {
  for (unsigned type : {0u, 1u, 2u, 3u}) {
    for (unsigned id = 0; id < 256; ++id) {
      const auto message_class = (type & 2) != 0 ? MessageClass::kBus : MessageClass::kTransport;
      if (Profile::V1().Find(message_class, static_cast<uint8_t>(id)) != nullptr) continue;
      std::vector<std::byte> record = Hex("0000 0000 0000 0800");
      record[0] = std::byte(type);
      record[1] = std::byte(id);
      const auto message = Decode(Profile::V1(), record);
      ASSERT_FALSE(message.ok()) << type << " " << id;
      EXPECT_THAT(std::string(message.status().message()), HasSubstr("msg_id 0x"));
    }
  }
}

TEST(MalformedHeader, TransportIdInABusMessageAndTheOtherWayRound) {
  EXPECT_THAT(DecodeError("020a 0000 0000 0800"), HasSubstr("msg_id 0x0a is no bus message"));
  EXPECT_THAT(DecodeError("0080 0000 0000 0800"), HasSubstr("0x80 is no transport message"));
}

// [bus:Basic Concepts / Error Signaling / Bus]
TEST(MalformedHeader, ResponseToAnEvent) {
  EXPECT_THAT(DecodeError("0142 0100 0000 0c00 00000000"), HasSubstr("EVENT_USED is an event"));
  EXPECT_THAT(DecodeError("0340 0000 0000 0c00 00000000"), HasSubstr("EVENT_DEVICE is an event"));
}

// [bus:Basic Concepts / Common Message Format / Bus]
TEST(MalformedHeader, BusMessageWithADeviceNumber) {
  EXPECT_THAT(DecodeError("0203 0100 0000 0c00 00000000"), HasSubstr("dev_num is 1"));
}

// [driver:Basic Concepts / Common Message Format / Driver]
// [device:Basic Concepts / Common Message Format / Device]
TEST(AcceptedHeader, ReservedBitsOfTypeAreIgnored) {
  EXPECT_EQ(DecodeError("fc07 0000 0000 0800"), "");
  EXPECT_EQ(DecodeError("fe03 0000 0000 0c00 00000000"), "");
}

// [device:Basic Concepts / Common Message Format / Device]
TEST(AcceptedHeader, PaddingAfterTheMessageIsIgnored) {
  const std::vector<std::byte> record = Hex("0042 0100 0000 0c00 05000000 ffffffff");
  const auto message = Decode(Profile::V1(), record);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->payload.size(), 4u);
  EXPECT_EQ(Parse<EventUsed>(Profile::V1(), *message)->vq_index, 5u);
}

TEST(AcceptedHeader, EnvelopeIsWhatTheHeaderSays) {
  const std::vector<std::byte> record = Hex("0107 3412 7856 0c00 00000000");
  const auto message = Decode(Profile::V1(), record);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->envelope.dev_num, 0x1234);
  EXPECT_EQ(message->envelope.token, 0x5678);
  EXPECT_TRUE(message->response);
  EXPECT_EQ(message->spec->name, "GET_DEVICE_STATUS");
}

// [driver:Basic Concepts / Common Message Format / Driver]
// [device:Basic Concepts / Common Message Format / Device]
// Reserved fields of each message of the table, set to all ones: the body is what it is without.
TEST(AcceptedPayload, ReservedFieldsAreIgnored) {
  const std::string rest = " 00100000 00000000 00200000 00000000 00300000 00000000";
  for (const std::string reserved : {"00000000", "ffffffff", "01000000"}) {
    const std::vector<std::byte> request =
        Hex("000a 0000 0000 3000 02000000" + reserved + "10000000" + reserved + rest);
    const auto set = Decode(Profile::V1(), request);
    ASSERT_TRUE(set.ok()) << set.status();
    const auto set_body = Parse<SetVqueueRequest>(Profile::V1(), *set);
    ASSERT_TRUE(set_body.ok()) << set_body.status();
    EXPECT_EQ(set_body->index, 2u);
    EXPECT_EQ(set_body->size, 16u);
    EXPECT_EQ(set_body->desc_addr, 0x1000u);
    EXPECT_EQ(set_body->device_addr, 0x3000u);
    const std::vector<std::byte> response =
        Hex("0109 0000 0000 3000 02000000 40000000 10000000" + reserved + rest);
    const auto got = Decode(Profile::V1(), response);
    ASSERT_TRUE(got.ok()) << got.status();
    const auto got_body = Parse<GetVqueueResponse>(Profile::V1(), *got);
    ASSERT_TRUE(got_body.ok()) << got_body.status();
    EXPECT_EQ(got_body->max_size, 64u);
    EXPECT_EQ(got_body->cur_size, 16u);
    EXPECT_EQ(got_body->driver_addr, 0x2000u);
  }
  // These are all that there are.
  size_t reserved_fields = 0;
  for (const MessageSpec& spec : Profile::V1().messages()) {
    for (const PayloadSpec* payload : {&spec.request, &spec.response}) {
      for (const FieldSpec& field : payload->fields) reserved_fields += field.body_width == 0;
    }
  }
  EXPECT_EQ(reserved_fields, 3u);
}

TEST(MalformedPayload, FixedPartMissing) {
  EXPECT_THAT(DecodeError("0005 0000 0000 0f00 00000000000000"),
              HasSubstr("GET_CONFIG request: payload of 7 bytes, the fixed part alone has 8"));
  EXPECT_THAT(DecodeError("0008 0000 0000 0800"), HasSubstr("payload of 0 bytes"));
}

TEST(MalformedPayload, LongerThanAFixedMessage) {
  EXPECT_THAT(DecodeError("0007 0000 0000 0900 00"),
              HasSubstr("GET_DEVICE_STATUS request: payload of 1 bytes, it has exactly 0"));
  EXPECT_THAT(DecodeError("0042 0000 0000 0d00 0000000000"), HasSubstr("it has exactly 4"));
}

TEST(MalformedPayload, VariablePartNotAMultipleOfItsUnit) {
  EXPECT_THAT(DecodeError("0004 0000 0000 1300 0000000001000000 000000"),
              HasSubstr("3 bytes of features, not a multiple of 4"));
}

TEST(MalformedPayload, VariablePartOverItsBound) {
  // SET_CONFIG: 12 bytes fixed, so 244 of data; a larger connection limit does not change it.
  const std::string header = "0006 0000 0000 0901 00000000 00000000 f5000000";
  EXPECT_THAT(DecodeError(header + std::string(2 * 245, '0'), 1000),
              HasSubstr("245 bytes of data, the limit is 244"));
}

TEST(MalformedPayload, NumBlocksIsNotWhatIsThere) {
  EXPECT_THAT(
      ParseError<SetDriverFeaturesRequest>("0004 0000 0000 1400 00000000 02000000 00000000"),
      HasSubstr("num_blocks is 2, which is not the 4 bytes of features"));
  EXPECT_THAT(
      ParseError<SetDriverFeaturesRequest>("0004 0000 0000 1400 00000000 00000000 00000000"),
      HasSubstr("num_blocks is 0"));
  // 0x40000001 * 4 is 4 modulo 2^32.
  EXPECT_THAT(
      ParseError<SetDriverFeaturesRequest>("0004 0000 0000 1400 00000000 01000040 00000000"),
      HasSubstr("num_blocks is 1073741825"));
  EXPECT_THAT(ParseError<GetDeviceFeaturesResponse>("0103 0000 0000 1000 00000000 01000000"),
              HasSubstr("num_blocks is 1"));
}

TEST(MalformedPayload, ConfigLengthIsNotWhatIsThere) {
  EXPECT_THAT(ParseError<SetConfigRequest>("0006 0000 0000 1500 00000000 00000000 02000000 aa"),
              HasSubstr("length is 2, which is not the 1 bytes of data"));
  EXPECT_THAT(ParseError<SetConfigRequest>("0006 0000 0000 1400 00000000 00000000 ffffffff"),
              HasSubstr("length is 4294967295"));
  EXPECT_THAT(ParseError<GetConfigResponse>("0105 0000 0000 1500 00000000 00000000 00000000 aa"),
              HasSubstr("length is 0"));
  EXPECT_THAT(ParseError<EventConfig>("0040 0000 0000 1800 00000000 00000000 00000000 04000000"),
              HasSubstr("length is 4"));
}

TEST(MalformedPayload, SetConfigResponseMayOmitItsDataButNotHalfOfIt) {
  EXPECT_EQ(ParseError<SetConfigResponse>("0106 0000 0000 1400 00000000 00000000 02000000"), "");
  EXPECT_THAT(ParseError<SetConfigResponse>("0106 0000 0000 1500 00000000 00000000 02000000 aa"),
              HasSubstr("length is 2"));
}

// [bus:Bus Messages / GET_DEVICES / Bus]
TEST(MalformedPayload, BitmapIsNotAnEighthOfCount) {
  EXPECT_THAT(ParseError<GetDevicesResponse>("0302 0000 0000 0f00 0000 1000 0000 ff"),
              HasSubstr("count is 16, which is not the 1 bytes of bitmap"));
  EXPECT_THAT(ParseError<GetDevicesResponse>("0302 0000 0000 0f00 0000 0700 0000 ff"),
              HasSubstr("count is 7"));
}

TEST(MalformedPayload, BodyOfAnotherMessageOrDirection) {
  const std::vector<std::byte> record = Hex("0108 0000 0000 0c00 00000000");
  const auto message = Decode(Profile::V1(), record);
  ASSERT_TRUE(message.ok());
  EXPECT_TRUE(Parse<SetDeviceStatusResponse>(Profile::V1(), *message).ok());
  EXPECT_THAT(
      std::string(Parse<SetDeviceStatusRequest>(Profile::V1(), *message).status().message()),
      HasSubstr("a body of message 0x008 was asked of SET_DEVICE_STATUS response"));
  EXPECT_FALSE(Parse<GetDeviceStatusResponse>(Profile::V1(), *message).ok());
  EXPECT_FALSE(Parse<PingResponse>(Profile::V1(), *message).ok());
  EXPECT_FALSE(Parse<PingRequest>(Profile::V1(), Message{}).ok());
}

TEST(RefusedEncoding, BusMessageWithADeviceNumber) {
  EXPECT_THAT(EncodeError(PingRequest{1}, {5, 0}), HasSubstr("dev_num is 5"));
}

// [driver:Basic Concepts / Revisions / Driver Limits]
// [device:Basic Concepts / Revisions / Device Limits]
TEST(RefusedEncoding, OverTheLimitOfTheConnection) {
  EXPECT_EQ(EncodeError(SetVqueueRequest{}, {}, 48), "");
  EXPECT_THAT(EncodeError(SetVqueueRequest{}, {}, 47), HasSubstr("the connection's limit is 47"));
}

TEST(RefusedEncoding, CountThatIsNotTheVariablePart) {
  const std::vector<std::byte> four(4);
  EXPECT_THAT(EncodeError(GetConfigResponse{0, 0, 3, four}), HasSubstr("length is 3"));
  EXPECT_THAT(EncodeError(SetDriverFeaturesRequest{0, 2, WordView(four)}), HasSubstr("is 2"));
  EXPECT_THAT(EncodeError(GetDevicesResponse{0, 31, 0, four}), HasSubstr("count is 31"));
  EXPECT_THAT(EncodeError(SetConfigResponse{0, 0, 0, four}), HasSubstr("length is 0"));
}

TEST(RefusedEncoding, VariablePartOverItsBoundOrInPieces) {
  const std::vector<std::byte> large(245);
  EXPECT_THAT(EncodeError(GetConfigResponse{0, 0, 245, large}), HasSubstr("the limit is 244"));
  const std::vector<std::byte> three(3);
  EXPECT_THAT(EncodeError(GetDeviceFeaturesResponse{0, 1, WordView(three)}),
              HasSubstr("not a multiple of 4"));
}

TEST(Directions, RequestsAndEventsComeFromTheTablesSender) {
  struct Row {
    const char* hex;
    bool driver, device;
  };
  for (const Row& row : {
           Row{"0007 0000 0000 0800", true, false},                    // GET_DEVICE_STATUS
           Row{"0107 0000 0000 0c00 00000000", false, true},           // its response
           Row{"0041 0000 0000 1000 00000000 00000000", true, false},  // EVENT_AVAIL
           Row{"0042 0000 0000 0c00 00000000", false, true},           // EVENT_USED
           Row{"0203 0000 0000 0c00 00000000", true, true},            // PING
           Row{"0303 0000 0000 0c00 00000000", true, true},            // its response
           Row{"0240 0000 0000 0c00 00000000", false, true},           // EVENT_DEVICE
           Row{"0281 0000 0000 1000 00000000 00000000", true, false},  // WINDOW_WITHDRAW
           Row{"0381 0000 0000 0c00 00000000", false, true},           // its response
       }) {
    const std::vector<std::byte> record = Hex(row.hex);
    const auto message = Decode(Profile::V1(), record);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(MaySend(*message, Sender::kDriver), row.driver) << row.hex;
    EXPECT_EQ(MaySend(*message, Sender::kDevice), row.device) << row.hex;
  }
}

}  // namespace
}  // namespace vmsg::wire
