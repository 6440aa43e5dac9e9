// SPDX-License-Identifier: Apache-2.0
// Where an option's value comes from, and what is refused with which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tools/vmsgd/configuration/arguments.h"
#include "tools/vmsgd/configuration/config_file.h"

namespace vmsg {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pointee;
using ::testing::StartsWith;

class ConfigurationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "vmsgd-conf.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string File(const std::string& text) {
    const std::string path = directory_ + "/vmsgd.conf";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  static absl::StatusOr<CommandLine> Parse(std::vector<std::string> words) {
    words.insert(words.begin(), "vmsgd");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    const int argc = static_cast<int>(argv.size());
    argv.push_back(nullptr);
    return ParseCommandLine(argc, argv.data());
  }
  // The command line's words, below them a file with this text.
  absl::StatusOr<Configuration> Configured(const std::string& text,
                                           std::vector<std::string> words = {}) {
    words.push_back("--config=" + File(text));
    absl::StatusOr<CommandLine> line = Parse(words);
    if (!line.ok()) return line.status();
    return Configure(*line);
  }
  std::string Refusal(const std::string& text, std::vector<std::string> words = {}) {
    absl::StatusOr<Configuration> result = Configured(text, std::move(words));
    return result.ok() ? "accepted" : std::string(result.status().message());
  }

  std::string directory_;
};

TEST_F(ConfigurationTest, TheFileSetsOptionsByTheirLongNames) {
  auto result = Configured(
      "# our machine\n\n  spin-us=7  \nmax-window-pages =  1024\r\nlog-level = debug\n"
      "trace = /tmp/a = b\nxen = emulated:/x\nio-threads = 3");
  ASSERT_TRUE(result.ok()) << result.status();
  const Arguments& arguments = result->arguments;
  EXPECT_EQ(arguments.service.spin.longest, absl::Microseconds(7));
  EXPECT_EQ(arguments.service.max_window_pages, 1024u);
  EXPECT_EQ(arguments.service.io_threads, 3u);
  EXPECT_EQ(arguments.log_level, backend::LogLevel::kDebug);
  EXPECT_EQ(arguments.service.trace.path, "/tmp/a = b");
  EXPECT_EQ(arguments.xen, "emulated:/x");
}

TEST_F(ConfigurationTest, BounceIsAutoOnOrOff) {
  using Bounce = backend::ServiceOptions::Bounce;
  for (const auto& [text, bounce] : {std::pair("", Bounce::kAuto),
                                     {"bounce = auto", Bounce::kAuto},
                                     {"bounce = on", Bounce::kOn},
                                     {"bounce = off", Bounce::kOff}}) {
    auto result = Configured(text);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->arguments.service.bounce, bounce) << text;
  }
  EXPECT_THAT(Refusal("bounce = 1\n"), HasSubstr("auto, on or off"));
}

TEST_F(ConfigurationTest, TheCommandLineWins) {
  auto result = Configured("spin-us = 7\nlog-level = debug\n", {"--spin-us=9"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->arguments.service.spin.longest, absl::Microseconds(9));
  EXPECT_EQ(result->arguments.log_level, backend::LogLevel::kDebug);
}

TEST_F(ConfigurationTest, AFileThatIsNotThereIsMissedOnlyWhenItWasNamed) {
  auto line = Parse({});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->config_file, "/etc/virtio-msg-xen/vmsgd.conf");
  line->config_file = directory_ + "/none";
  EXPECT_TRUE(Configure(*line).ok());
  line->config_required = true;
  EXPECT_THAT(std::string(Configure(*line).status().message()),
              AllOf(HasSubstr(directory_ + "/none"), HasSubstr("No such file")));
  EXPECT_TRUE(Configure(*Parse({"--config="})).ok());
}

TEST_F(ConfigurationTest, WhatIsWrongIsNamedWithFileAndLine) {
  const std::string path = directory_ + "/vmsgd.conf:";
  EXPECT_THAT(Refusal("\nspin = 5\n"),
              AllOf(StartsWith(path + "2: "), HasSubstr("'spin'"), HasSubstr("spin-us")));
  EXPECT_THAT(Refusal("spin-us 5\n"),
              AllOf(StartsWith(path + "1: "), HasSubstr("spin-us 5"), HasSubstr("option = value")));
  EXPECT_THAT(Refusal("spin-us = 10001\n"),
              AllOf(StartsWith(path + "1: spin-us = 10001"), HasSubstr("0 to 10000")));
  EXPECT_THAT(Refusal("spin-us =\n"), HasSubstr("0 to 10000"));
  EXPECT_THAT(Refusal("spin-us = 5 # not a comment\n"), HasSubstr("0 to 10000"));
  EXPECT_THAT(Refusal("max-window-pages = 511\n"), HasSubstr("512 to 1048576"));
  EXPECT_THAT(Refusal("log-level = loud\n"), HasSubstr("error, warning, info or debug"));
  EXPECT_THAT(Refusal("trace = /tmp/\x01\n"), AllOf(StartsWith(path + "1: "), HasSubstr("text")));
  // Only where a command is started.
  EXPECT_THAT(Refusal("ready-fd = 3\n"), HasSubstr("'ready-fd' is no option of this file"));
  EXPECT_THAT(Refusal("config = /etc/other\n"), HasSubstr("'config' is no option of this file"));
  // Wrong is wrong, also where the command line wins.
  EXPECT_THAT(Refusal("spin-us = x\n", {"--spin-us=1"}), HasSubstr(":1: spin-us = x"));
}

