// SPDX-License-Identifier: Apache-2.0
// From xl's configs to devices: which file is whose, when a domain is attached, and when not.
#include "xenstore/introduction/introductions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/xenstore/memory_store.h"
#include "xenstore/toolstack/attachment.h"
#include "xenstore/toolstack/config_mark.h"

namespace vmsg::xenstore {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class IntroductionsTest : public testing::Test, public IntroductionListener {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/vmsg-configs-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    std::filesystem::create_directory(directory_ + "/auto");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Config(const std::string& file, const std::string& name, const std::string& entries) {
    return Write(
        file, absl::StrCat("name = \"", name, "\"\nmemory = 64\nvirtio_msg = [ ", entries, " ]\n"));
  }
  std::string Write(const std::string& file, const std::string& text) {
    const std::string path = absl::StrCat(directory_, "/", file);
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  void Start() {
    auto introductions = Introductions::Start(store_.get(), this,
                                              ConfigCatalog({directory_, directory_ + "/auto"}), 0);
    ASSERT_TRUE(introductions.ok()) << introductions.status();
    introductions_ = *std::move(introductions);
    Settle();
  }
  // What was reported until nothing is left to do.
  std::vector<std::string> Settle() {
    while (true) {
      absl::StatusOr<bool> more = introductions_->Process();
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) return std::exchange(lines_, {});
    }
  }
  std::string Type(uint16_t domain, int number, int backend = 0, int bus = 0) {
    return tree_.Value(absl::StrCat("/local/domain/", backend, "/backend/virtio-msg/", domain, "/",
                                    bus, "/device/", number, "/type"));
  }
  std::string Mark(uint16_t domain, const std::string& node) {
    return tree_.Value(absl::StrCat("/libxl/", domain, "/virtio-msg/", node));
  }

  void OnAttached(uint16_t domain, const std::string& name, const std::string& config,
                  size_t devices) override {
    lines_.push_back(absl::StrCat("attached ", domain, " ", name, " ",
                                  config.substr(directory_.size()), " ", devices));
  }
  void OnRefused(uint16_t domain, const std::string& name, const absl::Status& reason) override {
    lines_.push_back(absl::StrCat("refused ", domain, " ", name, ": ", reason.message()));
  }
  void OnComplaint(const std::string& text) override {
    lines_.push_back(absl::StrCat("complaint ", text));
  }

  std::string directory_;
  MemoryTree tree_;
  std::unique_ptr<MemoryStore> store_ = tree_.Connect(0);
  std::vector<std::string> lines_;
  std::unique_ptr<Introductions> introductions_;
};

TEST_F(IntroductionsTest, IntroducedDomainIsAttachedInOneCall) {
  const std::string path = Config("g1.cfg", "g1", R"("type=blk,path=/a", "type=rng,bus=1")");
  Start();
  tree_.CreateDomain(5, "g1");
  ASSERT_TRUE(introductions_->Process().ok());
  EXPECT_THAT(lines_, ElementsAre("attached 5 g1 /g1.cfg 2"));
  EXPECT_EQ(Type(5, 0), "blk");
  EXPECT_EQ(Type(5, 0, 0, 1), "rng");
  EXPECT_EQ(Mark(5, "config"), path);
  EXPECT_EQ(Mark(5, "error"), "");
}

TEST_F(IntroductionsTest, DomainThatWasThereBeforeIsAttachedAndNoOtherIsTouched) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Write("g2.cfg", "name = \"g2\"\nmemory = 64\n");
  tree_.CreateDomain(5, "g1");
  tree_.CreateDomain(6, "g2");
  tree_.CreateDomain(7, "unknown");
  Start();
  EXPECT_EQ(Type(5, 0), "rng");
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/6"));
  EXPECT_FALSE(tree_.Has("/libxl/7/virtio-msg"));
}

