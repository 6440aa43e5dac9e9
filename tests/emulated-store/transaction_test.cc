// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/emulated-store/conversation.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Transactions : public ::testing::Test {
 protected:
  Conversation c_;
  Session& a_ = c_.Join(0);
  Session& b_ = c_.Join(0);
};

TEST_F(Transactions, ChangesAreSeenInsideOnlyUntilTheCommit) {
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Write(a_, "/x/y", "v", tx), "OK");
  EXPECT_EQ(c_.Read(a_, "/x/y", tx), "v");
  EXPECT_EQ(c_.Read(a_, "/x/y"), "ENOENT");
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
  EXPECT_EQ(c_.Read(b_, "/x/y"), "v");
}

TEST_F(Transactions, AbortLeavesNothing) {
  uint32_t tx = c_.Begin(a_);
  c_.Write(a_, "/x", "v", tx);
  EXPECT_EQ(c_.Ask(a_, XS_TRANSACTION_END, "F|", tx), "OK");
  EXPECT_EQ(c_.Read(a_, "/x"), "ENOENT");
  EXPECT_EQ(c_.Read(a_, "/x", tx), "ENOENT") << "the id is gone";
}

TEST_F(Transactions, ReadNodeChangedByOthersConflicts) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Read(a_, "/x", tx), "1");
  c_.Write(b_, "/x", "2");
  EXPECT_EQ(c_.Read(a_, "/x", tx), "1") << "stays as it was first seen";
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, NodeSeenMissingAndThenCreatedConflicts) {
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Read(a_, "/x", tx), "ENOENT");
  c_.Write(b_, "/x", "2");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, RemovedNodeConflicts) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Read(a_, "/x", tx);
  c_.Remove(b_, "/x");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, RemovedAndMadeAgainConflicts) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Read(a_, "/x", tx);
  c_.Remove(b_, "/x");
  c_.Write(b_, "/x", "1");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, SameValueWrittenAgainConflicts) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Read(a_, "/x", tx);
  c_.Write(b_, "/x", "1");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, ChangedPermissionsConflict) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Read(a_, "/x", tx);
  c_.Permit(b_, "/x", "n0|r5");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, NewSiblingConflictsWithACreation) {
  c_.Write(a_, "/dir/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Write(a_, "/dir/y", "1", tx);
  c_.Write(b_, "/dir/z", "1");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN") << "both changed the list of /dir";
}

TEST_F(Transactions, ChangeElsewhereDoesNotConflict) {
  c_.Write(a_, "/x", "1");
  c_.Write(a_, "/y", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Read(a_, "/x", tx);
  c_.Write(a_, "/x", "2", tx);
  c_.Write(b_, "/y", "2");
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
}

TEST_F(Transactions, NodeChangedBeforeItWasTouchedDoesNotConflict) {
  c_.Write(a_, "/x", "1");
  uint32_t tx = c_.Begin(a_);
  c_.Write(b_, "/x", "2");
  EXPECT_EQ(c_.Read(a_, "/x", tx), "2") << "a node joins in the state it has when first touched";
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
}

TEST_F(Transactions, TwoThatReadWhatTheOtherWritesCannotBothCommit) {
  c_.Write(a_, "/x", "1");
  c_.Write(a_, "/y", "1");
  uint32_t ta = c_.Begin(a_), tb = c_.Begin(b_);
  c_.Read(a_, "/x", ta);
  c_.Read(b_, "/y", tb);
  c_.Write(a_, "/y", "2", ta);
  c_.Write(b_, "/x", "2", tb);
  EXPECT_EQ(c_.Commit(a_, ta), "OK");
  EXPECT_EQ(c_.Commit(b_, tb), "EAGAIN");
}

TEST_F(Transactions, FailedCommitFiresNothing) {
  c_.Write(a_, "/x", "1");
  c_.Watch(b_, "/x", "t");
  c_.Events(b_);
  uint32_t tx = c_.Begin(a_);
  c_.Write(a_, "/x", "2", tx);
  c_.Write(a_, "/x", "3");
  c_.Events(b_);
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
  EXPECT_THAT(c_.Events(b_), IsEmpty());
}

TEST_F(Transactions, WatchesFireAtTheCommitInTheOrderOfTouching) {
  c_.Watch(b_, "/x", "t");
  c_.Events(b_);
  uint32_t tx = c_.Begin(a_);
  c_.Write(a_, "/x/b", "1", tx);
  c_.Write(a_, "/x/a", "1", tx);
  c_.Write(a_, "/x/b", "2", tx);
  EXPECT_THAT(c_.Events(b_), IsEmpty());
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
  EXPECT_THAT(c_.Events(b_), ElementsAre("/x/b t", "/x/a t"));
}

TEST_F(Transactions, RemovalInsideFiresForChildrenOnlyWhereTheyAreWatched) {
  c_.Write(a_, "/x/y", "1");
  c_.Watch(b_, "/x", "parent");
  c_.Watch(b_, "/x/y", "child");
  c_.Events(b_);
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Remove(a_, "/x", tx), "OK");
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
  EXPECT_THAT(c_.Events(b_), ElementsAre("/x parent", "/x/y child"));
}

TEST_F(Transactions, CreatedAndRemovedInsideLeavesNothing) {
  uint32_t tx = c_.Begin(a_);
  c_.Write(a_, "/x", "1", tx);
  EXPECT_EQ(c_.Remove(a_, "/x", tx), "OK");
  EXPECT_EQ(c_.Read(a_, "/x", tx), "ENOENT");
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
  EXPECT_EQ(c_.Read(a_, "/x"), "ENOENT");
  EXPECT_EQ(c_.List(a_, "/"), "tool");
}

TEST_F(Transactions, RemovalOfAChildThatJoinedAfterItsParentIsAnError) {
  uint32_t tx = c_.Begin(a_);
  c_.List(a_, "/", tx);
  c_.Write(b_, "/new", "1");
  EXPECT_EQ(c_.Remove(a_, "/new", tx), "EIO");
  EXPECT_EQ(c_.Commit(a_, tx), "EAGAIN");
}

TEST_F(Transactions, UnknownIdIsRefused) { EXPECT_EQ(c_.Read(a_, "/", 77), "ENOENT"); }

TEST_F(Transactions, IdOfAnotherConnectionIsRefused) {
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Read(b_, "/", tx), "ENOENT");
}

