// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/capture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"

namespace vmsg::wire {
namespace {

using testing::HasSubstr;

std::vector<std::byte> Packet(const CapturedMessage& message) {
  const auto header = CapturePacketHeader(message);
  std::vector<std::byte> packet(header.size() + message.message.size());
  std::copy(header.begin(), header.end(), packet.begin());
  std::copy(message.message.begin(), message.message.end(), packet.begin() + header.size());
  return packet;
}

absl::StatusOr<CaptureFormat> ParseHeader(const std::string& hex) {
  const std::vector<std::byte> bytes = Hex(hex);
  return ParseCaptureFileHeader(std::span(bytes).first<kCaptureFileHeaderSize>());
}

TEST(Capture, FileHeaderIsPcapOfNanosecondsAndUser0) {
  EXPECT_EQ(ToHex(CaptureFileHeader()),
            ToHex(Hex("4d3cb2a1 0200 0400 00000000 00000000 07000100 93000000")));
  const auto format = ParseCaptureFileHeader(CaptureFileHeader());
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_TRUE(format->nanoseconds);
}

TEST(Capture, PacketBytes) {
  const auto message = Hex("0042 0100 0000 0c00 05000000");
  EXPECT_EQ(ToHex(Packet({3'000'000'007, CaptureDirection::kDeviceToDriver, 0x0102, 9, message})),
            ToHex(Hex("03000000 07000000 14000000 14000000 01 00 0201 09000000"
                      " 0042 0100 0000 0c00 05000000")));
}

TEST(Capture, PacketsAreReadBackOneByOne) {
  const auto one = Hex("0042 0100 0000 0c00 05000000"), two = Hex("01");
  std::vector<std::byte> file =
      Packet({1'700'000'000'123'456'789, CaptureDirection::kDriverToDevice, 3, 0xffffffff, one});
  const size_t first = file.size();
  const auto second = Packet({5, CaptureDirection::kDeviceToDriver, 0xffff, 2, two});
  file.insert(file.end(), second.begin(), second.end());

  auto packet = ParseCapturePacket({}, file);
  ASSERT_TRUE(packet.ok() && packet->has_value());
  EXPECT_EQ((*packet)->size, first);
  const CapturedMessage& captured = (*packet)->captured;
  EXPECT_EQ(captured.time_ns, 1'700'000'000'123'456'789u);
  EXPECT_EQ(captured.direction, CaptureDirection::kDriverToDevice);
  EXPECT_EQ(captured.frontend, 3);
  EXPECT_EQ(captured.bus, 0xffffffffu);
  EXPECT_EQ(ToHex(captured.message), ToHex(one));

  packet = ParseCapturePacket({}, std::span(file).subspan(first));
  ASSERT_TRUE(packet.ok() && packet->has_value());
  EXPECT_EQ((*packet)->captured.direction, CaptureDirection::kDeviceToDriver);
  EXPECT_EQ(ToHex((*packet)->captured.message), "01");
}

TEST(Capture, APacketThatIsNotAllThereWantsMore) {
  const auto message = Hex("0042 0100 0000 0c00 05000000");
  const auto packet = Packet({1, CaptureDirection::kDriverToDevice, 1, 1, message});
  for (size_t size = 0; size < packet.size(); ++size) {
    const auto parsed = ParseCapturePacket({}, std::span(packet).first(size));
    ASSERT_TRUE(parsed.ok()) << size;
    EXPECT_FALSE(parsed->has_value()) << size;
  }
}

TEST(Capture, MicrosecondsAreRead) {
  const auto format = ParseHeader("d4c3b2a1 0200 0400 00000000 00000000 00000400 93000000");
  ASSERT_TRUE(format.ok()) << format.status();
  const auto bytes = Hex("01000000 02000000 08000000 08000000 00 00 0000 00000000");
  const auto packet = ParseCapturePacket(*format, bytes);
  ASSERT_TRUE(packet.ok() && packet->has_value());
  EXPECT_EQ((*packet)->captured.time_ns, 1'000'002'000u);
}

TEST(Capture, AMessageLongerThanAnyIsCut) {
  const std::vector<std::byte> huge(100'000);
  const auto header = CapturePacketHeader({0, CaptureDirection::kDriverToDevice, 0, 0, huge});
  EXPECT_EQ(ToHex(std::span(header).subspan(8, 4)), "07000100");  // 65543
}

TEST(MalformedCapture, NotPcap) {
  EXPECT_THAT(std::string(ParseHeader(std::string(48, '0')).status().message()),
              HasSubstr("not a pcap file: it begins with 0x00000000"));
}

TEST(MalformedCapture, BigEndian) {
  EXPECT_THAT(std::string(ParseHeader("a1b23c4d" + std::string(40, '0')).status().message()),
              HasSubstr("big-endian"));
  EXPECT_FALSE(ParseHeader("a1b2c3d4" + std::string(40, '0')).ok());
}

TEST(MalformedCapture, OtherVersionOrLinkType) {
  EXPECT_THAT(
      std::string(
          ParseHeader("4d3cb2a1 0300 0400 00000000 00000000 00000100 93000000").status().message()),
      HasSubstr("version 3"));
  EXPECT_THAT(
      std::string(
          ParseHeader("4d3cb2a1 0200 0400 00000000 00000000 00000100 01000000").status().message()),
      HasSubstr("link type 1"));
}

TEST(MalformedCapture, PacketLengthThatNoMessageHas) {
  for (const char* length : {"00000000", "07000000", "08000100", "ffffffff"}) {
    const auto bytes =
        Hex(std::string("01000000 02000000 ") + length + " 08000000 00 00 0000 00000000");
    const auto packet = ParseCapturePacket({}, bytes);
    EXPECT_EQ(packet.status().code(), absl::StatusCode::kInvalidArgument) << length;
  }
}

TEST(MalformedCapture, Direction) {
  const auto bytes = Hex("01000000 02000000 08000000 08000000 02 00 0000 00000000");
  EXPECT_THAT(std::string(ParseCapturePacket({}, bytes).status().message()),
              HasSubstr("direction 2"));
}

}  // namespace
}  // namespace vmsg::wire
