// SPDX-License-Identifier: Apache-2.0
// Nodes, their permissions and the quotas, as clients see them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/emulated-store/conversation.h"
#include "tools/xen-emu/store/tree/paths.h"
#include "tools/xen-emu/store/tree/permissions.h"

extern "C" {
#include <xen/io/xs_wire.h>
}

namespace vmsg::emu::store {
namespace {

TEST(Paths, RulesOfNames) {
  EXPECT_TRUE(IsValidPath("/"));
  EXPECT_TRUE(IsValidPath("/a-b/c_d/@e/0"));
  EXPECT_FALSE(IsValidPath(""));
  EXPECT_FALSE(IsValidPath("a"));
  EXPECT_FALSE(IsValidPath("/a/"));
  EXPECT_FALSE(IsValidPath("/a//b"));
  EXPECT_FALSE(IsValidPath("/a b"));
  EXPECT_FALSE(IsValidPath("/a.b"));
  EXPECT_FALSE(IsValidPath("/\xc3\xa4"));
}

TEST(Paths, LengthIsCountedWithoutTheDomainsDirectory) {
  EXPECT_TRUE(IsValidPath("/" + std::string(2047, 'x')));
  EXPECT_FALSE(IsValidPath("/" + std::string(2048, 'x')));
  EXPECT_TRUE(IsValidPath("/local/domain/12345/" + std::string(2048, 'x')));
  EXPECT_FALSE(IsValidPath("/local/domain/12345/" + std::string(2049, 'x')));
  EXPECT_FALSE(IsValidPath("/local/domain/123456/" + std::string(2040, 'x')));
}

TEST(Paths, ParentsAndDescendants) {
  EXPECT_EQ(ParentOf("/a/b"), "/a");
  EXPECT_EQ(ParentOf("/a"), "/");
  EXPECT_EQ(ParentOf("/"), "/");
  EXPECT_TRUE(IsAtOrBelow("/a/b", "/a"));
  EXPECT_TRUE(IsAtOrBelow("/a", "/a"));
  EXPECT_TRUE(IsAtOrBelow("/a", "/"));
  EXPECT_FALSE(IsAtOrBelow("/ab", "/a"));
  EXPECT_FALSE(IsAtOrBelow("/a", "/a/b"));
}

TEST(PermissionEntries, ParseAndFormat) {
  const std::string text("n0\0r5\0w6\0b7\0", 12);
  auto parsed = ParsePermissions(text);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(FormatPermissions(*parsed), text);
  for (const char* wrong : {"x5", "r", "5", "r5x", "rr5"}) {
    EXPECT_FALSE(ParsePermissions(std::string(wrong) + '\0').has_value()) << wrong;
  }
  EXPECT_FALSE(ParsePermissions("").has_value());
  EXPECT_FALSE(ParsePermissions("r5").has_value()) << "no NUL";
}

TEST(PermissionEntries, OwnerListedAndOthers) {
  const Permissions permissions = {{5, kNoRights}, {6, kRead}, {7, kWrite}, {6, kWrite}};
  EXPECT_EQ(RightsOf({.domain = 0, .privileged = true}, permissions), kRead | kWrite | kOwner);
  EXPECT_EQ(RightsOf({.domain = 5, .privileged = false}, permissions), kRead | kWrite | kOwner);
  EXPECT_EQ(RightsOf({.domain = 6, .privileged = false}, permissions), kRead) << "first entry wins";
  EXPECT_EQ(RightsOf({.domain = 7, .privileged = false}, permissions), kWrite);
  EXPECT_EQ(RightsOf({.domain = 8, .privileged = false}, permissions), kNoRights);
  EXPECT_EQ(RightsOf({.domain = 8, .privileged = false, .target = 5}, permissions),
            kRead | kWrite | kOwner);
}

TEST(PermissionEntries, StaleEntryGrantsNothing) {
  const Permissions permissions = {{0, kNoRights}, {.domain = 6, .rights = kRead, .stale = true}};
  EXPECT_EQ(RightsOf({.domain = 6, .privileged = false}, permissions), kNoRights);
}

class Tree : public ::testing::Test {
 protected:
  Conversation c_;
  Session& dom0_ = c_.Join(0);
  Session& guest_ = c_.NewGuest(5);
};

TEST_F(Tree, StartsAsXenstoredDoes) {
  EXPECT_EQ(c_.List(dom0_, "/tool"), "xenstored");
  EXPECT_EQ(c_.Permissions(dom0_, "/"), "n0");
}

TEST_F(Tree, WriteCreatesParents) {
  EXPECT_EQ(c_.Write(dom0_, "/a/b/c", "v"), "OK");
  EXPECT_EQ(c_.Read(dom0_, "/a/b/c"), "v");
  EXPECT_EQ(c_.Read(dom0_, "/a/b"), "");
  EXPECT_EQ(c_.List(dom0_, "/a"), "b");
}

TEST_F(Tree, ValueMayHoldNuls) {
  c_.AskRaw(dom0_, XS_WRITE, std::string("/a\0x\0y\0", 7));
  EXPECT_EQ(c_.Read(dom0_, "/a"), "x|y|");
}

TEST_F(Tree, MakeDirectoryOfExistingNodeKeepsItsValue) {
  c_.Write(dom0_, "/a", "v");
  EXPECT_EQ(c_.MakeDirectory(dom0_, "/a"), "OK");
  EXPECT_EQ(c_.Read(dom0_, "/a"), "v");
}

TEST_F(Tree, RemoveTakesEverythingBelow) {
  c_.Write(dom0_, "/a/b/c", "v");
  c_.Write(dom0_, "/a/d", "v");
  EXPECT_EQ(c_.Remove(dom0_, "/a/b"), "OK");
  EXPECT_EQ(c_.Read(dom0_, "/a/b/c"), "ENOENT");
  EXPECT_EQ(c_.List(dom0_, "/a"), "d");
}

TEST_F(Tree, RemoveOfMissingNodeIsFineBelowAnExistingOne) {
  EXPECT_EQ(c_.Remove(dom0_, "/missing"), "OK");
  EXPECT_EQ(c_.Remove(dom0_, "/missing/child"), "ENOENT");
}

TEST_F(Tree, RootCannotBeRemoved) { EXPECT_EQ(c_.Remove(dom0_, "/"), "EINVAL"); }

TEST_F(Tree, RelativePathsAreBelowTheDomainsOwnDirectory) {
  EXPECT_EQ(c_.Write(guest_, "x/y", "v"), "OK");
  EXPECT_EQ(c_.Read(dom0_, "/local/domain/5/x/y"), "v");
  EXPECT_EQ(c_.Write(dom0_, "x", "zero"), "OK");
  EXPECT_EQ(c_.Read(dom0_, "/local/domain/0/x"), "zero");
}

TEST_F(Tree, InvalidPathIsRefused) {
  EXPECT_EQ(c_.Read(guest_, "/a/"), "EINVAL");
  EXPECT_EQ(c_.Write(guest_, "", "v"), "EINVAL");
  EXPECT_EQ(c_.Read(dom0_, "@introduceDomain"), "EINVAL");
}

TEST_F(Tree, ChildrenInheritPermissionsAndGuestOwnsWhatItCreates) {
  c_.Write(dom0_, "/shared", "");
  c_.Permit(dom0_, "/shared", "b0|r6");
  EXPECT_EQ(c_.Write(guest_, "/shared/x/y", "v"), "OK");
  EXPECT_EQ(c_.Permissions(dom0_, "/shared/x"), "b5|r6");
  EXPECT_EQ(c_.Write(dom0_, "/shared/x/z", "v"), "OK");
  EXPECT_EQ(c_.Permissions(dom0_, "/shared/x/z"), "b5|r6") << "domain 0 does not take ownership";
}

TEST_F(Tree, ReadWriteAndOwnerRightsAreChecked) {
  c_.Write(dom0_, "/r", "v");
  c_.Permit(dom0_, "/r", "n0|r5");
  EXPECT_EQ(c_.Read(guest_, "/r"), "v");
  EXPECT_EQ(c_.Write(guest_, "/r", "x"), "EACCES");
  EXPECT_EQ(c_.Permit(guest_, "/r", "n0|b5"), "EACCES");
  c_.Permit(dom0_, "/r", "n0|w5");
  EXPECT_EQ(c_.Read(guest_, "/r"), "EACCES");
  EXPECT_EQ(c_.Write(guest_, "/r", "x"), "OK");
}

TEST_F(Tree, MissingNodeIsDeniedWhereTheGuestMayNotLook) {
  c_.Write(dom0_, "/secret", "");
  EXPECT_EQ(c_.Read(guest_, "/secret/a"), "EACCES");
  EXPECT_EQ(c_.Read(guest_, "mine"), "ENOENT");
}

TEST_F(Tree, GuestCannotGiveItsNodesAway) {
  c_.Write(guest_, "x", "v");
  EXPECT_EQ(c_.Permit(guest_, "x", "n0"), "EPERM");
  EXPECT_EQ(c_.Permit(guest_, "x", "n5|r0"), "OK");
}

TEST_F(Tree, OwnerMustExist) {
  Options options;
  options.domain_exists = [](uint16_t domain) { return domain != 9; };
  Conversation c(options);
  Session& dom0 = c.Join(0);
  c.Write(dom0, "/a", "");
  EXPECT_EQ(c.Permit(dom0, "/a", "n9"), "ENOENT");
  EXPECT_EQ(c.Permit(dom0, "/a", "n0|r9"), "OK");
}

TEST_F(Tree, TargetsRightsAreShared) {
  Session& model = c_.NewGuest(6);
  EXPECT_EQ(c_.Write(model, "/local/domain/5/x", "v"), "EACCES");
  EXPECT_EQ(c_.Ask(dom0_, XS_SET_TARGET, "6|5|"), "OK");
  EXPECT_EQ(c_.Write(model, "/local/domain/5/x", "v"), "OK");
}

TEST_F(Tree, ReleasedDomainsNodesGoAndItsEntriesGrantNothingToASuccessor) {
  c_.Write(dom0_, "/backend/x", "v");
  c_.Permit(dom0_, "/backend/x", "n0|r5");
  c_.Write(guest_, "data", "v");
  ASSERT_TRUE(c_.operations().Release(5));
  EXPECT_EQ(c_.Read(dom0_, "/local/domain/5"), "ENOENT");
  EXPECT_EQ(c_.Permissions(dom0_, "/backend/x"), "n0|r5") << "still listed";
  Session& successor = c_.NewGuest(5);
  EXPECT_EQ(c_.Read(successor, "/backend/x"), "EACCES");
}

TEST_F(Tree, DirectoryTooLongForAMessageIsListedInParts) {
  std::string names;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(c_.MakeDirectory(dom0_, absl::StrCat("/many/child", i)), "OK");
    absl::StrAppend(&names, "child", i, "|");
  }
  EXPECT_EQ(c_.List(dom0_, "/many"), "E2BIG");
  std::string listed, generation;
  for (int part = 0; part < 5; ++part) {
    std::string answer =
        c_.Ask(dom0_, XS_DIRECTORY_PART, absl::StrCat("/many|", listed.size(), "|"));
    // Without the last NUL, which Ask takes off: it ends either the last name or the list.
    const size_t bar = answer.find('|');
    if (part == 0) generation = answer.substr(0, bar);
    EXPECT_EQ(answer.substr(0, bar), generation) << "nothing changed in between";
    listed += answer.substr(bar + 1);
    if (listed.size() == names.size()) break;
    listed += "|";
  }
  EXPECT_EQ(listed, names);
}

class NodeQuotas : public Tree {};

TEST_F(NodeQuotas, ThousandNodes) {
  // The guest's own directory counts.
  for (int i = 1; i < 1000; ++i) {
    ASSERT_EQ(c_.MakeDirectory(guest_, absl::StrCat("d", i % 20, "/", i / 20)), "OK") << i;
    if (c_.operations().nodes().size() >= 1000) break;
  }
  int refused = 0;
  for (int i = 0; i < 30; ++i) {
    if (c_.MakeDirectory(guest_, absl::StrCat("more/", i)) == "ENOSPC") ++refused;
  }
  EXPECT_GT(refused, 0);
  EXPECT_EQ(c_.Write(dom0_, "/unlimited", "v"), "OK");
}

TEST_F(NodeQuotas, LastAllowedNodeIsTheThousandth) {
  for (int i = 1; i < 1000; ++i) {
    // Two levels, so that no list of children grows past the quota on a node's size.
    const std::string parent = absl::StrCat("p", i / 100);
    if (i % 100 == 0 || i == 1) {
      ASSERT_EQ(c_.MakeDirectory(guest_, parent), "OK") << i;
    } else {
      ASSERT_EQ(c_.MakeDirectory(guest_, absl::StrCat(parent, "/", i)), "OK") << i;
    }
  }
  EXPECT_EQ(c_.MakeDirectory(guest_, "one-more"), "ENOSPC");
  EXPECT_EQ(c_.Remove(guest_, "p1/101"), "OK");
  EXPECT_EQ(c_.MakeDirectory(guest_, "one-more"), "OK");
}

TEST_F(NodeQuotas, RefusedCreationLeavesNoParentsBehind) {
  Options options;
  options.quotas.nodes = 3;
  Conversation c(options);
  Session& dom0 = c.Join(0);
  Session& guest = c.NewGuest(5);
  EXPECT_EQ(c.Write(guest, "a/b/c", "v"), "ENOSPC");
  EXPECT_EQ(c.List(dom0, "/local/domain/5"), "");
  EXPECT_EQ(c.Write(guest, "a/b", "v"), "OK") << "what was undone does not count";
}

TEST_F(NodeQuotas, SizeOfANode) {
  // 24 bytes and 8 for the one permission count, and the limit itself is too much.
  EXPECT_EQ(c_.Write(guest_, "x", std::string(2015, 'v')), "OK");
  EXPECT_EQ(c_.Write(guest_, "x", std::string(2016, 'v')), "ENOSPC");
  EXPECT_EQ(c_.Read(guest_, "x"), std::string(2015, 'v'));
  EXPECT_EQ(c_.Write(dom0_, "/local/domain/5/x", std::string(4000, 'v')), "OK");
}

TEST_F(NodeQuotas, NamesOfChildrenCountForTheSizeOfTheirParent) {
  EXPECT_EQ(c_.MakeDirectory(guest_, std::string(1500, 'a')), "OK");
  EXPECT_EQ(c_.MakeDirectory(guest_, std::string(600, 'b')), "ENOSPC");
  EXPECT_EQ(c_.List(guest_, std::string(600, 'b')), "ENOENT");
}

TEST_F(NodeQuotas, FivePermissions) {
  c_.Write(guest_, "x", "v");
  EXPECT_EQ(c_.Permit(guest_, "x", "n5|r0|r1|r2|r3"), "OK");
  EXPECT_EQ(c_.Permit(guest_, "x", "n5|r0|r1|r2|r3|r4"), "ENOSPC");
  EXPECT_EQ(c_.Permit(dom0_, "/local/domain/5/x", "n5|r0|r1|r2|r3|r4"), "OK");
}

}  // namespace
}  // namespace vmsg::emu::store
