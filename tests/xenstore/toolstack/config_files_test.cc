// SPDX-License-Identifier: Apache-2.0
// Which of the files that lie in the directories of configs is whose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <random>

#include "tests/xenstore/toolstack/introductions_rig.h"
#include "xenstore/introduction/config_catalog.h"

namespace vmsg::xenstore {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ConfigFilesTest : public IntroductionsRig {};

TEST_F(ConfigFilesTest, TwoFilesWithEntriesAreRefusedWithBothPathsAndALinkIsOneFile) {
  const std::string one = Config("g1.cfg", "g1", R"("type=rng")");
  std::filesystem::create_symlink("../g1.cfg", directory_ + "/auto/g1.cfg");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("attached 5")));
  tree_.DestroyDomain(5);
  const std::string two = Config("copy.cfg", "g1", R"("type=rng", "type=rng")");
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("refused 6"), HasSubstr(one), HasSubstr(two))));
  // One without entries does not count.
  Write("copy.cfg", "name = \"g1\"\n# virtio_msg = []\n");
  tree_.CreateDomain(7, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("attached 7")));
}

TEST_F(ConfigFilesTest, CopiesThatSayTheSameAreOneAndTheFirstDirectorysIsTaken) {
  Config("auto/a.cfg", "g1", R"("type=rng")");
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  // Another backend is not the same.
  Write("auto/a.cfg", "name = 'g1'\nvirtio_msg = [ 'type=rng' ]\nvirtio_msg_backend = '7'\n");
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("refused 6")));
}

TEST_F(ConfigFilesTest, BackupsAreNotLookedAt) {
  for (const char* file : {"g1.cfg~", "g1.cfg.bak", "#g1.cfg#", ".g1.cfg.swp", "g1.cfg.dpkg-old",
                           "g1.cfg.dpkg-dist", "g1.cfg.ucf-old", "g1.cfg.rpmsave", "g1.cfg.orig",
                           "g1.cfg.old", "g1.cfg.save", "g1.cfg.tmp"}) {
    Config(file, "g1", absl::StrCat("\"type=rng,serial=", file, "\""));
    EXPECT_TRUE(IsBackupName(file)) << file;
  }
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  for (const char* file : {"g1.cfg", "g1", "old.cfg", "bak", "g1-old", "g1.cfg.new"}) {
    EXPECT_FALSE(IsBackupName(file)) << file;
  }
}

TEST_F(ConfigFilesTest, ADomainWithoutAConfigLeavesATraceOfWhereOneWasLookedFor) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "gl");  // a name given on xl's command line, or mistyped
  EXPECT_THAT(Settle(), IsEmpty());
  EXPECT_THAT(nothing_, ElementsAre(AllOf(HasSubstr("5 gl: no config in "), HasSubstr(directory_),
                                          HasSubstr("/auto"), HasSubstr("name = \"gl\""),
                                          HasSubstr("there are such for g1"))));
  // It is said once, and again for another name.
  tree_.Set("/local/domain/5/memory/target", "1");
  Settle();
  EXPECT_EQ(nothing_.size(), 1u);
  tree_.Set("/local/domain/5/name", "g");
  Settle();
  EXPECT_EQ(nothing_.size(), 2u);
  tree_.Set("/local/domain/5/name", "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
}

TEST_F(ConfigFilesTest, AMistypedKeyIsAWarningWithTheRightName) {
  const std::string path = Write("g1.cfg", "name = 'g1'\nvirtio_mgs = [ 'type=rng' ]\n");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(absl::StrCat("warning 5 g1: ", path,
                                                 ":2: virtio_mgs means nothing to anybody; did you "
                                                 "mean virtio_msg?")));
  EXPECT_EQ(nothing_.size(), 1u);
  Write("g1.cfg", "name = 'g1'\nvirtio_msg = [ 'type=rng' ]\nvirtio_msg_bakend = 'driver'\n");
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(),
              ElementsAre(HasSubstr("did you mean virtio_msg_backend?"), HasSubstr("attached 6")));
  // xl's own keys are near to none of ours.
  Write("g1.cfg",
        "name = 'g1'\nvif = []\nvirtio = 1\nvtpm = []\nviridian = 1\n# virtio_mgs = []\n");
  tree_.CreateDomain(7, "g1");
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(ConfigFilesTest, ChangedFileIsReadAgain) {
  const std::string path = Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  Config("g1.cfg", "g1", R"("type=rng", "type=rng")");
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 6 g1 /g1.cfg 2"));
  // The same size at another time.
  Config("g1.cfg", "g9", R"("type=rng", "type=rng")");
  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  tree_.CreateDomain(9, "g9");
  EXPECT_THAT(Settle(), ElementsAre("attached 9 g9 /g1.cfg 2"));
  std::filesystem::remove(path);
  tree_.CreateDomain(10, "g9");
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(ConfigFilesTest, FileThatDoesNotParseIsNamedOnceAndToTheDomainItMentions) {
  const std::string path = Write("g1.cfg", "name = \"g1\"\nvirtio_msg = [ \"type=rng\"\n");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("complaint"), HasSubstr(path)),
                                    AllOf(HasSubstr("refused 5"), HasSubstr(path))));
  tree_.CreateDomain(6, "g2");
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(ConfigFilesTest, AnyFileIsFitToLieThere) {
  mkfifo((directory_ + "/pipe.cfg").c_str(), 0600);
  std::filesystem::create_directory(directory_ + "/folder.cfg");
  std::filesystem::create_symlink("nowhere", directory_ + "/dangling.cfg");
  Write("empty.cfg", "");
  Write("large.cfg", std::string(2 << 20, '#') + "\nvirtio_msg = []\n");
  Write("zero.cfg", absl::StrCat("virtio_msg", std::string(100, '\0'), "= [ \"type=rng\" ]"));
  Write("zeros.cfg", absl::StrCat("virtio_msg = [ \"", std::string(1'000'000, '\0'), "\" ]"));
  Write("number.cfg", "name = 5\nvirtio_msg = 7\n");
  Write("list.cfg", "name = [ \"g1\" ]\nvirtio_msg = [ [ \"type=rng\" ] ]\n");
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    std::string text = "name = \"g1\"\nvirtio_msg = [ \"type=rng\" ]\n";
    for (int j = 0; j < 1 + i % 5; ++j) text[random() % text.size()] = static_cast<char>(random());
    Write(absl::StrCat("r", i), text);
  }
  tree_.CreateDomain(5, "g1");
  Start();
  tree_.CreateDomain(6, "g2");
  Settle();
}

}  // namespace
}  // namespace vmsg::xenstore
