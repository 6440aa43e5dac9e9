// SPDX-License-Identifier: Apache-2.0
#include "tools/vmsgctl/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmsg::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(VmsgctlArguments, OptionsStandAnywhere) {
  absl::StatusOr<Arguments> arguments =
      ParseArguments({"--xen=emulated:/x", "attach", "g1", "--timeout", "3", "type=rng",
                      "--backend=d", "type=blk"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->command, Command::kAttach);
  EXPECT_EQ(arguments->xen, "emulated:/x");
  EXPECT_EQ(arguments->domain, "g1");
  EXPECT_EQ(arguments->backend, "d");
  EXPECT_EQ(arguments->timeout, absl::Seconds(3));
  EXPECT_THAT(arguments->entries, ElementsAre("type=rng", "type=blk"));
}

TEST(VmsgctlArguments, Detach) {
  absl::StatusOr<Arguments> one =
      ParseArguments({"detach", "g1", "65535", "--bus=4294967295", "--force"});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->device, 65535);
  EXPECT_EQ(one->bus, 4294967295u);
  EXPECT_TRUE(one->force);
  absl::StatusOr<Arguments> all = ParseArguments({"detach", "g1", "all"});
  ASSERT_TRUE(all.ok());
  EXPECT_FALSE(all->device.has_value());
}

TEST(VmsgctlArguments, WordsAfterTwoDashesAreNoOptions) {
  absl::StatusOr<Arguments> arguments = ParseArguments({"attach", "--", "--force", "type=rng"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->domain, "--force");
}

TEST(VmsgctlArguments, Help) {
  for (const char* word : {"--help", "-h", "help"}) {
    EXPECT_EQ(ParseArguments({word})->command, Command::kHelp);
  }
  EXPECT_EQ(ParseArguments({"attach", "--help"})->command, Command::kHelp);
}

struct Wrong {
  const char* name;
  std::vector<std::string> words;
  const char* reason;
};
class VmsgctlUsage : public testing::TestWithParam<Wrong> {};
TEST_P(VmsgctlUsage, IsRefused) {
  absl::StatusOr<Arguments> arguments = ParseArguments(GetParam().words);
  ASSERT_TRUE(absl::IsInvalidArgument(arguments.status()));
  EXPECT_THAT(arguments.status().message(), HasSubstr(GetParam().reason));
}
INSTANTIATE_TEST_SUITE_P(
    Errors, VmsgctlUsage,
    testing::Values(Wrong{"Nothing", {}, "no command"},
                    Wrong{"UnknownCommand",
                          {"atach"},
                          "\"atach\"; there are list, attach and detach; did you mean attach?"},
                    Wrong{"UnknownOption",
                          {"list", "--jsno", "x"},
                          "unknown option --jsno; did you mean --json?"},
                    Wrong{"ListWithTwo", {"list", "g1", "g2"}, "one domain"},
                    Wrong{"AttachWithoutEntry", {"attach", "g1"}, "at least one entry"},
                    Wrong{"AttachWithoutDomain", {"attach"}, "a domain"},
                    Wrong{"AttachWithEntryAndConfig",
                          {"attach", "--config", "x", "g1", "type=rng"},
                          "not both"},
                    Wrong{"DetachWithoutNumber", {"detach", "g1"}, "device number"},
                    Wrong{"DetachWithTwoNumbers", {"detach", "g1", "1", "2"}, "device number"},
                    Wrong{"DetachBadNumber", {"detach", "g1", "65536"}, "above the limit"},
                    Wrong{"DetachNegative", {"detach", "g1", "--", "-1"}, "not a number"},
                    Wrong{"BadBus", {"detach", "g1", "1", "--bus", "x"}, "--bus"},
                    Wrong{"BadTimeout", {"list", "--timeout=1s"}, "--timeout"},
                    Wrong{"TimeoutTooLong", {"list", "--timeout=3601"}, "3600"},
                    Wrong{"MissingValue", {"list", "--xen"}, "--xen needs a value"},
                    Wrong{"ValueForAFlag", {"list", "--json=yes"}, "takes no value"},
                    Wrong{"JsonElsewhere", {"detach", "g1", "1", "--json"}, "list only"},
                    Wrong{"ForceElsewhere", {"attach", "g1", "type=rng", "--force"}, "detach only"},
                    Wrong{"BusElsewhere", {"attach", "g1", "type=rng", "--bus=1"}, "key bus"},
                    Wrong{"ConfigElsewhere", {"list", "--config=x"}, "attach only"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace vmsg::ctl