TEST_F(IntroductionsTest, WhatAnAdministratorDetachedIsNotAttachedAgain) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  ASSERT_TRUE(RemoveBus(*store_, {5, 0, 0}).ok());
  EXPECT_THAT(Settle(), IsEmpty());
  introductions_.reset();
  Start();
  EXPECT_EQ(Type(5, 0), "(none)");
}

TEST_F(IntroductionsTest, RebootedDomainIsAttachedAnew) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  tree_.DestroyDomain(5);
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 6 g1 /g1.cfg 1"));
  // And one that has an old one's id.
  tree_.DestroyDomain(6);
  Settle();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
}

TEST_F(IntroductionsTest, NameThatComesLateIsWaitedForAndRestoredGuestsGetTheirsLast) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Start();
  const size_t watches = tree_.watch_count();
  tree_.CreateDomain(5, "");
  EXPECT_THAT(Settle(), IsEmpty());
  tree_.Set("/local/domain/5/name", "g1--incoming");
  EXPECT_THAT(Settle(), IsEmpty());
  tree_.Set("/local/domain/5/name", "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  EXPECT_EQ(tree_.watch_count(), watches) << "nobody is watched any more";
}

TEST_F(IntroductionsTest, RenamingAnAttachedDomainChangesNothing) {
  Config("g1.cfg", "g1", R"("type=rng")");
  Config("g2.cfg", "g2", R"("type=rng,num=7")");
  Start();
  tree_.CreateDomain(5, "g1");
  Settle();
  tree_.Set("/local/domain/5/name", "g2");
  EXPECT_THAT(Settle(), IsEmpty());
  EXPECT_EQ(Type(5, 7), "(none)");
}

TEST_F(IntroductionsTest, WatchesOfDomainsWithoutAConfigEndWithThem) {
  Start();
  const size_t watches = tree_.watch_count();
  for (uint16_t id = 5; id < 15; ++id) tree_.CreateDomain(id, absl::StrCat("x", id));
  Settle();
  EXPECT_EQ(tree_.watch_count(), watches + 10);
  for (uint16_t id = 5; id < 15; ++id) tree_.DestroyDomain(id);
  Settle();
  EXPECT_EQ(tree_.watch_count(), watches);
}

TEST_F(IntroductionsTest, BackendOfAnotherDomainGetsTheNodes) {
  Write("g1.cfg",
        "name = \"g1\"\nvirtio_msg = [ \"type=rng\" ]\nvirtio_msg_backend = \"driver\"\n");
  Start();
  tree_.CreateDomain(3, "driver");
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre("attached 5 g1 /g1.cfg 1"));
  EXPECT_EQ(Type(5, 0, 3), "rng");
  EXPECT_EQ(tree_.Value("/local/domain/5/device/virtio-msg/0/backend-id"), "3");
}

TEST_F(IntroductionsTest, MissingBackendDomainIsNamed) {
  Write("g1.cfg",
        "name = \"g1\"\nvirtio_msg = [ \"type=rng\" ]\nvirtio_msg_backend = \"driver\"\n");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("g1.cfg"), HasSubstr("virtio_msg_backend"),
                                          HasSubstr("driver"))));
}

TEST_F(IntroductionsTest, BadEntryRefusesAllOfThemWithFileIndexKeyAndReason) {
  const std::string path = Config("g1.cfg", "g1", R"("type=rng", "type=blk,path=")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("refused 5 g1"), HasSubstr(path),
                                          HasSubstr("virtio_msg[1]"), HasSubstr("path"))));
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
  EXPECT_EQ(Mark(5, "config"), path);
  EXPECT_THAT(Mark(5, "error"), HasSubstr("virtio_msg[1]"));
  // Said once, also when we start again.
  introductions_.reset();
  Start();
  EXPECT_THAT(Settle(), IsEmpty());
}

TEST_F(IntroductionsTest, NumberGivenTwiceWritesNothingOnAnyBus) {
  Config("g1.cfg", "g1", R"("type=rng", "type=rng,bus=1,num=4", "type=rng,bus=1,num=4")");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("given twice")));
  EXPECT_FALSE(tree_.Has("/local/domain/0/backend/virtio-msg/5"));
}

