// SPDX-License-Identifier: Apache-2.0
#include "xenstore/toolstack/xl_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

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
