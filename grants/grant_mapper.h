// SPDX-License-Identifier: Apache-2.0
// Mapping and copying another domain's granted pages. Follows xengnttab.h
// (xengnttab_map_domain_grant_refs, xengnttab_grant_copy).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "grants/xen_types.h"

namespace vmsg::grants {

class GrantMapper;

// Pages of another domain, contiguous in this process, unmapped on destruction with the start and
// count that mapped them (a partial unmap would unmap grants, so a mapping is never split).
// Move-only. The mapper must outlive it. bytes() stays readable after the granting domain has died.
class GrantMapping {
 public:
  GrantMapping() = default;
  GrantMapping(GrantMapper* mapper, std::span<std::byte> bytes) : mapper_(mapper), bytes_(bytes) {}
  GrantMapping(GrantMapping&& other) noexcept { *this = std::move(other); }
  GrantMapping& operator=(GrantMapping&& other) noexcept {
    if (this != &other) {
      Reset();
      mapper_ = std::exchange(other.mapper_, nullptr);
      bytes_ = std::exchange(other.bytes_, {});
      kept_ = std::move(other.kept_);
    }
    return *this;
  }
  ~GrantMapping() { Reset(); }

  std::span<std::byte> bytes() const { return bytes_; }
  size_t pages() const { return bytes_.size() / kPageSize; }
  explicit operator bool() const { return !bytes_.empty(); }
  // `what` is let go of once the pages are unmapped, and not before.
  void KeepUntilUnmapped(std::shared_ptr<const void> what) { kept_ = std::move(what); }
  void Reset();

 private:
  GrantMapper* mapper_ = nullptr;
  std::span<std::byte> bytes_;
  std::shared_ptr<const void> kept_;
};

// Thread-safe. Map may block for long (Xen retries EAGAIN for ever inside), and Copy for a while:
// not for an I/O thread.
class GrantMapper {
 public:
  virtual ~GrantMapper() = default;

  // Maps refs[i] of `domain` at bytes()[i * kPageSize]: all of them or none.
  // InvalidArgument: no refs, a reserved ref, a domid that is none, or the hypervisor refused (a
  // ref unused, granted to
  //   another domain, or read-only when kReadWrite is asked; the domain does not exist).
  //   ResourceExhausted: out of handles or over the driver's limit; the message says which limit to
  //   raise.
  virtual absl::StatusOr<GrantMapping> Map(DomainId domain, absl::Span<const GrantRef> refs,
                                           Access access) = 0;

  // Copies the page that `domain` granted as `ref`, for reading too, into private memory: one
  // hypercall, where mapping and unmapping it takes several times as long. The guest may write
  // meanwhile: the copy is then of no one moment, but does not change any more.
  // InvalidArgument: a reserved ref, a domid that is none, or Xen refused (a ref unused or granted
  //   to another domain; the domain does not exist).
  // Unavailable: it did not work, and may later.
  virtual absl::Status Copy(DomainId domain, GrantRef ref, std::span<std::byte, kPageSize> to) = 0;

 private:
  friend class GrantMapping;
  virtual void Unmap(std::span<std::byte> bytes) = 0;
};

inline void GrantMapping::Reset() {
  if (mapper_ != nullptr) std::exchange(mapper_, nullptr)->Unmap(std::exchange(bytes_, {}));
  kept_.reset();
}

}  // namespace vmsg::grants
