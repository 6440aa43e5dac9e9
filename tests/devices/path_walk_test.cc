// SPDX-License-Identifier: Apache-2.0
// Which symbolic links are followed. Links of several users need root to make them.
#include "backend/devices/path_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/devices/temp_dir.h"

namespace vmsg::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uid_t kUser = 4001;
constexpr uid_t kOther = 4002;

class PathWalkTest : public ::testing::Test {
 protected:
  // "" when the path leads to `file`.
  static std::string Walk(const std::string& path, const std::string& file) {
    auto found = backend::WalkPath(path);
    if (!found.ok()) return std::string(found.status().message());
    struct stat there = {};
    struct stat expected = {};
    if (fstat(found->get(), &there) != 0 || stat(file.c_str(), &expected) != 0) return "no stat";
    return there.st_dev == expected.st_dev && there.st_ino == expected.st_ino ? "" : "another file";
  }
  void Link(const std::string& target, const std::string& name, uid_t owner) {
    ASSERT_EQ(symlink(target.c_str(), (dir_ / name).c_str()), 0);
    if (owner == geteuid()) return;
    if (lchown((dir_ / name).c_str(), owner, owner) != 0) GTEST_SKIP() << "needs root";
  }
  std::string FileOf(const std::string& name, uid_t owner) {
    const std::string path = dir_.File(name, 1);
    if (chown(path.c_str(), owner, owner) != 0) ADD_FAILURE() << "needs root";
    return path;
  }

  TempDir dir_;
};

TEST_F(PathWalkTest, PathsWithoutLinks) {
  const std::string file = dir_.File("file", 1);
  EXPECT_EQ(Walk(file, file), "");
  EXPECT_EQ(Walk(dir_ / ".//./file", file), "");
  EXPECT_EQ(Walk("/..//" + file, file), "");
  EXPECT_EQ(Walk(dir_ / "../" + std::filesystem::path(dir_ / "").parent_path().filename().string() +
                     "/file",
                 file),
            "");
  EXPECT_EQ(Walk("/", "/"), "");
  EXPECT_EQ(Walk(dir_ / "", dir_ / "."), "");
  EXPECT_THAT(Walk(dir_ / "none", file), HasSubstr("No such file"));
  EXPECT_THAT(Walk(dir_ / "none/file", file), AllOf(HasSubstr("none"), HasSubstr("No such file")));
  EXPECT_THAT(Walk(file + "/", file), HasSubstr("Not a directory"));
  EXPECT_THAT(Walk(file + "/x", file), HasSubstr("Not a directory"));
}

TEST_F(PathWalkTest, OwnLinksLeadAnywhere) {
  const std::string file = dir_.File("file", 1);
  std::filesystem::create_directory(dir_ / "sub");
  Link("file", "relative", geteuid());
  Link(file, "absolute", geteuid());
  Link("../relative", "sub/twice", geteuid());
  Link("sub", "directory", geteuid());
  for (const char* path : {"relative", "absolute", "sub/twice", "directory/twice"}) {
    EXPECT_EQ(Walk(dir_ / path, file), "") << path;
  }
  Link("nowhere", "dangling", geteuid());
  EXPECT_THAT(Walk(dir_ / "dangling", file), AllOf(HasSubstr("nowhere"), HasSubstr("No such")));
  EXPECT_THAT(Walk(dir_ / "relative/", file), HasSubstr("Not a directory"));
}

TEST_F(PathWalkTest, LinksThatGoInCirclesOrOnAndOnEnd) {
  Link("b", "a", geteuid());
  Link("a", "b", geteuid());
  EXPECT_THAT(Walk(dir_ / "a", "/"), HasSubstr("Too many levels"));
  Link("grows/" + std::string(2000, 'x'), "grows", geteuid());
  EXPECT_THAT(Walk(dir_ / "grows/file", "/"), HasSubstr("Too many levels"));
}

TEST_F(PathWalkTest, AUsersLinkLeadsToWhatIsTheUsers) {
  if (geteuid() != 0) GTEST_SKIP() << "only root makes links of other users";
  const std::string own = FileOf("own", kUser);
  const std::string roots = FileOf("roots", 0);
  const std::string others = FileOf("others", kOther);
  Link("own", "to-own", kUser);
  Link("roots", "to-roots", kUser);
  Link("others", "to-others", kUser);
  EXPECT_EQ(Walk(dir_ / "to-own", own), "");
  EXPECT_THAT(Walk(dir_ / "to-roots", roots),
              AllOf(HasSubstr("\"to-roots\""), HasSubstr("user 4001"), HasSubstr("user 0"),
                    HasSubstr("let root make the link")));
  EXPECT_THAT(Walk(dir_ / "to-others", others), HasSubstr("user 4002"));
}

TEST_F(PathWalkTest, EveryLinkOnTheWayCounts) {
  if (geteuid() != 0) GTEST_SKIP() << "only root makes links of other users";
  std::filesystem::create_directory(dir_ / "roots");
  const std::string file = dir_.File("roots/file", 1);
  const std::string own = FileOf("roots/own", kUser);
  Link("roots", "directory", kUser);
  EXPECT_THAT(Walk(dir_ / "directory/file", file), HasSubstr("\"directory\""));
  EXPECT_EQ(Walk(dir_ / "directory/own", own), "");
  Link("directory/file", "root-made", 0);
  EXPECT_THAT(Walk(dir_ / "root-made", file), HasSubstr("\"directory\""));
  EXPECT_THAT(Walk(dir_ / "directory/../directory/", dir_ / "roots"), HasSubstr("user 4001"));
}

}  // namespace
}  // namespace vmsg::testing
