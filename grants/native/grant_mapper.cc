// SPDX-License-Identifier: Apache-2.0
#include "grants/grant_mapper.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <memory>

extern "C" {  // the header does not say so itself
#include <xengnttab.h>
}

#include "absl/strings/str_cat.h"
#include "grants/native/driver_errors.h"
#include "grants/native/native_devices.h"

namespace vmsg::grants {
namespace {

struct CloseMapper {
  void operator()(xengnttab_handle* handle) const { xengnttab_close(handle); }
};

// Thread-safe because the handle is no more than a file descriptor on Linux.
class NativeGrantMapper final : public GrantMapper {
 public:
  explicit NativeGrantMapper(xengnttab_handle* handle) : handle_(handle) {}

  absl::StatusOr<GrantMapping> Map(DomainId domain, absl::Span<const GrantRef> refs,
                                   Access access) override {
    // The library computes with count - 1, so 0 must not get there.
    if (refs.empty()) return absl::InvalidArgumentError("map 0 pages; map at least 1");
    if (absl::Status checked = CheckDomain(domain); !checked.ok()) return checked;
    const auto reserved = std::find_if(refs.begin(), refs.end(),
                                       [](GrantRef ref) { return ref < kReservedGrantRefs; });
    if (reserved != refs.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "map ", refs.size(), " pages of domain ", domain, ": grant ", *reserved, " at position ",
          reserved - refs.begin(), " is reserved by Xen (0..", kReservedGrantRefs - 1, ")"));
    }
    if (refs.size() > UINT32_MAX) return MapError(E2BIG, domain, refs.size(), std::nullopt);

    const int protection = access == Access::kReadWrite ? PROT_READ | PROT_WRITE : PROT_READ;
    // The parameter is not const in C, but only read.
    void* start =
        xengnttab_map_domain_grant_refs(handle_.get(), static_cast<uint32_t>(refs.size()), domain,
                                        const_cast<GrantRef*>(refs.data()), protection);
    if (start == nullptr) {
      const int error = errno;
      return MapError(error, domain, refs.size(), ReadModuleLimit("xen_gntdev"));
    }
    GrantMapping mapping(this, std::span(static_cast<std::byte*>(start), refs.size() * kPageSize));
    // A child must not keep the guest's pages alive. Always the whole range: a part would split it.
    if (madvise(start, mapping.bytes().size(), MADV_DONTFORK) != 0) {
      const int error = errno;
      return absl::InternalError(absl::StrCat("madvise(MADV_DONTFORK) on ", refs.size(),
                                              " pages of domain ", domain, ": errno ", error));
    }
    return mapping;
  }

  absl::Status Copy(DomainId domain, GrantRef ref, std::span<std::byte, kPageSize> to) override {
    if (absl::Status checked = CheckDomain(domain); !checked.ok()) return checked;
    if (ref < kReservedGrantRefs) {
      return absl::InvalidArgumentError(absl::StrCat("copy grant ", ref, " of domain ", domain,
                                                     ": reserved by Xen (0..",
                                                     kReservedGrantRefs - 1, ")"));
    }
    xengnttab_grant_copy_segment_t segment = {};
    segment.source.foreign.ref = ref;
    segment.source.foreign.domid = domain;
    segment.dest.virt = to.data();
    segment.len = kPageSize;
    segment.flags = GNTCOPY_source_gref;
    if (xengnttab_grant_copy(handle_.get(), 1, &segment) != 0) {
      const int error = errno;
      return absl::UnavailableError(absl::StrCat("copy grant ", ref, " of domain ", domain,
                                                 ": errno ", error, " from gntdev"));
    }
    if (segment.status != GNTST_okay) return CopyError(segment.status, domain, ref);
    return absl::OkStatus();
  }

 private:
  void Unmap(std::span<std::byte> bytes) override {
    [[maybe_unused]] const int result = xengnttab_unmap(
        handle_.get(), bytes.data(), static_cast<uint32_t>(bytes.size() / kPageSize));
    assert(result == 0);
  }

  const std::unique_ptr<xengnttab_handle, CloseMapper> handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrantMapper>> OpenNativeGrantMapper() {
  xengnttab_handle* handle = xengnttab_open(SilentXenLogger(), 0);
  if (handle == nullptr) return OpenError(errno, "/dev/xen/gntdev", "xen_gntdev");
  return std::make_unique<NativeGrantMapper>(handle);
}

}  // namespace vmsg::grants
