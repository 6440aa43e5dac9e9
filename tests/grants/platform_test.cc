// SPDX-License-Identifier: Apache-2.0
// The option --xen: real or emulated, chosen once.
#include "grants/platform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "grants/native/domain_type.h"

namespace vmsg::grants {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const auto kNamesBoth = AllOf(HasSubstr("--xen=native"), HasSubstr("--xen=emulated:<dir>"));

bool RunsOnXen() { return access("/dev/xen/evtchn", F_OK) == 0 || access("/proc/xen", F_OK) == 0; }

// Where it is not known, disk requests are copied, which is never wrong.
TEST(DomainType, OnlyWhatIsKnownToBeTranslatedIs) {
  EXPECT_TRUE(IsTranslatedDomain("PVH"));
  EXPECT_TRUE(IsTranslatedDomain("HVM"));
  for (const char* other : {"PV", "", "Xen", "pvh"}) EXPECT_FALSE(IsTranslatedDomain(other));
}

TEST(OpenPlatform, AnythingElseIsRefusedWithBothChoices) {
  for (const char* option : {"nativ", "emulated", "emulated:", "Native", "/dir", "native:x"}) {
    const auto platform = OpenPlatform(option);
    EXPECT_EQ(platform.status().code(), absl::StatusCode::kInvalidArgument) << option;
    EXPECT_THAT(std::string(platform.status().message()),
                AllOf(HasSubstr(std::string("--xen=") + option), kNamesBoth));
  }
}

TEST(OpenPlatform, WithoutXenAndOptionNamesBothChoices) {
  if (RunsOnXen()) GTEST_SKIP() << "this machine runs on Xen";
  for (const char* option : {"", "native"}) {
    const auto platform = OpenPlatform(option);
    EXPECT_EQ(platform.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(platform.status().message()),
                AllOf(HasSubstr("does not run on Xen"), kNamesBoth));
  }
}

TEST(OpenPlatform, OnXenNativeIsTheDefault) {
  if (!RunsOnXen()) GTEST_SKIP() << "this machine does not run on Xen";
  const auto platform = OpenPlatform("");
  ASSERT_TRUE(platform.ok()) << platform.status();
  EXPECT_EQ((*platform)->name(), "native");
}

TEST(NativePlatform, WithoutADriverTheErrorNamesDeviceAndModule) {
  const auto platform = OpenNativePlatform();
  ASSERT_TRUE(platform.ok());
  EXPECT_EQ((*platform)->store_socket(), "");
  if (access("/dev/xen/gntdev", F_OK) == 0) GTEST_SKIP() << "this machine has the drivers";
  EXPECT_THAT(std::string((*platform)->OpenGrantMapper().status().message()),
              AllOf(HasSubstr("/dev/xen/gntdev"), HasSubstr("modprobe xen_gntdev")));
  EXPECT_THAT(std::string((*platform)->OpenGrantSharer().status().message()),
              AllOf(HasSubstr("/dev/xen/gntalloc"), HasSubstr("modprobe xen_gntalloc")));
  EXPECT_THAT(std::string((*platform)->OpenDomainList().status().message()),
              AllOf(HasSubstr("/dev/xen/privcmd"), HasSubstr("modprobe xen_privcmd")));
  EXPECT_THAT(std::string((*platform)->OpenEventChannels().status().message()),
              AllOf(HasSubstr("/dev/xen/evtchn"), HasSubstr("modprobe xen_evtchn")));
}

}  // namespace
}  // namespace vmsg::grants
