// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/xl_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"

// libxlutil loses the strings of a file that it refuses, some forty bytes each.
extern "C" const char* __lsan_default_suppressions() { return "leak:libxlutil"; }

namespace vmsg::xenstore {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class XlConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/vmsg-config-XXXXXX";
    const int fd = mkstemp(name);
    ASSERT_GE(fd, 0);
    close(fd);
    path_ = name;
  }
  void TearDown() override { unlink(path_.c_str()); }
  absl::StatusOr<XlConfig> Read(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return ReadXlConfig(path_);
  }
  std::string Refusal(const std::string& text) {
    absl::StatusOr<XlConfig> config = Read(text);
    EXPECT_TRUE(absl::IsInvalidArgument(config.status())) << config.status();
    return std::string(config.status().message());
  }
  std::string path_;
};

TEST_F(XlConfigTest, ReadsNameBackendAndEntriesAmongXlsOwnKeys) {
  absl::StatusOr<XlConfig> config = Read(R"(# a guest
type = "pv"
name = "g1"
memory = 512
disk = [ 'phy:/dev/vg/g1,xvda,w' ]
virtio_msg = [ "type=blk,path=/srv/g1.img",
               'type=rng,num=4', ]
virtio_msg_backend = "driver"
)");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "g1");
  EXPECT_EQ(config->backend, "driver");
  ASSERT_EQ(config->entries.size(), 2u);
  EXPECT_EQ(config->entries[0], (DeviceEntry{std::nullopt, 0, "blk", {{"path", "/srv/g1.img"}}}));
  EXPECT_EQ(config->entries[1], (DeviceEntry{4, 0, "rng", {}}));
  EXPECT_EQ(config->texts[1], "type=rng,num=4");
}

TEST_F(XlConfigTest, AbsentKeysAreNoError) {
  absl::StatusOr<XlConfig> config = Read("memory = 512\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->name.has_value());
  EXPECT_FALSE(config->backend.has_value());
  EXPECT_THAT(config->entries, IsEmpty());
}

TEST_F(XlConfigTest, MalformedEntryNamesFileIndexKeyAndReason) {
  EXPECT_THAT(Refusal("virtio_msg = [ \"type=rng\", \"type=blk,path=\" ]\n"),
              AllOf(HasSubstr(path_), HasSubstr("virtio_msg[1]"), HasSubstr("key \"path\""),
                    HasSubstr("value is empty")));
}

TEST_F(XlConfigTest, EmptyEntryIsRefused) {
  EXPECT_THAT(Refusal("virtio_msg = [ \"\" ]\n"),
              AllOf(HasSubstr("virtio_msg[0]"), HasSubstr("empty")));
}

TEST_F(XlConfigTest, EntryThatIsAListIsRefused) {
  EXPECT_THAT(Refusal("virtio_msg = [ \"type=rng\", [ \"type=rng\" ] ]\n"),
              AllOf(HasSubstr("virtio_msg"), HasSubstr(path_)));
}

TEST_F(XlConfigTest, StringInsteadOfAListIsRefusedWithTheParsersWords) {
  EXPECT_THAT(Refusal("virtio_msg = \"type=rng\"\n"),
              AllOf(HasSubstr("virtio_msg"), HasSubstr("should be a list")));
}

TEST_F(XlConfigTest, ListInsteadOfANameIsRefused) {
  EXPECT_THAT(Refusal("name = [ \"g1\" ]\n"), AllOf(HasSubstr("name"), HasSubstr(path_)));
}

TEST_F(XlConfigTest, SyntaxErrorCarriesTheParsersReport) {
  EXPECT_THAT(Refusal("name = \"g1\"\nvirtio_msg = [ \"type=rng\"\n"),
              AllOf(HasSubstr(path_), HasSubstr("config parsing error")));
}

TEST_F(XlConfigTest, TooManyEntriesAreRefused) {
  std::string text = "virtio_msg = [ ";
  for (int i = 0; i < 257; ++i) text += "\"type=rng\", ";
  EXPECT_THAT(Refusal(text + "]\n"), HasSubstr("257 entries, more than the limit of 256"));
}

// xl's parser asserts at a NUL.
TEST_F(XlConfigTest, ControlCharactersAreRefusedWithTheirLineBeforeTheParserSeesThem) {
  for (const char c : {'\0', '\x01', '\x1b', '\x7f', '\f'}) {
    EXPECT_THAT(Refusal(absl::StrCat("name = \"g1\"\n\tmemory = 1\r\nvirtio_msg = [ \"type=rng",
                                     std::string(1, c), "\" ]\n")),
                AllOf(HasSubstr(path_ + ":3: "), HasSubstr("control character"), HasSubstr("\\x")));
  }
  EXPECT_THAT(Refusal(std::string(1 << 20, '\0')), HasSubstr(path_ + ":1: "));
  EXPECT_TRUE(Read("name = \"G\xc3\xa4st\xff\"\nvirtio_msg = [ \"type=rng\" ]\n").ok());
}

TEST_F(XlConfigTest, AnyTextIsFitForIt) {
  const std::string config =
      "name = \"g1\"\nmemory=64; vcpus = 2\ndisk = [ 'a', \"b\", ]\nvirtio_msg = [ \"type=rng\" "
      "]\n";
  std::mt19937 random(11);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = config.substr(random() % 3 == 0 ? random() % config.size() : 0);
    for (int j = 0; j < 1 + i % 8 && !text.empty(); ++j) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 8);
          break;
        default:
          text.insert(at, 1 + random() % 40, "[]=,;\"'\\\n#()0a"[random() % 15]);
      }
    }
    ParseXlConfig("fuzz", text).status().IgnoreError();
    MaySpeakOfVirtioMsg(text);
  }
}

