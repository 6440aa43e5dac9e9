// SPDX-License-Identifier: Apache-2.0
// Framing, and one test for each way in which a message can be wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <string>

#include "tests/emulated-store/conversation.h"
#include "tools/xen-emu/store/wire/message.h"
#include "tools/xen-emu/store/wire/output_queue.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

using ::testing::ElementsAre;

std::string Header(uint32_t type, uint32_t length) {
  xsd_sockmsg header = {.type = type, .req_id = 1, .tx_id = 2, .len = length};
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header));
}

TEST(Framing, GoldenBytes) {
  EXPECT_EQ(EncodeMessage({.type = 2, .request = 3, .transaction = 4, .payload = "ab"}),
            std::string("\x02\0\0\0\x03\0\0\0\x04\0\0\0\x02\0\0\0ab", 18));
}

TEST(Framing, MessageInSingleBytes) {
  MessageReader reader;
  const std::string bytes = Header(XS_READ, 3) + "abc";
  for (size_t i = 0; i + 1 < bytes.size(); ++i) {
    reader.Feed(bytes.substr(i, 1));
    ASSERT_FALSE(reader.Next().has_value());
  }
  reader.Feed("c");
  auto message = reader.Next();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->payload, "abc");
  EXPECT_EQ(message->request, 1u);
  EXPECT_EQ(message->transaction, 2u);
}

TEST(Framing, SeveralMessagesAtOnce) {
  MessageReader reader;
  reader.Feed(Header(XS_READ, 1) + "a" + Header(XS_WRITE, 0) + Header(XS_RM, 2) + "b");
  EXPECT_EQ(reader.Next()->payload, "a");
  EXPECT_EQ(reader.Next()->type, static_cast<uint32_t>(XS_WRITE));
  EXPECT_FALSE(reader.Next().has_value());
  reader.Feed("c");
  EXPECT_EQ(reader.Next()->payload, "bc");
}

TEST(Framing, LongestPayloadIsTaken) {
  MessageReader reader;
  reader.Feed(Header(XS_WRITE, 4096) + std::string(4096, 'x'));
  EXPECT_EQ(reader.Next()->payload.size(), 4096u);
  EXPECT_FALSE(reader.broken());
}

TEST(Framing, LongerPayloadBreaksTheStream) {
  for (uint32_t length : {4097u, 0x80000000u, 0xffffffffu}) {
    MessageReader reader;
    reader.Feed(Header(XS_WRITE, length) + Header(XS_READ, 0));
    EXPECT_FALSE(reader.Next().has_value());
    EXPECT_TRUE(reader.broken());
    EXPECT_FALSE(reader.Next().has_value());
  }
}

TEST(Framing, ErrorNames) {
  EXPECT_EQ(ErrorName(EAGAIN), "EAGAIN");
  EXPECT_EQ(ErrorName(EPERM), "EPERM");
  EXPECT_EQ(ErrorName(ECHILD), "EINVAL") << "has no name on the wire";
}

std::string Drain(OutputQueue& queue, size_t step) {
  std::string bytes;
  while (!queue.empty()) {
    std::array<absl::string_view, 2> pieces;
    queue.Gather(absl::MakeSpan(pieces));
    const size_t count = std::min(step, pieces[0].size());
    bytes += std::string(pieces[0].substr(0, count));
    queue.Sent(count);
  }
  return bytes;
}

TEST(Output, KeepsOrderHoweverItIsSent) {
  for (size_t step : {1u, 2u, 3u, 100u}) {
    OutputQueue queue;
    queue.AddReply("abc");
    queue.AddEvent("de", true);
    queue.AddReply("f");
    EXPECT_EQ(queue.bytes(), 6u);
    EXPECT_EQ(queue.event_bytes(), 2u);
    EXPECT_EQ(Drain(queue, step), "abcdef");
    EXPECT_EQ(queue.bytes(), 0u);
    EXPECT_EQ(queue.event_bytes(), 0u);
  }
}

TEST(Output, EventIsQueuedAgainOnceItsEqualIsBeingSent) {
  OutputQueue queue;
  queue.AddEvent("event", true);
  queue.AddEvent("event", true);
  EXPECT_EQ(queue.bytes(), 5u);
  queue.Sent(1);
  queue.AddEvent("event", true);
  queue.AddEvent("event", true);
  EXPECT_EQ(Drain(queue, 2), "ventevent");
  queue.AddEvent("event", true);
  EXPECT_EQ(Drain(queue, 9), "event");
}

TEST(Output, SpecialEventsAreNotFolded) {
  OutputQueue queue;
  queue.AddEvent("@x", false);
  queue.AddEvent("@x", false);
  EXPECT_EQ(Drain(queue, 9), "@x@x");
}

class Malformed : public ::testing::Test {
 protected:
  Conversation c_;
  Session& dom0_ = c_.Join(0);
  Session& guest_ = c_.NewGuest(5);
};

TEST_F(Malformed, UnknownType) {
  for (uint32_t type : {23u, 31u, 32u, 1000u, 0xffffu, 0xffffffffu}) {
    EXPECT_EQ(c_.Ask(dom0_, type, "/|"), "ENOSYS") << type;
  }
}

TEST_F(Malformed, TypesThatOnlyTheServerSends) {
  EXPECT_EQ(c_.Ask(dom0_, XS_WATCH_EVENT, "/|t|"), "ENOSYS");
  EXPECT_EQ(c_.Ask(dom0_, XS_ERROR, "EINVAL|"), "ENOSYS");
}

