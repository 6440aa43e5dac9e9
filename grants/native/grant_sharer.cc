// SPDX-License-Identifier: Apache-2.0
#include "grants/grant_sharer.h"

#include <cassert>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>

extern "C" {  // the header does not say so itself
#include <xengnttab.h>
}

#include "grants/native/driver_errors.h"
#include "grants/native/native_devices.h"

namespace vmsg::grants {
namespace {

struct CloseSharer {
  void operator()(xengntshr_handle* handle) const { xengntshr_close(handle); }
};

// Thread-safe because the handle is no more than a file descriptor on Linux.
class NativeGrantSharer final : public GrantSharer {
 public:
  explicit NativeGrantSharer(xengntshr_handle* handle) : handle_(handle) {}

  absl::StatusOr<SharedPages> Share(DomainId with, size_t pages, Access access) override {
    if (pages == 0) return absl::InvalidArgumentError("share 0 pages; share at least 1");
    if (absl::Status checked = CheckDomain(with); !checked.ok()) return checked;
    const std::optional<uint64_t> limit = ReadModuleLimit("xen_gntalloc");
    // Checked before the list of references is allocated; the library counts in int.
    if (pages > static_cast<size_t>(INT_MAX) || (limit && pages > *limit)) {
      return ShareError(ENOSPC, with, pages, limit);
    }
    std::vector<GrantRef> refs(pages);
    void* start = xengntshr_share_pages(handle_.get(), with, static_cast<int>(pages), refs.data(),
                                        access == Access::kReadWrite ? 1 : 0);
    if (start == nullptr) {
      const int error = errno;
      return ShareError(error, with, pages, limit);
    }
    return SharedPages(this, std::span(static_cast<std::byte*>(start), pages * kPageSize),
                       std::move(refs));
  }

 private:
  void Unshare(std::span<std::byte> bytes) override {
    [[maybe_unused]] const int result = xengntshr_unshare(
        handle_.get(), bytes.data(), static_cast<uint32_t>(bytes.size() / kPageSize));
    assert(result == 0);
  }

  const std::unique_ptr<xengntshr_handle, CloseSharer> handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrantSharer>> OpenNativeGrantSharer() {
  xengntshr_handle* handle = xengntshr_open(SilentXenLogger(), 0);
  if (handle == nullptr) return OpenError(errno, "/dev/xen/gntalloc", "xen_gntalloc");
  return std::make_unique<NativeGrantSharer>(handle);
}

}  // namespace vmsg::grants