// Comments without a line end took the square of their length: hours, for this one.
TEST_F(XlConfigTest, ALastLineWithoutAnEndIsALine) {
  EXPECT_TRUE(Read("name = 'g1'\nvirtio_msg = [ 'type=rng' ]").ok());
  std::string comments = "virtio_msg = [ 'type=rng' ]\n";
  while (comments.size() + 3 < kMaxConfigBytes) comments += "# x";
  EXPECT_TRUE(Read(comments).ok());
}

TEST_F(XlConfigTest, KeysThatAreNearlyOursAreNamed) {
  absl::StatusOr<XlConfig> config =
      Read("name = 'g1'\nvirtio_msgs = []\nvirtio_disk_like = 1\n virtoi_msg_backend='d'\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->warnings,
              ::testing::ElementsAre(
                  AllOf(HasSubstr(":2: virtio_msgs "), HasSubstr("did you mean virtio_msg?")),
                  AllOf(HasSubstr(":4: virtoi_msg_backend "), HasSubstr("virtio_msg_backend?"))));
  EXPECT_TRUE(MaySpeakOfVirtioMsg("virtio-msg = []"));
  EXPECT_FALSE(MaySpeakOfVirtioMsg("virtio = 1\nvif = []\n# about virtio-msg = nothing\n"));
}

TEST_F(XlConfigTest, MissingFileIsNotFound) {
  absl::StatusOr<XlConfig> config = ReadXlConfig("/nonexistent/g1.cfg");
  EXPECT_TRUE(absl::IsNotFound(config.status()));
  EXPECT_THAT(config.status().message(), HasSubstr("/nonexistent/g1.cfg"));
}

TEST_F(XlConfigTest, DirectoryIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(ReadXlConfig("/tmp").status()));
}

TEST_F(XlConfigTest, FileTooLargeForAConfigIsRefusedUnread) {
  ASSERT_EQ(truncate(path_.c_str(), (1 << 20) + 1), 0);
  EXPECT_THAT(ReadXlConfig(path_).status().message(), HasSubstr("more than the limit"));
}

}  // namespace
}  // namespace vmsg::xenstore
