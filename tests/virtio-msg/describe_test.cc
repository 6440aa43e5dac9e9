// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"

namespace vmsg::wire {
namespace {

std::string Text(const std::string& hex, std::optional<Sender> from = std::nullopt) {
  const std::vector<std::byte> record = Hex(hex);
  return Describe(Profile::V1(), record, from);
}

TEST(Describe, NamesTheMessageAndItsFields) {
  EXPECT_EQ(Text("0005 0100 0700 1000 00000000 08000000"),
            "GET_CONFIG dev=1 token=7 offset=0 length=8");
  EXPECT_EQ(Text("0002 ffff 0700 0800"), "GET_DEVICE_INFO dev=65535 token=7");
}

TEST(Describe, MarksResponsesAndPrintsTheVariablePart) {
  EXPECT_EQ(Text("0105 0100 0700 1700 03000000 00000000 03000000 00ff1e"),
            "GET_CONFIG response dev=1 token=7 generation=3 offset=0 length=3 data=00ff1e");
  EXPECT_EQ(Text("0103 0100 0700 1800 00000000 02000000 30000000 01010000"),
            "GET_DEVICE_FEATURES response dev=1 token=7 block_index=0 num_blocks=2 "
            "features=[0x30,0x101]");
}

TEST(Describe, BusMessagesHaveNoDevice) {
  EXPECT_EQ(Text("0240 0000 0000 0c00 0500 0280"),
            "EVENT_DEVICE token=0 device_number=5 device_bus_state=0x8002");
}

TEST(Describe, ReservedFieldsAreLeftOutAndAddressesAreHex) {
  EXPECT_EQ(Text("000a 0100 0000 3000 03000000 ffffffff 00010000 ffffffff"
                 " 0010000000000000 8877665544332211 0030000000000000"),
            "SET_VQUEUE dev=1 token=0 index=3 size=256 desc_addr=0x1000 "
            "driver_addr=0x1122334455667788 device_addr=0x3000");
}

TEST(Describe, SaysWhyARecordIsMalformedAndShowsIt) {
  EXPECT_EQ(Text("0205 0000 0700 0600"),
            "malformed: msg_size is 6, the header alone has 8; 0205000007000600");
  EXPECT_EQ(Text(""), "malformed: record of 0 bytes, the header has 8; ");
}

TEST(Describe, CountsThatLieAreMalformed) {
  EXPECT_THAT(Text("0006 0100 0700 1500 00000000 00000000 05000000 aa"),
              testing::StartsWith("malformed: SET_CONFIG request: length is 5"));
}

TEST(Describe, ALongMalformedRecordIsCut) {
  const std::string text = Text("00ff 0000 0000 0800" + std::string(2 * 4000, 'a'));
  EXPECT_THAT(text, testing::EndsWith("aaaa..."));
  EXPECT_LT(text.size(), 250u);
}

TEST(Describe, PointsOutPaddingThatIsNotZero) {
  EXPECT_EQ(Text("0042 0100 0000 0c00 05000000 00000000"), "EVENT_USED dev=1 token=0 vq_index=5");
  EXPECT_EQ(Text("0042 0100 0000 0c00 05000000 00000001"),
            "EVENT_USED dev=1 token=0 vq_index=5 (padding is not zero)");
}

TEST(Describe, PointsOutAMessageOfTheWrongSide) {
  EXPECT_THAT(Text("0042 0100 0000 0c00 05000000", Sender::kDriver),
              testing::StartsWith("malformed: the driver may not send EVENT_USED"));
  EXPECT_EQ(Text("0042 0100 0000 0c00 05000000", Sender::kDevice),
            "EVENT_USED dev=1 token=0 vq_index=5");
  EXPECT_THAT(Text("0007 0100 0000 0800", Sender::kDevice),
              testing::StartsWith("malformed: the device may not send GET_DEVICE_STATUS"));
}

}  // namespace
}  // namespace vmsg::wire
