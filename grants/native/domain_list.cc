// SPDX-License-Identifier: Apache-2.0
#include "grants/domain_list.h"

#include <array>
#include <cerrno>
#include <memory>

extern "C" {  // the header does not say so itself
#include <xenctrl.h>
}

#include "grants/native/driver_errors.h"
#include "grants/native/native_devices.h"

namespace vmsg::grants {
namespace {

// Domains of one hypercall: its buffer is about 30 KiB.
constexpr size_t kBatch = 256;

struct CloseHandle {
  void operator()(xc_interface* handle) const { xc_interface_close(handle); }
};

class NativeDomainList final : public DomainList {
 public:
  explicit NativeDomainList(xc_interface* handle) : handle_(handle) {}

  absl::StatusOr<std::vector<DomainInfo>> List() override {
    std::vector<DomainInfo> domains;
    // Xen keeps its domains by ascending domid and answers with those from `first` on.
    for (uint32_t first = 0; first < kFirstReservedDomain;) {
      const int count = xc_domain_getinfolist(handle_.get(), first, kBatch, batch_.data());
      if (count < 0) return DomainListError(errno);
      for (int i = 0; i < count; ++i) {
        const xc_domaininfo_t& info = batch_[i];
        // Ids past the domains' are Xen's own.
        if (info.domain < first || info.domain >= kFirstReservedDomain) return domains;
        first = info.domain + 1;
        domains.push_back({.id = info.domain,
                           .dying = (info.flags & XEN_DOMINF_dying) != 0,
                           .shut_down = (info.flags & XEN_DOMINF_shutdown) != 0});
      }
      if (count < static_cast<int>(kBatch)) break;
    }
    return domains;
  }

 private:
  const std::unique_ptr<xc_interface, CloseHandle> handle_;
  std::array<xc_domaininfo_t, kBatch> batch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DomainList>> OpenNativeDomainList() {
  xc_interface* handle = xc_interface_open(SilentXenLogger(), SilentXenLogger(), 0);
  if (handle == nullptr) return OpenError(errno, "/dev/xen/privcmd", "xen_privcmd");
  return std::make_unique<NativeDomainList>(handle);
}

}  // namespace vmsg::grants
