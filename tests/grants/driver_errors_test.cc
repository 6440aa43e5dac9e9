// SPDX-License-Identifier: Apache-2.0
// What the errors of Linux's Xen drivers become. Each text names what to do.
#include "grants/native/driver_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace vmsg::grants {
namespace {

using testing::AllOf;
using testing::HasSubstr;

void ExpectStatus(const absl::Status& status, absl::StatusCode code,
                  testing::Matcher<std::string> text) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), text);
}

TEST(MapError, RefusedByTheHypervisor) {
  ExpectStatus(MapError(EINVAL, 3, 5, 65536), absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("map 5 pages of domain 3"), HasSubstr("errno 22"),
                     HasSubstr("refused at least one grant"), HasSubstr("maptrack")));
}

TEST(MapError, OverGntdevsLimit) {
  ExpectStatus(MapError(EINVAL, 3, 65537, 65536), absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("65537 pages"),
                     HasSubstr("/sys/module/xen_gntdev/parameters/limit (now 65536)")));
}

TEST(MapError, OutOfHandles) {
  ExpectStatus(MapError(ENOSPC, 3, 5, std::nullopt), absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("gnttab_max_maptrack_frames"), HasSubstr("xen_gntdev"),
                     HasSubstr("vm.max_map_count")));
}

TEST(MapError, AnythingElseIsUnavailable) {
  ExpectStatus(MapError(EIO, 3, 5, std::nullopt), absl::StatusCode::kUnavailable,
               HasSubstr("map 5 pages of domain 3"));
}

TEST(ShareError, OverGntallocsLimitOrTheGrantTable) {
  ExpectStatus(ShareError(ENOSPC, 0, 2048, 1024), absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("share 2048 pages with domain 0"),
                     HasSubstr("/sys/module/xen_gntalloc/parameters/limit (now 1024)"),
                     HasSubstr("max_grant_frames")));
}

TEST(ShareError, OutOfMemory) {
  ExpectStatus(ShareError(ENOMEM, 0, 2048, 1024), absl::StatusCode::kResourceExhausted,
               HasSubstr("out of memory"));
}

TEST(EventError, NoSuchPort) {
  for (const int error : {EINVAL, ENOENT, ESRCH, EPERM, ENOTCONN, EBUSY}) {
    ExpectStatus(EventError(error, "bind event channel 5 of domain 3"),
                 absl::StatusCode::kInvalidArgument, HasSubstr("bind event channel 5"));
  }
}

TEST(EventError, OutOfPorts) {
  ExpectStatus(EventError(ENOSPC, "allocate"), absl::StatusCode::kResourceExhausted,
               HasSubstr("event_channels"));
}

TEST(OpenError, NoDriverNamesTheModule) {
  ExpectStatus(OpenError(ENOENT, "/dev/xen/gntdev", "xen_gntdev"), absl::StatusCode::kNotFound,
               AllOf(HasSubstr("/dev/xen/gntdev"), HasSubstr("modprobe xen_gntdev")));
}

TEST(OpenError, NotAllowed) {
  ExpectStatus(OpenError(EACCES, "/dev/xen/gntdev", "xen_gntdev"),
               absl::StatusCode::kPermissionDenied, HasSubstr("root"));
}

TEST(CheckDomain, OnlyNumbersOfDomains) {
  EXPECT_TRUE(CheckDomain(0).ok());
  EXPECT_TRUE(CheckDomain(0x7fef).ok());
  ExpectStatus(CheckDomain(0x7ff0), absl::StatusCode::kInvalidArgument,
               HasSubstr("domain 32752 is not a domain (0..32751)"));
  EXPECT_FALSE(CheckDomain(0xffff).ok());
}

}  // namespace
}  // namespace vmsg::grants
