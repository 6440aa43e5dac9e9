// SPDX-License-Identifier: Apache-2.0
// WINDOW_EXTEND and WINDOW_WITHDRAW.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/bus/bus_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::IsEmpty;
using wire::WindowResult;

// The rig's window is one segment of 128 pages; 256 are allowed.
class WindowRequestsTest : public BusRig {
 protected:
  static WindowResult Result(const Received& received) {
    return static_cast<WindowResult>(received.message().spec->id == wire::MessageId::kWindowExtend
                                         ? received.As<wire::WindowExtendResponse>().result
                                         : received.As<wire::WindowWithdrawResponse>().result);
  }
  // Extends by `pages`, mapped; returns the first page.
  uint32_t Extend(uint32_t pages) {
    Send(0, 50, wire::WindowExtendRequest{1000, pages});
    AnswerMap(pages_.MapPages(pages));
    const Received received = ReceiveOne();
    EXPECT_EQ(Result(received), WindowResult::kOk);
    return received.As<wire::WindowExtendResponse>().first_page;
  }
};

TEST_F(WindowRequestsTest, ExtensionIsMappedElsewhereAndAddedAtTheEnd) {
  Send(0, 50, wire::WindowExtendRequest{1000, 16});
  ASSERT_EQ(mapper_.maps.size(), 1u);
  EXPECT_EQ(mapper_.maps[0].directory, 1000u);
  EXPECT_EQ(mapper_.maps[0].pages, 16u);
  EXPECT_THAT(Receive(), IsEmpty()) << "not before it is mapped";
  EXPECT_EQ(Call<wire::PingResponse>(0, wire::PingRequest{5}).data, 5u) << "the bus goes on";
  AnswerMap(pages_.MapPages(16));
  const Received received = ReceiveOne();
  EXPECT_EQ(received.token(), 50);
  EXPECT_EQ(Result(received), WindowResult::kOk);
  EXPECT_EQ(received.As<wire::WindowExtendResponse>().first_page, 128u);
  EXPECT_EQ(memory_.window().mapped_pages(), 144u);
}

TEST_F(WindowRequestsTest, ExtensionOverTheLimitIsRefusedBeforeAnythingIsMapped) {
  for (uint32_t pages : {129u, 0xffffffffu}) {
    Send(0, 50, wire::WindowExtendRequest{1000, pages});
    EXPECT_EQ(Result(ReceiveOne()), WindowResult::kLimit);
  }
  EXPECT_THAT(mapper_.maps, IsEmpty());
}

TEST_F(WindowRequestsTest, ExtensionByNothingIsInvalid) {
  Send(0, 50, wire::WindowExtendRequest{1000, 0});
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kInvalid);
}

TEST_F(WindowRequestsTest, BadDirectoryAndFailedMappingAreToldApart) {
  Send(0, 50, wire::WindowExtendRequest{1000, 16});
  AnswerMap(absl::InvalidArgumentError("the list ends early"));
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kInvalid);
  Send(0, 51, wire::WindowExtendRequest{1000, 16});
  AnswerMap(absl::ResourceExhaustedError("out of handles"));
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kMapFailed);
  Send(0, 52, wire::WindowExtendRequest{1000, 16});
  AnswerMap(absl::OutOfRangeError("this guest may map 3 more, over all its buses"));
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kLimit);
  EXPECT_EQ(memory_.window().mapped_pages(), 128u);
}

TEST_F(WindowRequestsTest, WithdrawalIsAnsweredWhenUnmapped) {
  const uint32_t first = Extend(16);
  Send(0, 60, wire::WindowWithdrawRequest{first, 16});
  ASSERT_EQ(mapper_.unmaps.size(), 1u);
  EXPECT_EQ(mapper_.unmaps[0].pages, 16u);
  EXPECT_THAT(Receive(), IsEmpty());
  AnswerUnmap();
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kOk);
  EXPECT_EQ(memory_.window().mapped_pages(), 128u);
}

TEST_F(WindowRequestsTest, WithdrawalWaitsForBuffersInFlight) {
  AddDevice(4);
  RingDriver ring = GoLive(4);
  const uint32_t first = Extend(16);
  Offer(ring, 4, 0, uint64_t{first} * 4096);
  ASSERT_EQ(devices_[4]->held.size(), 1u);
  Send(0, 60, wire::WindowWithdrawRequest{first, 16});
  EXPECT_THAT(mapper_.unmaps, IsEmpty());
  // From now on its addresses are refused.
  Offer(ring, 4, 1, uint64_t{first} * 4096);
  EXPECT_EQ(devices_[4]->held.size(), 1u);
  // The driver need not want to hear of the buffer for the withdrawal to go on.
  ring.SetNoInterrupt(true);
  devices_[4]->ReturnOne();
  Run();
  ASSERT_EQ(mapper_.unmaps.size(), 1u);
  AnswerUnmap();
  std::vector<Received> all = Receive();
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(Result(all.back()), WindowResult::kOk);
}