TEST_F(ConfigurationTest, AnOptionIsGivenOnce) {
  const auto settings = ParseConfig("f", "io-threads = 2\nlog-level = debug\nio-threads = 3\n");
  EXPECT_THAT(std::string(settings.status().message()),
              ::testing::HasSubstr("f:3: 'io-threads' is given a second time"));
}

TEST_F(ConfigurationTest, WhatIsNoConfigurationFileIsNotRead) {
  EXPECT_THAT(Refusal("#" + std::string(kMaxConfigFileBytes, 'x')), HasSubstr("65536 bytes"));
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(std::string(Configure(*Parse({"--config=" + fifo})).status().message()),
              AllOf(HasSubstr(fifo), HasSubstr("regular")));
}

TEST_F(ConfigurationTest, TheNearestNameIsSuggested) {
  EXPECT_THAT(Refusal("loglevel = info\n"), HasSubstr("; did you mean log-level?"));
  EXPECT_THAT(Refusal("trace_size = 5\n"), HasSubstr("; did you mean trace-size?"));
  EXPECT_THAT(Refusal("nothing-like-it = 1\n"), Not(HasSubstr("did you mean")));
  EXPECT_THAT(std::string(Parse({"--sipn-us=1"}).status().message()),
              HasSubstr("--sipn-us=1: no such option; did you mean spin-us?"));
  EXPECT_THAT(std::string(Parse({"--check-confg"}).status().message()),
              HasSubstr("did you mean check-config?"));
  EXPECT_THAT(std::string(Parse({"--spin-us"}).status().message()), HasSubstr("needs a value"));
}

TEST_F(ConfigurationTest, CheckingTakesTheFileOrTheOneThatIsNamed) {
  auto line = Parse({"--check-config"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_TRUE(line->check);
  EXPECT_EQ(line->config_file, kDefaultConfigFile);
  line = Parse({"--check-config=" + directory_ + "/none"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_TRUE(line->check);
  EXPECT_TRUE(absl::IsNotFound(Configure(*line).status()));
}

TEST_F(ConfigurationTest, WhatLiesAtATracesPlaceIsAMistakeToo) {
  auto result = Configured("trace = " + directory_ + "/trace\ntrace-size = 3\n");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->arguments.service.trace.max_bytes, uint64_t{3} << 20);
  EXPECT_TRUE(CheckPlaces(result->arguments).ok());
  EXPECT_TRUE(CheckPlaces(Arguments()).ok());
  ASSERT_EQ(mkfifo((directory_ + "/trace").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(CheckPlaces(result->arguments)));
  EXPECT_THAT(Refusal("trace-size = 0\n"), HasSubstr("1 to 1048576"));
  EXPECT_THAT(Refusal("trace = vmsg.pcap\n"),
              HasSubstr(":1: trace = vmsg.pcap: an absolute path is needed"));
  EXPECT_THAT(Refusal("xen = zen\n"), HasSubstr("native or emulated:DIR"));
}

TEST_F(ConfigurationTest, TheCommandLineIsStrict) {
  EXPECT_THAT(std::string(Parse({"--sipn-us=1"}).status().message()), HasSubstr("--sipn-us=1"));
  EXPECT_THAT(std::string(Parse({"fast"}).status().message()), HasSubstr("fast"));
  EXPECT_THAT(Refusal("", {"--io-threads=0"}), HasSubstr("--io-threads=0: a number from 1 to 64"));
  EXPECT_TRUE(Parse({"--help"})->help);
}

TEST_F(ConfigurationTest, ChangesAreThoseOfTheValuesInForce) {
  auto before = Configured("spin-us = 7\nio-threads = 2\n", {"--log-level=info"});
  auto after = Configured("spin-us = 8\nlog-level = debug\n", {"--log-level=info"});
  ASSERT_TRUE(before.ok() && after.ok());
  const auto changes = Changes(before->settings, after->settings);
  EXPECT_THAT(changes, ElementsAre(Pointee(Field(&OptionRow::name, ::testing::StrEq("io-threads"))),
                                   Pointee(Field(&OptionRow::name, ::testing::StrEq("spin-us")))));
  EXPECT_EQ(changes[0]->changed, WhenChanged::kAtRestart);
  EXPECT_EQ(changes[1]->changed, WhenChanged::kAtReload);
  EXPECT_THAT(Changes(after->settings, after->settings), IsEmpty());
}

}  // namespace
}  // namespace vmsg
