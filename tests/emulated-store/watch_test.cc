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

class Watches : public ::testing::Test {
 protected:
  Conversation c_;
  Session& dom0_ = c_.Join(0);
  Session& watcher_ = c_.Join(0);
  Session& guest_ = c_.NewGuest(5);
};

TEST_F(Watches, FirstEventFollowsTheAnswer) {
  c_.operations().Handle(watcher_, {.type = XS_WATCH, .payload = std::string("/x\0t\0", 5)});
  EXPECT_THAT(TakeOutput(watcher_), ElementsAre("OK", "EVENT /x t"));
}

TEST_F(Watches, OwnChangesEventComesBeforeTheAnswer) {
  c_.Watch(watcher_, "/x", "t");
  TakeOutput(watcher_);
  c_.operations().Handle(watcher_, {.type = XS_WRITE, .payload = std::string("/x\0v", 4)});
  EXPECT_THAT(TakeOutput(watcher_), ElementsAre("EVENT /x t", "OK"));
}

TEST_F(Watches, FireForTheNodeAndBelowButNotBeside) {
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  c_.Write(dom0_, "/x", "1");
  c_.Write(dom0_, "/x/y/z", "1");
  c_.Write(dom0_, "/xx", "1");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x t", "/x/y/z t"));
}

TEST_F(Watches, ParentsMadeOnTheWayDoNotFire) {
  c_.Watch(watcher_, "/x/y", "t");
  c_.Events(watcher_);
  c_.Write(dom0_, "/x/y/z/w", "1");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x/y/z/w t"));
}

TEST_F(Watches, RemovalOfAParentFiresForTheWatchedChild) {
  c_.Write(dom0_, "/x/y/z", "1");
  c_.Watch(watcher_, "/x/y", "t");
  c_.Events(watcher_);
  c_.Remove(dom0_, "/x");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x/y t"));
}

TEST_F(Watches, RemovalFiresOnceForAWatchedParent) {
  c_.Write(dom0_, "/x/y/z", "1");
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  c_.Remove(dom0_, "/x/y");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x/y t"));
}

TEST_F(Watches, RemovalOfAMissingNodeDoesNotFire) {
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  EXPECT_EQ(c_.Remove(dom0_, "/x"), "OK");
  EXPECT_THAT(c_.Events(watcher_), IsEmpty());
}

TEST_F(Watches, MakeDirectoryFiresOnlyWhenItCreates) {
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  c_.MakeDirectory(dom0_, "/x");
  c_.MakeDirectory(dom0_, "/x");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x t"));
}

TEST_F(Watches, ChangedPermissionsFire) {
  c_.Write(dom0_, "/x", "1");
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  c_.Permit(dom0_, "/x", "n0|r5");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x t"));
}

TEST_F(Watches, RelativeWatchGetsRelativePaths) {
  c_.Watch(guest_, "device", "t");
  c_.Write(guest_, "device/vbd", "1");
  EXPECT_THAT(c_.Events(guest_), ElementsAre("device/vbd t"));
  c_.Remove(guest_, "device");
  EXPECT_THAT(c_.Events(guest_), ElementsAre("device t"));
}

TEST_F(Watches, AbsoluteWatchGetsAbsolutePaths) {
  c_.Watch(guest_, "/local/domain/5/device", "t");
  c_.Write(guest_, "device", "1");
  EXPECT_THAT(c_.Events(guest_), ElementsAre("/local/domain/5/device t"));
}

TEST_F(Watches, GuestHearsNothingOfWhatItMayNotRead) {
  EXPECT_EQ(c_.Watch(guest_, "/secret", "t"), "OK");
  c_.Events(guest_);
  c_.Write(dom0_, "/secret", "1");
  c_.Write(dom0_, "/secret/x", "1");
  EXPECT_THAT(c_.Events(guest_), IsEmpty());
}

TEST_F(Watches, ReadableParentIsEnoughToHear) {
  c_.Write(dom0_, "/dir", "");
  c_.Permit(dom0_, "/dir", "r0");
  c_.Watch(guest_, "/dir", "t");
  c_.Write(dom0_, "/dir/x", "1");
  c_.Permit(dom0_, "/dir/x", "n0");
  c_.Events(guest_);
  c_.Write(dom0_, "/dir/x", "2");
  EXPECT_THAT(c_.Events(guest_), ElementsAre("/dir/x t"));
}

TEST_F(Watches, GuestThatLosesItsRightsHearsOfThat) {
  c_.Write(dom0_, "/dir/x", "1");
  c_.Permit(dom0_, "/dir/x", "n0|r5");
  c_.Watch(guest_, "/dir/x", "t");
  c_.Events(guest_);
  c_.Permit(dom0_, "/dir/x", "n0");
  EXPECT_THAT(c_.Events(guest_), ElementsAre("/dir/x t"));
  c_.Write(dom0_, "/dir/x", "2");
  EXPECT_THAT(c_.Events(guest_), IsEmpty());
}

TEST_F(Watches, SameTokenForTwoPathsAndTwoTokensForOnePath) {
  c_.Watch(watcher_, "/x", "t");
  EXPECT_EQ(c_.Watch(watcher_, "/y", "t"), "OK");
  EXPECT_EQ(c_.Watch(watcher_, "/x", "u"), "OK");
  EXPECT_EQ(c_.Watch(watcher_, "/x", "t"), "EEXIST");
  c_.Events(watcher_);
  c_.Write(dom0_, "/x", "1");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x t", "/x u"));
}

