// SPDX-License-Identifier: Apache-2.0
// A console's output when its reader is slow, does not read, leaves or is not there.
#include "tests/devices/console/console_rig.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ConsoleOutputTest : public ConsoleTest {};

// A guest's kernel waits for each buffer with a lock held: none may wait for a reader.
TEST_P(ConsoleOutputTest, AReaderThatDoesNotReadStopsNothingAndFindsTheNewest) {
  const backend::UniqueFd user = Attach();
  const uint32_t kChunk = 256 * 1024;
  const int kChunks = 16;
  // Each place of the output can be told from the others.
  std::string text;
  while (text.size() < kChunk * kChunks) text += std::to_string(text.size()) + "\n";
  text.resize(kChunk * kChunks);
  for (int i = 0; i < kChunks; ++i) {
    rig_->Put(kConsoleBuffer, text.substr(uint64_t{kChunk} * i, kChunk));
    const uint16_t head =
        rig_->Submit(wire::kConsoleTransmitQueue, {{kConsoleBuffer, kChunk, false}});
    rig_->Kick(wire::kConsoleTransmitQueue);
    std::vector<UsedEntry> used;
    ASSERT_TRUE(loop_.RunUntil([&] {
      return !(used = rig_->Used(wire::kConsoleTransmitQueue)).empty();
    })) << i;
    EXPECT_THAT(used, ElementsAre(UsedEntry{head, 0}));
  }
  EXPECT_TRUE(loop_.Settle()) << "a busy loop";
  // Input is not held up.
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer + 1024 * 1024, 16, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  ASSERT_EQ(write(user.get(), "q", 1), 1);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(wire::kConsoleReceiveQueue).empty(); }));

  // What the kernel took before it was full, and behind a gap the newest.
  ASSERT_GT(unread(), 0u);
  const std::string seen = UserReads(user, text.size() - unread());
  EXPECT_TRUE(loop_.Settle());
  const size_t newest = backend::OutputBacklog::kCapacity;
  ASSERT_GT(seen.size(), newest);
  EXPECT_TRUE(seen.substr(seen.size() - newest) == text.substr(text.size() - newest));
  EXPECT_TRUE(seen.substr(0, seen.size() - newest) == text.substr(0, seen.size() - newest));
  EXPECT_EQ(unattached(), 0u);

  GuestWrites("awake again");
  EXPECT_EQ(UserReads(user, 11), "awake again");
}

// One chain may be as long as the window: a turn moves a bounded part, and of what would be pushed
// out again nothing is copied.
TEST_P(ConsoleOutputTest, AFloodOfOutputEndsItsTurn) {
  const backend::UniqueFd user = Attach();
  const uint32_t kPiece = 4 << 20;
  std::vector<DeviceRig::Buffer> pieces(16, {kConsoleBuffer, kPiece, false});
  rig_->Put(kConsoleBuffer, std::string(kPiece, 'x'));
  const uint16_t head = rig_->Submit(wire::kConsoleTransmitQueue, pieces);
  rig_->Kick(wire::kConsoleTransmitQueue);
  EXPECT_THAT(rig_->Used(wire::kConsoleTransmitQueue), IsEmpty()) << "64 MiB in one turn";
  EXPECT_GE(unread(), 60u << 20) << "skipped, not copied";
  int turns = 1;
  std::vector<UsedEntry> used;
  for (; used.empty() && turns < 100; ++turns) {
    loop_.Turn();
    used = rig_->Used(wire::kConsoleTransmitQueue);
  }
  EXPECT_THAT(used, ElementsAre(UsedEntry{head, 0})) << turns << " turns";
}

// A reader that is slower than the guest, but reads, loses nothing that the backlog can hold.
TEST_P(ConsoleOutputTest, ASlowReaderLosesNothingWithinTheBound) {
  const backend::UniqueFd user = Attach();
  const uint32_t kChunk = 64 * 1024;
  std::string expected;
  std::string seen;
  for (int i = 0; i < 64; ++i) {
    const std::string text(kChunk, static_cast<char>('A' + i % 26));
    GuestWrites(text);
    EXPECT_EQ(rig_->Used(wire::kConsoleTransmitQueue).size(), 1u);
    expected += text;
    seen += UserReads(user, std::min<size_t>(kChunk - 1, expected.size() - seen.size()));
  }
  seen += UserReads(user, expected.size() - seen.size());
  EXPECT_TRUE(seen == expected);
  EXPECT_EQ(unread(), 0u);
}

TEST_P(ConsoleOutputTest, OutputIsDroppedAndCountedWhileNobodyIsAttached) {
  GuestWrites("booting...");
  EXPECT_EQ(rig_->Used(wire::kConsoleTransmitQueue).size(), 1u) << "the guest does not stand still";
  EXPECT_EQ(unattached(), 10u);
  EXPECT_EQ(unread(), 0u);
  const backend::UniqueFd user = Attach();
  GuestWrites("login: ");
  EXPECT_EQ(UserReads(user, 7), "login: ");
}

