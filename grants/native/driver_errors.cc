// SPDX-License-Identifier: Apache-2.0
#include "grants/native/driver_errors.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

extern "C" {  // the header does not say so itself
#include <xengnttab.h>
}

#include "absl/strings/str_cat.h"

namespace vmsg::grants {
namespace {

std::string ErrnoText(int error) { return absl::StrCat(strerror(error), " (errno ", error, ")"); }

std::string LimitText(absl::string_view module, std::optional<uint64_t> limit) {
  return absl::StrCat("/sys/module/", module, "/parameters/limit (",
                      limit ? absl::StrCat("now ", *limit) : "not readable", ")");
}

}  // namespace

std::optional<uint64_t> ReadModuleLimit(absl::string_view module) {
  std::ifstream file(absl::StrCat("/sys/module/", module, "/parameters/limit"));
  uint64_t limit = 0;
  if (!(file >> limit)) return std::nullopt;
  return limit;
}

absl::Status OpenError(int error, absl::string_view device, absl::string_view module) {
  const std::string text = absl::StrCat("open ", device, ": ", ErrnoText(error));
  switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return absl::NotFoundError(
          absl::StrCat(text, "; on Xen, load the driver with `modprobe ", module, "`"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(text, "; run as root or give this user access to the device"));
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status MapError(int error, DomainId domain, size_t pages, std::optional<uint64_t> limit) {
  const std::string text =
      absl::StrCat("map ", pages, " pages of domain ", domain, ": ", ErrnoText(error));
  // gntdev answers EINVAL to a request over its limit, as to any entry that Xen refuses.
  if (error == EINVAL && limit && pages > *limit) {
    return absl::ResourceExhaustedError(absl::StrCat(
        text, "; over gntdev's limit for one request: raise ", LimitText("xen_gntdev", limit)));
  }
  switch (error) {
    case EINVAL:
    case ENOENT:
    case EPERM:
    case EACCES:
    case ESRCH:
      return absl::InvalidArgumentError(absl::StrCat(
          text,
          "; Xen refused at least one grant: unused, granted to another domain or read-only, "
          "mapped more than 63 times already, or the domain does not exist. If the grants are "
          "right, this domain is out of mapping "
          "handles: raise gnttab_max_maptrack_frames on Xen's command line"));
    case ENOSPC:
    case ENOMEM:
    case E2BIG:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(absl::StrCat(
          text, "; raise gnttab_max_maptrack_frames on Xen's command line, ",
          LimitText("xen_gntdev", limit), ", this domain's memory or vm.max_map_count"));
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status CopyError(int status, DomainId domain, GrantRef ref) {
  const std::string text =
      absl::StrCat("copy grant ", ref, " of domain ", domain, ": Xen's status ", status);
  switch (status) {
    case GNTST_bad_domain:
      return absl::InvalidArgumentError(absl::StrCat(text, "; the domain does not exist"));
    case GNTST_bad_gntref:
    case GNTST_permission_denied:
    case GNTST_general_error:
    case GNTST_bad_page:
      return absl::InvalidArgumentError(
          absl::StrCat(text, "; the grant is unused or made to another domain"));
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status ShareError(int error, DomainId domain, size_t pages, std::optional<uint64_t> limit) {
  const std::string text =
      absl::StrCat("share ", pages, " pages with domain ", domain, ": ", ErrnoText(error));
  switch (error) {
    case ENOSPC:
    case E2BIG:
      return absl::ResourceExhaustedError(absl::StrCat(
          text, "; raise gntalloc's limit of shared pages, ", LimitText("xen_gntalloc", limit),
          ", or this domain's grant table (max_grant_frames in its xl config; 64 frames of 512 "
          "grants by default)"));
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat(text, "; this domain is out of memory: share fewer pages"));
    case EINVAL:
      return absl::InvalidArgumentError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status EventError(int error, absl::string_view what) {
  const std::string text = absl::StrCat(what, ": ", ErrnoText(error));
  switch (error) {
    case EINVAL:
    case ENOENT:
    case ESRCH:
    case EPERM:
    case EACCES:
    case ENOTCONN:
    case EBUSY:
    case EEXIST:
      return absl::InvalidArgumentError(absl::StrCat(
          text,
          "; no such domain or port, or the port is not for this domain, bound already or "
          "not of this handle"));
    case ENOSPC:
    case ENOMEM:
      return absl::ResourceExhaustedError(absl::StrCat(
          text, "; out of event channels: raise event_channels in the domain's xl config"));
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status DomainListError(int error) {
  const std::string text = absl::StrCat("ask Xen for its domains: ", ErrnoText(error));
  switch (error) {
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat(text, "; only a control domain may"));
    case EACCES:  // what Xen answers to another version of its interface
      return absl::FailedPreconditionError(
          absl::StrCat(text,
                       "; libxenctrl is not of the running Xen's version: install the one "
                       "that came with it"));
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status CheckDomain(DomainId domain) {
  if (domain < kFirstReservedDomain) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("domain ", domain, " is not a domain (0..", kFirstReservedDomain - 1, ")"));
}

}  // namespace vmsg::grants
