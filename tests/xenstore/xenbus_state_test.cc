// SPDX-License-Identifier: Apache-2.0
#include "xenstore/xenbus_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

namespace vmsg::xenstore {
namespace {

using enum XenbusState;

BusAction Act(XenbusState ours, bool connected, std::optional<XenbusState> frontend,
              bool online = true, bool asking = false) {
  return NextAction({ours, connected, frontend, online, asking});
}

std::optional<XenbusState> Column(int column) {
  if (column == 0) return std::nullopt;
  return static_cast<XenbusState>(column - 1);
}

char Letter(BusAction action) {
  switch (action) {
    case BusAction::kNone:
      return 'o';
    case BusAction::kOffer:
      return 'O';
    case BusAction::kConnect:
      return 'C';
    case BusAction::kAsk:
      return 'A';
    case BusAction::kQuiesce:
      return 'Q';
    case BusAction::kUnmapAndClose:
      return 'U';
    case BusAction::kReoffer:
      return 'R';
    case BusAction::kTearDownAndReoffer:
      return 'T';
    case BusAction::kForget:
      return 'F';
  }
  return '?';
}

// The rows of the table of transitions, by name.

TEST(XenbusTable, FreshBusIsOffered) {
  EXPECT_EQ(Act(kInitialising, false, kInitialising), BusAction::kOffer);
}
TEST(XenbusTable, Frontend3WhileNotConnectedConnects) {
  EXPECT_EQ(Act(kInitWait, false, kInitialised), BusAction::kConnect);
}
TEST(XenbusTable, Frontend4WhileNotConnectedConnects) {
  EXPECT_EQ(Act(kInitWait, false, kConnected), BusAction::kConnect);
}
TEST(XenbusTable, ConnectionOfAKilledBackendIsClosedBecauseItsDirectoryMayHoldAnythingByNow) {
  EXPECT_EQ(Act(kConnected, false, kConnected), BusAction::kUnmapAndClose);
  EXPECT_EQ(Act(kConnected, false, kInitialised), BusAction::kUnmapAndClose);
}
TEST(XenbusTable, Our5StaysUntilTheFrontendShows6) {
  EXPECT_EQ(Act(kConnected, true, kClosing), BusAction::kQuiesce);
  EXPECT_EQ(Act(kClosing, true, kClosing), BusAction::kNone);
  EXPECT_EQ(Act(kClosing, true, kClosed), BusAction::kUnmapAndClose);
  // Also when there was nothing, or it was a predecessor's: what the frontend waits for is the
  // same.
  EXPECT_EQ(Act(kInitWait, false, kClosing), BusAction::kQuiesce);
  EXPECT_EQ(Act(kConnected, false, kClosing), BusAction::kQuiesce);
  EXPECT_EQ(Act(kClosing, false, kClosing), BusAction::kNone);
}
TEST(XenbusTable, Our6StaysUntilTheFrontendShows1) {
  EXPECT_EQ(Act(kConnected, true, kClosed), BusAction::kUnmapAndClose);
  EXPECT_EQ(Act(kClosed, false, kClosed), BusAction::kNone);
  EXPECT_EQ(Act(kClosed, false, kInitialising), BusAction::kReoffer);
}
TEST(XenbusTable, Frontend1WhileWeAre6OffersAgain) {
  EXPECT_EQ(Act(kClosed, false, kInitialising), BusAction::kReoffer);
}
TEST(XenbusTable, Frontend1WhileConnectedIsAKexec) {
  EXPECT_EQ(Act(kConnected, true, kInitialising), BusAction::kTearDownAndReoffer);
}
TEST(XenbusTable, FrontendGoneTearsDown) {
  EXPECT_EQ(Act(kConnected, true, std::nullopt), BusAction::kUnmapAndClose);
  EXPECT_EQ(Act(kClosed, false, std::nullopt), BusAction::kNone);
}
TEST(XenbusTable, Online0AndWeAre6Forgets) {
  EXPECT_EQ(Act(kClosed, false, kConnected, false), BusAction::kForget);
  EXPECT_EQ(Act(kClosed, false, std::nullopt, false), BusAction::kForget);
}
TEST(XenbusTable, Online0WhileConnectedEndsInOrder) {
  EXPECT_EQ(Act(kConnected, true, kConnected, false), BusAction::kQuiesce);
  EXPECT_EQ(Act(kClosing, true, kConnected, false), BusAction::kUnmapAndClose);
  EXPECT_EQ(Act(kClosed, false, kConnected, false), BusAction::kForget);
}
TEST(XenbusTable, Online0AsksDriversThatAreAtWork) {
  EXPECT_EQ(Act(kConnected, true, kConnected, false, /*asking=*/true), BusAction::kAsk);
  EXPECT_EQ(Act(kConnected, true, kClosing, false, /*asking=*/true), BusAction::kQuiesce);
  EXPECT_EQ(Act(kConnected, true, kClosed, false, /*asking=*/true), BusAction::kUnmapAndClose);
  EXPECT_EQ(Act(kConnected, true, std::nullopt, false, /*asking=*/true), BusAction::kUnmapAndClose);
  std::string cells;
  for (int column = 0; column < 10; ++column) {
    cells += Letter(Act(kConnected, true, Column(column), false, /*asking=*/true));
  }
  EXPECT_EQ(cells, "UUQAAAQUAA");
}
TEST(XenbusTable, RefusedRequestIsNotTriedAgainUntilTheFrontendMoves) {
  EXPECT_EQ(Act(kClosed, false, kInitialised), BusAction::kNone);
  EXPECT_EQ(Act(kClosed, false, kConnected), BusAction::kNone);
}
TEST(XenbusTable, GuestDirectoryThatGivesNoStateCountsAsGone) {
  EXPECT_EQ(Act(kConnected, true, kUnknown), BusAction::kUnmapAndClose);
}

// Every cell, decided on purpose. A column for each of: gone, 0, 1 ... 8.
// o none, O offer, C connect, A ask, Q quiesce, U unmap and close, R reoffer, T tear down and
// reoffer, F forget.
struct ExpectedRow {
  XenbusState ours;
  bool connected;
  bool online;
  const char* cells;
};
constexpr ExpectedRow kExpected[] = {
    {kUnknown, false, true, "UUOOOOOOOO"},       {kInitialising, false, true, "UUOOOOOOOO"},
    {kInitWait, false, true, "UUooCCQUoo"},      {kInitialised, false, true, "UUOOOOOOOO"},
    {kConnected, false, true, "UURUUUQUUU"},     {kClosing, false, true, "UUUUUUoUUU"},
    {kClosed, false, true, "ooRooooooo"},        {kReconfiguring, false, true, "UUOOOOOOOO"},
    {kReconfigured, false, true, "UUOOOOOOOO"},  {kUnknown, true, true, "UUToooQUoo"},
    {kInitialising, true, true, "UUToooQUoo"},   {kInitWait, true, true, "UUToooQUoo"},
    {kInitialised, true, true, "UUToooQUoo"},    {kConnected, true, true, "UUToooQUoo"},
    {kClosing, true, true, "UUUUUUoUUU"},        {kClosed, true, true, "UUUUUUUUUU"},
    {kReconfiguring, true, true, "UUToooQUoo"},  {kReconfigured, true, true, "UUToooQUoo"},
    {kUnknown, false, false, "UUUUUUUUUU"},      {kInitialising, false, false, "UUUUUUUUUU"},
    {kInitWait, false, false, "UUUUUUUUUU"},     {kInitialised, false, false, "UUUUUUUUUU"},
    {kConnected, false, false, "UUUUUUUUUU"},    {kClosing, false, false, "UUUUUUUUUU"},
    {kClosed, false, false, "FFFFFFFFFF"},       {kReconfiguring, false, false, "UUUUUUUUUU"},
    {kReconfigured, false, false, "UUUUUUUUUU"}, {kUnknown, true, false, "UUQQQQQUQQ"},
    {kInitialising, true, false, "UUQQQQQUQQ"},  {kInitWait, true, false, "UUQQQQQUQQ"},
    {kInitialised, true, false, "UUQQQQQUQQ"},   {kConnected, true, false, "UUQQQQQUQQ"},
    {kClosing, true, false, "UUUUUUUUUU"},       {kClosed, true, false, "UUUUUUUUUU"},
    {kReconfiguring, true, false, "UUQQQQQUQQ"}, {kReconfigured, true, false, "UUQQQQQUQQ"},
};

TEST(XenbusTable, EveryCellIsDecided) {
  static_assert(std::size(kExpected) == 9 * 2 * 2);
  for (const ExpectedRow& row : kExpected) {
    std::string cells;
    for (int column = 0; column < 10; ++column) {
      cells += Letter(Act(row.ours, row.connected, Column(column), row.online));
    }
    EXPECT_EQ(cells, row.cells) << "ours " << StateName(row.ours) << " connected " << row.connected
                                << " online " << row.online;
  }
}

// What a backend that follows the action ends up with.
BusSituation Follow(BusSituation situation, BusAction action) {
  switch (action) {
    case BusAction::kNone:
    case BusAction::kAsk:
    case BusAction::kForget:
      break;
    case BusAction::kOffer:
    case BusAction::kReoffer:
      EXPECT_FALSE(situation.connected) << "offered while pages were still mapped";
      situation.ours = kInitWait;
      break;
    case BusAction::kConnect:
      EXPECT_FALSE(situation.connected) << "connected twice";
      situation.ours = kConnected;
      situation.connected = true;
      break;
    case BusAction::kQuiesce:
      situation.ours = kClosing;
      break;
    case BusAction::kUnmapAndClose:
      situation.connected = false;
      situation.ours = kClosed;
      break;
    case BusAction::kTearDownAndReoffer:
      situation.connected = false;
      situation.ours = kInitWait;
      break;
  }
  return situation;
}

TEST(XenbusTable, ComesToRestWithinFourStepsWhateverTheFrontendShows) {
  for (const ExpectedRow& row : kExpected) {
    for (int column = 0; column < 10; ++column) {
      BusSituation situation{row.ours, row.connected, Column(column), row.online};
      int steps = 0;
      BusAction action = NextAction(situation);
      while (action != BusAction::kNone && action != BusAction::kForget && steps < 10) {
        situation = Follow(situation, action);
        action = NextAction(situation);
        ++steps;
      }
      EXPECT_LE(steps, 4) << "ours " << StateName(row.ours) << " column " << column;
      if (!row.online) {
        EXPECT_EQ(action, BusAction::kForget);
      }
      if (situation.ours == kClosed) {
        EXPECT_FALSE(situation.connected) << "6 promises that nothing is mapped";
      }
    }
  }
}

TEST(XenbusTable, AStateOutOfRangeIsNoIndex) {
  EXPECT_EQ(Act(kConnected, true, static_cast<XenbusState>(200)), BusAction::kUnmapAndClose);
  EXPECT_EQ(StateName(static_cast<XenbusState>(200)), "Unknown");
}

TEST(ParseState, TakesTheStates) {
  for (int state = 0; state <= 8; ++state) {
    absl::StatusOr<XenbusState> parsed = ParseState(std::to_string(state));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(static_cast<int>(*parsed), state);
    EXPECT_EQ(StateText(*parsed), std::to_string(state));
  }
}

struct BadState {
  const char* name;
  std::string text;
};
class ParseStateRefuses : public testing::TestWithParam<BadState> {};
TEST_P(ParseStateRefuses, It) {
  EXPECT_TRUE(absl::IsInvalidArgument(ParseState(GetParam().text).status()));
}
INSTANTIATE_TEST_SUITE_P(
    Values, ParseStateRefuses,
    testing::Values(BadState{"Empty", ""}, BadState{"Negative", "-1"},
                    BadState{"AboveTheLast", "9"}, BadState{"Huge", std::string(4000, '4')},
                    BadState{"Garbage", "Connected"}, BadState{"TrailingGarbage", "4x"},
                    BadState{"TrailingNewline", "4\n"}, BadState{"Nul", std::string(1, '\0')},
                    BadState{"TrailingNul", std::string("4\0", 2)},
                    BadState{"Wraps", "4294967300"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace vmsg::xenstore
