// SPDX-License-Identifier: Apache-2.0
// What the errors of Linux's Xen drivers become. Each text names what to do.
#include "grants/native/driver_errors.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <initializer_list>
#include <string>

extern "C" {  // the header does not say so itself
#include <xengnttab.h>
}

namespace vmsg::grants {
namespace {

void ExpectStatus(const absl::Status& status, absl::StatusCode code,
                  std::initializer_list<const char*> texts) {
  EXPECT_EQ(status.code(), code) << status;
  for (const char* text : texts) {
    EXPECT_NE(status.message().find(text), absl::string_view::npos)
        << status << "\ndoes not say: " << text;
  }
}

TEST(MapError, RefusedByTheHypervisor) {
  ExpectStatus(MapError(EINVAL, 3, 5, 65536), absl::StatusCode::kInvalidArgument,
               {"map 5 pages of domain 3", "errno 22", "refused at least one grant", "maptrack"});
}

TEST(MapError, OverGntdevsLimit) {
  ExpectStatus(MapError(EINVAL, 3, 65537, 65536), absl::StatusCode::kResourceExhausted,
               {"65537 pages", "/sys/module/xen_gntdev/parameters/limit (now 65536)"});
}

TEST(MapError, OutOfHandles) {
  ExpectStatus(MapError(ENOSPC, 3, 5, std::nullopt), absl::StatusCode::kResourceExhausted,
               {"gnttab_max_maptrack_frames", "xen_gntdev", "vm.max_map_count"});
}

TEST(MapError, AnythingElseIsUnavailable) {
  ExpectStatus(MapError(EIO, 3, 5, std::nullopt), absl::StatusCode::kUnavailable,
               {"map 5 pages of domain 3"});
}

TEST(ShareError, OverGntallocsLimitOrTheGrantTable) {
  ExpectStatus(ShareError(ENOSPC, 0, 2048, 1024), absl::StatusCode::kResourceExhausted,
               {"share 2048 pages with domain 0",
                "/sys/module/xen_gntalloc/parameters/limit (now 1024)", "max_grant_frames"});
}

TEST(ShareError, OutOfMemory) {
  ExpectStatus(ShareError(ENOMEM, 0, 2048, 1024), absl::StatusCode::kResourceExhausted,
               {"out of memory"});
}

TEST(EventError, NoSuchPort) {
  for (const int error : {EINVAL, ENOENT, ESRCH, EPERM, ENOTCONN, EBUSY}) {
    ExpectStatus(EventError(error, "bind event channel 5 of domain 3"),
                 absl::StatusCode::kInvalidArgument, {"bind event channel 5"});
  }
}

TEST(CopyError, ARefusedGrantAndAMissingDomainAreToldApart) {
  ExpectStatus(CopyError(GNTST_bad_gntref, 7, 12), absl::StatusCode::kInvalidArgument,
               {"copy grant 12 of domain 7", "unused or made to another domain"});
  ExpectStatus(CopyError(GNTST_permission_denied, 7, 12), absl::StatusCode::kInvalidArgument,
               {"unused or made to another domain"});
  ExpectStatus(CopyError(GNTST_bad_domain, 7, 12), absl::StatusCode::kInvalidArgument,
               {"domain 7", "does not exist"});
  ExpectStatus(CopyError(GNTST_eagain, 7, 12), absl::StatusCode::kUnavailable, {"status -12"});
}

TEST(EventError, OutOfPorts) {
  ExpectStatus(EventError(ENOSPC, "allocate"), absl::StatusCode::kResourceExhausted,
               {"event_channels"});
}

TEST(OpenError, NoDriverNamesTheModule) {
  ExpectStatus(OpenError(ENOENT, "/dev/xen/gntdev", "xen_gntdev"), absl::StatusCode::kNotFound,
               {"/dev/xen/gntdev", "modprobe xen_gntdev"});
}

TEST(OpenError, NotAllowed) {
  ExpectStatus(OpenError(EACCES, "/dev/xen/gntdev", "xen_gntdev"),
               absl::StatusCode::kPermissionDenied, {"root"});
}

TEST(DomainListError, NoControlDomainAndAnotherVersionAreToldApart) {
  ExpectStatus(DomainListError(EPERM), absl::StatusCode::kPermissionDenied, {"control domain"});
  ExpectStatus(DomainListError(EACCES), absl::StatusCode::kFailedPrecondition,
               {"libxenctrl", "version"});
}

TEST(CheckDomain, OnlyNumbersOfDomains) {
  EXPECT_TRUE(CheckDomain(0).ok());
  EXPECT_TRUE(CheckDomain(0x7fef).ok());
  ExpectStatus(CheckDomain(0x7ff0), absl::StatusCode::kInvalidArgument,
               {"domain 32752 is not a domain (0..32751)"});
  EXPECT_FALSE(CheckDomain(0xffff).ok());
}

}  // namespace
}  // namespace vmsg::grants