TEST_F(Watches, UnwatchNeedsPathAndToken) {
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  EXPECT_EQ(c_.Ask(watcher_, XS_UNWATCH, "/x|u|"), "ENOENT");
  EXPECT_EQ(c_.Ask(watcher_, XS_UNWATCH, "/y|t|"), "ENOENT");
  EXPECT_EQ(c_.Ask(watcher_, XS_UNWATCH, "/x|t|"), "OK");
  c_.Write(dom0_, "/x", "1");
  EXPECT_THAT(c_.Events(watcher_), IsEmpty());
}

TEST_F(Watches, ResetTakesAllOfThisConnection) {
  c_.Watch(watcher_, "/x", "t");
  c_.Watch(dom0_, "/x", "t");
  c_.Events(watcher_);
  EXPECT_EQ(c_.Ask(watcher_, XS_RESET_WATCHES, "|"), "OK");
  c_.Write(guest_, "/local/domain/5/y", "1");
  c_.Write(dom0_, "/x", "1");
  EXPECT_THAT(c_.Events(watcher_), IsEmpty());
}

TEST_F(Watches, EqualEventsThatWaitAreFolded) {
  c_.Watch(watcher_, "/x", "t");
  c_.Events(watcher_);
  for (int i = 0; i < 1000; ++i) c_.Write(dom0_, absl::StrCat("/x/", i % 2), "v");
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/x/0 t", "/x/1 t"));
}

TEST_F(Watches, HundredAndTwentyNineAreAllowed) {
  for (int i = 0; i < 129; ++i) ASSERT_EQ(c_.Watch(guest_, absl::StrCat("x", i), "t"), "OK") << i;
  EXPECT_EQ(c_.Watch(guest_, "y", "t"), "E2BIG");
  Session& second = c_.Join(5);
  EXPECT_EQ(c_.Watch(second, "y", "t"), "E2BIG") << "the quota is the domain's";
  EXPECT_EQ(c_.Ask(guest_, XS_UNWATCH, "x0|t|"), "OK");
  EXPECT_EQ(c_.Watch(guest_, "y", "t"), "OK");
  for (int i = 0; i < 300; ++i) ASSERT_EQ(c_.Watch(dom0_, absl::StrCat("/x", i), "t"), "OK");
}

TEST_F(Watches, InvalidPathIsRefused) {
  EXPECT_EQ(c_.Watch(guest_, "a//b", "t"), "EINVAL");
  EXPECT_EQ(c_.Watch(guest_, absl::StrCat("@", std::string(2048, 'x')), "t"), "EINVAL");
}

TEST_F(Watches, EventTooLongForAMessageIsNotSent) {
  // Together with the token the path of the change does not fit into a payload.
  c_.Watch(watcher_, "/x", std::string(3000, 't'));
  c_.Events(watcher_);
  c_.Write(dom0_, absl::StrCat("/x/", std::string(1500, 'y')), "v");
  EXPECT_THAT(c_.Events(watcher_), IsEmpty());
}

TEST_F(Watches, IntroduceAndReleaseFireForDomainZeroOnly) {
  for (Session* session : {&watcher_, &guest_}) {
    EXPECT_EQ(c_.Watch(*session, "@introduceDomain", "in"), "OK");
    EXPECT_EQ(c_.Watch(*session, "@releaseDomain", "out"), "OK");
    c_.Events(*session);
  }
  EXPECT_TRUE(c_.operations().Introduce(6));
  EXPECT_FALSE(c_.operations().Introduce(6)) << "known already";
  EXPECT_TRUE(c_.operations().Release(6));
  EXPECT_FALSE(c_.operations().Release(6));
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("@introduceDomain in", "@releaseDomain out"));
  EXPECT_THAT(c_.Events(guest_), IsEmpty());
}

TEST_F(Watches, SpecialPathCanBeOpenedToADriverDomain) {
  EXPECT_EQ(c_.Permit(guest_, "@releaseDomain", "n0|r5"), "EACCES");
  EXPECT_EQ(c_.Permit(dom0_, "@releaseDomain", "n0|r5"), "OK");
  EXPECT_EQ(c_.Permit(dom0_, "@other", "n0|r5"), "EINVAL");
  c_.Watch(guest_, "@releaseDomain", "out");
  c_.Events(guest_);
  c_.operations().Introduce(6);
  c_.operations().Release(6);
  EXPECT_THAT(c_.Events(guest_), ElementsAre("@releaseDomain out"));
}

TEST_F(Watches, ShutDownFiresReleaseOnceUntilResumed) {
  c_.Watch(watcher_, "@releaseDomain", "out");
  c_.Events(watcher_);
  EXPECT_TRUE(c_.operations().ShutDown(5));
  EXPECT_TRUE(c_.operations().ShutDown(5));
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("@releaseDomain out"));
  EXPECT_EQ(c_.Ask(dom0_, XS_RESUME, "5|"), "OK");
  EXPECT_TRUE(c_.operations().ShutDown(5));
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("@releaseDomain out"));
}

TEST_F(Watches, NodesOfAReleasedDomainFireAsRemoved) {
  c_.Write(guest_, "device/x", "1");
  c_.Watch(watcher_, "/local/domain/5/device", "t");
  c_.Events(watcher_);
  c_.operations().Release(5);
  EXPECT_THAT(c_.Events(watcher_), ElementsAre("/local/domain/5/device t"));
}

}  // namespace
}  // namespace vmsg::emu::store
