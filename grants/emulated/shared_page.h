// SPDX-License-Identifier: Apache-2.0
// A structure in memory shared by two processes.
#pragma once

#include <sys/mman.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grants/emulated/connection.h"

namespace vmsg::emu {

// The file is not kept: a service has a page of every guest.
template <class T>
class SharedPage {
 public:
  SharedPage() = default;
  SharedPage(SharedPage&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  SharedPage& operator=(SharedPage&& other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~SharedPage() {
    if (page_ != nullptr) munmap(page_, sizeof(T));
  }

  // `file`: of at least the size of T. ResourceExhausted: it cannot be mapped, or is none.
  static absl::StatusOr<SharedPage> Map(const OwnedFd& file) {
    void* base = file ? mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0)
                      : MAP_FAILED;
    if (base == MAP_FAILED) {
      return absl::ResourceExhaustedError("emulated Xen: cannot map a shared page");
    }
    SharedPage page;
    page.page_ = static_cast<T*>(base);
    return page;
  }

  T* get() const { return page_; }
  T* operator->() const { return page_; }

 private:
  T* page_ = nullptr;
};

}  // namespace vmsg::emu