TEST_F(WindowRequestsTest, WithdrawalUnderAQueueIsRefused) {
  AddDevice(4);
  const uint32_t first = Extend(32);
  GoLive(4, uint64_t{first} * 4096);
  Send(0, 60, wire::WindowWithdrawRequest{first, 32});
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kInUse);
  Call<wire::SetDeviceStatusResponse>(4, wire::SetDeviceStatusRequest{0});
  Send(0, 61, wire::WindowWithdrawRequest{first, 32});
  AnswerUnmap();
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kOk);
}

TEST_F(WindowRequestsTest, WithdrawalOfNoSegmentIsNotFound) {
  const uint32_t first = Extend(16);
  const std::vector<std::pair<uint32_t, uint32_t>> wrong = {
      {first, 8}, {first + 1, 15}, {first - 1, 17}, {0, 144}, {0xffffffff, 0xffffffff}, {first, 0}};
  for (const auto& [page, pages] : wrong) {
    Send(0, 60, wire::WindowWithdrawRequest{page, pages});
    EXPECT_EQ(Result(ReceiveOne()), WindowResult::kNotFound) << page << " " << pages;
  }
}

TEST_F(WindowRequestsTest, WithdrawnSegmentCannotBeWithdrawnAgain) {
  const uint32_t first = Extend(16);
  Send(0, 60, wire::WindowWithdrawRequest{first, 16});
  AnswerUnmap();
  Receive();
  Send(0, 61, wire::WindowWithdrawRequest{first, 16});
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kNotFound);
  EXPECT_EQ(Extend(16), first + 16) << "numbers are not used again";
}

TEST_F(WindowRequestsTest, InitialWindowCanBeWithdrawnWhenNothingUsesIt) {
  Extend(16);
  Send(0, 60, wire::WindowWithdrawRequest{0, 128});
  AnswerUnmap();
  EXPECT_EQ(Result(ReceiveOne()), WindowResult::kOk);
}

TEST_F(WindowRequestsTest, RequestsAreServedOneAfterTheOther) {
  Push(0, 50, wire::WindowExtendRequest{1000, 16});
  Push(0, 51, wire::WindowExtendRequest{2000, 8});
  Push(0, 52, wire::WindowWithdrawRequest{128, 16});
  Publish();
  ASSERT_EQ(mapper_.maps.size(), 1u);
  AnswerMap(pages_.MapPages(16));
  ASSERT_EQ(mapper_.maps.size(), 1u);
  EXPECT_EQ(mapper_.maps[0].directory, 2000u);
  AnswerMap(pages_.MapPages(8));
  AnswerUnmap();
  const std::vector<Received> all = Receive();
  ASSERT_EQ(all.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(all[i].token(), 50 + i);
    EXPECT_EQ(Result(all[i]), WindowResult::kOk);
  }
}

TEST_F(WindowRequestsTest, FloodOfRequestsIsHeldBackAndAllAreAnswered) {
  for (uint16_t i = 0; i < 30; ++i) Push(0, i, wire::WindowExtendRequest{1000, 1});
  Publish();
  EXPECT_LE(endpoint_->counters().messages_received, backend::kMaxPendingWindowRequests + 2);
  size_t answers = 0;
  while (!mapper_.maps.empty()) {
    AnswerMap(pages_.MapPages(1));
    answers += Receive().size();
  }
  EXPECT_EQ(answers, 30u);
}

TEST_F(WindowRequestsTest, ClosingWaitsForTheMapperAndKeepsWhatItMapped) {
  Send(0, 50, wire::WindowExtendRequest{1000, 16});
  Push(0, 51, wire::WindowExtendRequest{2000, 8});
  Publish();
  bool closed = false;
  endpoint_->Close([&] { closed = true; });
  Run();
  EXPECT_FALSE(closed);
  AnswerMap(pages_.MapPages(16));
  EXPECT_TRUE(closed);
  EXPECT_THAT(mapper_.maps, IsEmpty());
  EXPECT_EQ(memory_.window().mapped_pages(), 144u) << "for the session's end to unmap";
  endpoint_.reset();
}

class WindowSegmentsTest : public BusRig {
 protected:
  WindowSegmentsTest() : BusRig(8192, true, TestMessageSize(), 1024) {}
};

// What is mapped and then refused is unmapped by the thread that serves other guests too.
TEST_F(WindowSegmentsTest, ExtensionByASegmentTooManyIsRefusedBeforeAnythingIsMapped) {
  while (memory_.window().Append(pages_.MapPages(1), 1024).ok()) {
  }
  ASSERT_LT(memory_.window().mapped_pages(), 1024u) << "the segments are what is short";
  Send(0, 50, wire::WindowExtendRequest{1000, 16});
  ASSERT_THAT(mapper_.maps, IsEmpty());
  const auto response = ReceiveOne().As<wire::WindowExtendResponse>();
  EXPECT_EQ(response.result, static_cast<uint32_t>(WindowResult::kLimit));
  ASSERT_EQ(problems_.size(), 1u);
  EXPECT_THAT(problems_[0].second, ::testing::HasSubstr("256 segments"));
}

}  // namespace
}  // namespace vmsg::testing