TEST_P(ConsoleOutputTest, AUserWhoLeavesTakesWhatWaitedAndAnotherMayCome) {
  backend::UniqueFd user = Attach();
  rig_->Put(kConsoleBuffer, std::string(1 << 20, 'x'));
  rig_->Submit(wire::kConsoleTransmitQueue, {{kConsoleBuffer, 1 << 20, false}});
  rig_->Kick(wire::kConsoleTransmitQueue);
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(rig_->queue(wire::kConsoleTransmitQueue)->in_flight(), 0u);
  EXPECT_EQ(unread(), 0u) << "it waits for the reader";
  user = backend::UniqueFd();
  ASSERT_TRUE(loop_.RunUntil([&] { return unread() > 0; })) << "and goes with it";
  EXPECT_TRUE(loop_.Settle()) << "a hung-up terminal must not keep the loop busy";

  user = Attach();
  rig_->Submit(wire::kConsoleReceiveQueue, {{kConsoleBuffer + (2 << 20), 16, true}});
  rig_->Kick(wire::kConsoleReceiveQueue);
  ASSERT_EQ(write(user.get(), "again", 5), 5);
  ASSERT_TRUE(loop_.RunUntil([&] { return !rig_->Used(wire::kConsoleReceiveQueue).empty(); }));
  EXPECT_EQ(rig_->Get(kConsoleBuffer + (2 << 20), 5), "again");
}

TEST_P(ConsoleOutputTest, LastWordsReachAReaderThatReads) {
  const backend::UniqueFd user = Attach();
  const std::string text(800'000, 'x');
  GuestWrites(text);
  EXPECT_TRUE(loop_.Settle());  // a turn takes less
  rig_->BeginReset();
  ASSERT_FALSE(device_->Settle(*rig_));
  EXPECT_TRUE(UserReads(user, text.size()) == text);
  ASSERT_TRUE(loop_.RunUntil([&] { return rig_->settled() == 1; })) << "once it is read";
  EXPECT_EQ(unread(), 0u);
  rig_->EndReset();
}

TEST_P(ConsoleOutputTest, LastWordsDoNotWaitForAReaderThatDoesNotRead) {
  const backend::UniqueFd user = Attach();
  GuestWrites(std::string(800'000, 'x'));
  EXPECT_TRUE(loop_.Settle());
  rig_->BeginReset();
  ASSERT_FALSE(device_->Settle(*rig_));
  EXPECT_TRUE(loop_.Settle());
  loop_.Advance(backend::kConsoleStall);  // it has taken some until now
  loop_.Advance(backend::kConsoleStall);
  EXPECT_EQ(rig_->settled(), 1);
  EXPECT_GT(unread(), 0u);
  ASSERT_EQ(rig_->reports().size(), 1u);
  EXPECT_THAT(std::string(rig_->reports()[0].message()),
              ::testing::HasSubstr(absl::StrCat("the last ", unread(), " bytes of output")));
  rig_->EndReset();
}

// What a slow reader holds up is limited: here it takes some in each of its intervals.
TEST_P(ConsoleOutputTest, LastWordsEndForAReaderThatIsSlow) {
  const backend::UniqueFd user = Attach();
  GuestWrites(std::string(1 << 20, 'x'));
  EXPECT_TRUE(loop_.Settle());
  GuestWrites(std::string(1 << 20, 'y'));
  EXPECT_TRUE(loop_.Settle());
  rig_->BeginReset();
  ASSERT_FALSE(device_->Settle(*rig_));
  const absl::Time begin = loop_.Now();
  char some[65536];
  const absl::Duration step = backend::kConsoleStall - absl::Milliseconds(1);
  while (rig_->settled() == 0 && loop_.Now() - begin < 2 * backend::kConsoleLastWords) {
    EXPECT_GT(read(user.get(), some, sizeof some), 0);
    EXPECT_TRUE(loop_.Settle());
    loop_.Advance(step);
    ASSERT_FALSE(rig_->settled() == 1 && loop_.Now() - begin < backend::kConsoleLastWords);
  }
  EXPECT_LT(loop_.Now() - begin, backend::kConsoleLastWords + step);
  EXPECT_EQ(rig_->reports().size(), 1u);
  rig_->EndReset();
}

TEST_P(ConsoleOutputTest, LastWordsDoNotWaitForAReaderWhoLeaves) {
  backend::UniqueFd user = Attach();
  GuestWrites(std::string(800'000, 'x'));
  rig_->BeginReset();
  ASSERT_FALSE(device_->Settle(*rig_));
  user = backend::UniqueFd();
  EXPECT_TRUE(loop_.RunUntil([&] { return rig_->settled() == 1; }));
  EXPECT_GT(unread(), 0u);
  rig_->EndReset();
}

// A chain that is longer than what a turn moves, when its queue ends.
TEST_P(ConsoleOutputTest, TheRestOfAChainThatIsNotTakenWholeIsCounted) {
  GuestWrites("nobody is there");
  const backend::UniqueFd user = Attach();
  GuestWrites(std::string(1 << 20, 'x'));
  Reset();
  char bytes[65536];
  uint64_t seen = 0;
  for (ssize_t got; (got = read(user.get(), bytes, sizeof bytes)) > 0;) seen += got;
  EXPECT_EQ(seen + unread(), 1u << 20);
}

INSTANTIATE_TEST_SUITE_P(Terminals, ConsoleOutputTest, ::testing::Values("pty", "socket"));

}  // namespace
}  // namespace vmsg::testing