TEST_F(IntroductionsTest, TwoFilesWithEntriesAreRefusedWithBothPathsAndALinkIsOneFile) {
  const std::string one = Config("g1.cfg", "g1", R"("type=rng")");
  std::filesystem::create_symlink("../g1.cfg", directory_ + "/auto/g1.cfg");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("attached 5")));
  tree_.DestroyDomain(5);
  const std::string two = Config("copy.cfg", "g1", R"("type=rng")");
  tree_.CreateDomain(6, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("refused 6"), HasSubstr(one), HasSubstr(two))));
  // One without entries does not count.
  Write("copy.cfg", "name = \"g1\"\n# virtio_msg = []\n");
  tree_.CreateDomain(7, "g1");
  EXPECT_THAT(Settle(), ElementsAre(HasSubstr("attached 7")));
}

TEST_F(IntroductionsTest, ChangedFileIsReadAgain) {
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

TEST_F(IntroductionsTest, FileThatDoesNotParseIsNamedOnceAndToTheDomainItMentions) {
  const std::string path = Write("g1.cfg", "name = \"g1\"\nvirtio_msg = [ \"type=rng\"\n");
  Start();
  tree_.CreateDomain(5, "g1");
  EXPECT_THAT(Settle(), ElementsAre(AllOf(HasSubstr("complaint"), HasSubstr(path)),
                                    AllOf(HasSubstr("refused 5"), HasSubstr(path))));
  tree_.CreateDomain(6, "g2");
  EXPECT_THAT(Settle(), IsEmpty());
}

// Root's own files, and still: whatever lies there does not end the service.
TEST_F(IntroductionsTest, AnyFileIsFitToLieThere) {
  mkfifo((directory_ + "/pipe.cfg").c_str(), 0600);
  std::filesystem::create_directory(directory_ + "/folder.cfg");
  std::filesystem::create_symlink("nowhere", directory_ + "/dangling.cfg");
  Write("empty.cfg", "");
  Write("large.cfg", std::string(2 << 20, '#') + "\nvirtio_msg = []\n");
  Write("zero.cfg", absl::StrCat("virtio_msg", std::string(100, '\0'), "= [ \"type=rng\" ]"));
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

TEST_F(IntroductionsTest, HandAttachedConfigIsNotAttachedTwiceAndDetachedOnesAgain) {
  const std::string path = Config("g1.cfg", "g1", R"("type=rng")");
  tree_.CreateDomain(5, "g1");
  auto config = ReadXlConfig(path);
  ASSERT_TRUE(config.ok());
  const auto attach = [&] {
    AttachPlan plan = PlanAttachment(5, 0, ItemsOfConfig(path, *config));
    return WriteAttachment(*store_, plan, path).status();
  };
  EXPECT_TRUE(attach().ok());
  Start();
  EXPECT_EQ(Type(5, 1), "(none)");
  const absl::Status twice = attach();
  EXPECT_TRUE(absl::IsAlreadyExists(twice)) << twice;
  EXPECT_THAT(std::string(twice.message()), HasSubstr(path));
  ASSERT_TRUE(RemoveBus(*store_, {5, 0, 0}).ok());
  EXPECT_TRUE(attach().ok());
}

TEST_F(IntroductionsTest, DriverDomainIsToldThatItIsNotItsTask) {
  tree_.CreateDomain(3, "driver");
  auto store = tree_.Connect(3);
  EXPECT_TRUE(absl::IsPermissionDenied(
      Introductions::Start(store.get(), this, ConfigCatalog({directory_}), 3).status()));
}

TEST_F(IntroductionsTest, LostStoreIsReported) {
  Start();
  tree_.LoseConnections();
  EXPECT_TRUE(absl::IsUnavailable(introductions_->Process().status()));
  introductions_.reset();
}

}  // namespace
}  // namespace vmsg::xenstore