TEST_F(Malformed, ControlIsNotThere) { EXPECT_EQ(c_.Ask(dom0_, XS_CONTROL, "help|"), "ENOSYS"); }

TEST_F(Malformed, PathWithoutNul) {
  for (uint32_t type : {XS_READ, XS_DIRECTORY, XS_GET_PERMS, XS_MKDIR, XS_RM, XS_WRITE}) {
    EXPECT_EQ(c_.Ask(dom0_, type, "/tool"), "EINVAL") << type;
  }
}

TEST_F(Malformed, EmptyPayload) {
  for (uint32_t type :
       {XS_READ, XS_DIRECTORY, XS_DIRECTORY_PART, XS_GET_PERMS, XS_SET_PERMS, XS_MKDIR, XS_RM,
        XS_WRITE, XS_WATCH, XS_UNWATCH, XS_TRANSACTION_END, XS_INTRODUCE, XS_RELEASE, XS_RESUME,
        XS_SET_TARGET, XS_GET_DOMAIN_PATH, XS_IS_DOMAIN_INTRODUCED}) {
    EXPECT_EQ(c_.Ask(dom0_, type, ""), "EINVAL") << type;
  }
}

TEST_F(Malformed, SecondStringAfterThePath) {
  EXPECT_EQ(c_.Ask(dom0_, XS_READ, "/tool|x|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_RM, "/tool|x"), "EINVAL");
}

TEST_F(Malformed, WatchWithoutTokenOrWithThreeStrings) {
  EXPECT_EQ(c_.Ask(dom0_, XS_WATCH, "/x|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_WATCH, "/x|t"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_WATCH, "/x|t|u|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_UNWATCH, "/x|"), "EINVAL");
}

TEST_F(Malformed, HugeTokenIsTakenAndComesBackWhole) {
  const std::string token(4096 - 4, 't');
  EXPECT_EQ(c_.Watch(dom0_, "/x", token), "OK");
  EXPECT_THAT(c_.Events(dom0_), ElementsAre("/x " + token));
}

TEST_F(Malformed, PermissionsWithoutEntriesOrWithWrongOnes) {
  EXPECT_EQ(c_.Ask(dom0_, XS_SET_PERMS, "/tool|"), "EINVAL");
  EXPECT_EQ(c_.Permit(dom0_, "/tool", "x0"), "EINVAL");
  EXPECT_EQ(c_.Permit(dom0_, "/tool", ""), "EINVAL");
  EXPECT_EQ(c_.Permit(dom0_, "/tool", "r"), "EINVAL");
  EXPECT_EQ(c_.Permit(dom0_, "/tool", "r0|r"), "EINVAL");
  EXPECT_EQ(c_.Permissions(dom0_, "/tool"), "n0");
}

TEST_F(Malformed, DirectoryPartWithOffsetsOutsideTheList) {
  for (const char* offset : {"100", "-1", "x", "99999999999999999999"}) {
    const std::string answer =
        c_.Ask(dom0_, XS_DIRECTORY_PART, "/tool/xenstored|" + std::string(offset) + "|");
    EXPECT_EQ(answer.back(), '|') << offset;
  }
  EXPECT_EQ(c_.Ask(dom0_, XS_DIRECTORY_PART, "/tool|"), "EINVAL");
}

TEST_F(Malformed, IntroduceWithTooFewArgumentsNoPortOrNoDomain) {
  EXPECT_EQ(c_.Ask(dom0_, XS_INTRODUCE, "6|1|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_INTRODUCE, "6|1|0|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_INTRODUCE, "6|1|-1|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_INTRODUCE, "70000|1|1|"), "EINVAL");
  EXPECT_FALSE(c_.operations().IsIntroduced(6));
}

TEST_F(Malformed, ReleaseOfDomainZeroOrAnUnknownOne) {
  EXPECT_EQ(c_.Ask(dom0_, XS_RELEASE, "0|"), "EINVAL");
  EXPECT_EQ(c_.Ask(dom0_, XS_RELEASE, "77|"), "ENOENT");
  EXPECT_EQ(c_.Ask(dom0_, XS_RESUME, "77|"), "ENOENT");
  EXPECT_EQ(c_.Ask(dom0_, XS_SET_TARGET, "77|5|"), "ENOENT");
}

TEST_F(Malformed, PrivilegedRequestsOfAGuest) {
  EXPECT_EQ(c_.Ask(guest_, XS_INTRODUCE, "6|1|1|"), "EACCES");
  EXPECT_EQ(c_.Ask(guest_, XS_RELEASE, "5|"), "EACCES");
  EXPECT_EQ(c_.Ask(guest_, XS_SET_TARGET, "5|0|"), "EACCES");
  EXPECT_EQ(c_.Ask(guest_, XS_RESUME, "5|"), "EACCES");
  EXPECT_EQ(c_.Ask(guest_, XS_IS_DOMAIN_INTRODUCED, "0|"), "EACCES");
}

TEST_F(Malformed, DomainIdsAreReadAsLenientlyAsXenstoredDoes) {
  EXPECT_EQ(c_.Ask(dom0_, XS_GET_DOMAIN_PATH, "5x|"), "/local/domain/5");
  EXPECT_EQ(c_.Ask(dom0_, XS_IS_DOMAIN_INTRODUCED, "5|"), "T");
  EXPECT_EQ(c_.Ask(dom0_, XS_IS_DOMAIN_INTRODUCED, "70005|"), "F");
}

}  // namespace
}  // namespace vmsg::emu::store
