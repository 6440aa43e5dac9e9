// SPDX-License-Identifier: Apache-2.0
#include "grants/platform.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace vmsg::grants {
namespace {

constexpr absl::string_view kChoices =
    "use --xen=native on a machine that runs on Xen, or --xen=emulated:<dir> with the directory "
    "of a running `xen-emu serve --dir <dir>`";

bool RunsOnXen() { return access("/dev/xen/evtchn", F_OK) == 0 || access("/proc/xen", F_OK) == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<Platform>> OpenPlatform(absl::string_view xen_option) {
  if (xen_option.empty()) {
    if (RunsOnXen()) return OpenNativePlatform();
    return absl::FailedPreconditionError(
        absl::StrCat("this machine does not run on Xen (neither /dev/xen/evtchn nor /proc/xen "
                     "exists) and --xen is not given; ",
                     kChoices));
  }
  if (xen_option == "native") {
    if (RunsOnXen()) return OpenNativePlatform();
    return absl::FailedPreconditionError(
        absl::StrCat("--xen=native: this machine does not run on Xen (neither /dev/xen/evtchn nor "
                     "/proc/xen exists); ",
                     kChoices));
  }
  absl::string_view dir = xen_option;
  if (absl::ConsumePrefix(&dir, "emulated:") && !dir.empty()) return OpenEmulatedPlatform(dir);
  return absl::InvalidArgumentError(
      absl::StrCat("--xen=", xen_option, " is neither of the two choices; ", kChoices));
}

}  // namespace vmsg::grants