TEST_F(Transactions, CannotBeNested) {
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Ask(a_, XS_TRANSACTION_START, "|", tx), "EBUSY");
}

TEST_F(Transactions, EndWithoutOneIsRefused) {
  EXPECT_EQ(c_.Ask(a_, XS_TRANSACTION_END, "T|"), "ENOENT");
}

TEST_F(Transactions, EndWithAnotherWordIsRefusedAndKeepsIt) {
  uint32_t tx = c_.Begin(a_);
  EXPECT_EQ(c_.Ask(a_, XS_TRANSACTION_END, "X|", tx), "EINVAL");
  EXPECT_EQ(c_.Ask(a_, XS_TRANSACTION_END, "T", tx), "EINVAL");
  EXPECT_EQ(c_.Commit(a_, tx), "OK");
}

TEST_F(Transactions, WatchIgnoresTheId) { EXPECT_EQ(c_.Ask(a_, XS_WATCH, "/x|t|", 77), "OK"); }

TEST_F(Transactions, ElevenMayBeOpenAndAreFreedByResetWatches) {
  Session& guest = c_.NewGuest(5);
  for (int i = 0; i < 11; ++i) ASSERT_NE(c_.Begin(guest), 0u) << i;
  EXPECT_EQ(c_.Ask(guest, XS_TRANSACTION_START, "|"), "ENOSPC");
  EXPECT_EQ(c_.Ask(guest, XS_RESET_WATCHES, "|"), "OK");
  EXPECT_NE(c_.Begin(guest), 0u);
  for (int i = 0; i < 50; ++i) ASSERT_NE(c_.Begin(a_), 0u) << "domain 0 has no limit";
}

// CVE-2026-23557: xenstored ended.
TEST_F(Transactions, ResetWatchesWithinOneEndsItAndNoMore) {
  Session& guest = c_.NewGuest(5);
  const uint32_t tx = c_.Begin(guest);
  EXPECT_EQ(c_.Ask(guest, XS_RESET_WATCHES, "|", tx), "OK");
  EXPECT_EQ(c_.Commit(guest, tx), "ENOENT");
  EXPECT_NE(c_.Begin(guest), 0u);
}

TEST_F(Transactions, TransactionQuotaIsTheDomainsNotTheConnections) {
  Session& guest = c_.NewGuest(5);
  Session& second = c_.Join(5);
  for (int i = 0; i < 11; ++i) ASSERT_NE(c_.Begin(guest), 0u);
  EXPECT_EQ(c_.Ask(second, XS_TRANSACTION_START, "|"), "ENOSPC");
  c_.operations().Detach(guest);
  EXPECT_NE(c_.Begin(second), 0u);
}

TEST_F(Transactions, TouchingTooManyNodesSpoilsIt) {
  Options options;
  options.quotas.transaction_nodes = 10;
  Conversation c(options);
  Session& guest = c.NewGuest(5);
  uint32_t tx = c.Begin(guest);
  std::string answer;
  for (int i = 0; i < 10 && answer != "ENOSPC"; ++i) {
    answer = c.Read(guest, absl::StrCat("x", i), tx);
  }
  EXPECT_EQ(answer, "ENOSPC");
  EXPECT_EQ(c.Commit(guest, tx), "ENOMEM");
}

TEST_F(Transactions, OversizeNodeInsideSpoilsIt) {
  Session& guest = c_.NewGuest(5);
  uint32_t tx = c_.Begin(guest);
  EXPECT_EQ(c_.Write(guest, "x", std::string(2100, 'v'), tx), "ENOSPC");
  EXPECT_EQ(c_.Commit(guest, tx), "ENOMEM");
}

TEST_F(Transactions, NodeQuotaIsCheckedAtTheCommit) {
  Options options;
  options.quotas.nodes = 3;
  Conversation c(options);
  Session& guest = c.NewGuest(5);
  uint32_t tx = c.Begin(guest);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(c.MakeDirectory(guest, absl::StrCat("x", i), tx), "OK");
  EXPECT_EQ(c.Commit(guest, tx), "ENOSPC");
  EXPECT_EQ(c.List(guest, "/local/domain/5"), "");
}

}  // namespace
}  // namespace vmsg::emu::store
