// SPDX-License-Identifier: Apache-2.0
// An emulated machine for a test: xen-emu as a child process, in a fresh temporary directory.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grants/platform.h"
#include "grants/xen_types.h"
#include "tools/xen-emu/control/control.h"

namespace vmsg::test {

// One thread at a time; what it opens may be used from others. Everything ends with it, also when
// the test's process is killed.
class EmulatedXen {
 public:
  // Starts `xen-emu serve` with these further options and waits until it serves.
  static absl::StatusOr<std::unique_ptr<EmulatedXen>> Start(
      const std::vector<std::string>& options = {});
  ~EmulatedXen();
  EmulatedXen(const EmulatedXen&) = delete;
  EmulatedXen& operator=(const EmulatedXen&) = delete;

  // Name empty: xen-emu chooses one.
  absl::StatusOr<grants::DomainId> CreateDomain(const std::string& name = "", int memory_mib = 256);
  absl::Status Destroy(grants::DomainId domain);
  absl::Status ShutDown(grants::DomainId domain);

  // {"map-fail", "1", "3"}: tools/xen-emu/faults.h.
  absl::StatusOr<std::string> Fault(const std::vector<std::string>& arguments);

  // What is in use, from `xen-emu debug`; all zero for a domain that is gone for good.
  struct Counts {
    std::string state;  // running, shutdown, zombie; empty: gone
    long grants = 0;    // that it made, the deferred ones included
    long deferred = 0;  // ended while mapped, not yet released
    long pinned = 0;    // mappings of its pages by others
    long maps = 0;      // pages of others that it maps
    long used_pages = 0;
    long ports = 0;
    long bound = 0;
  };
  absl::StatusOr<Counts> DomainCounts(grants::DomainId domain);
  // `xen-emu debug`, whole.
  absl::StatusOr<std::string> Debug();
  absl::StatusOr<std::string> List();

  const std::string& directory() const { return directory_; }
  // The directory that makes a program be this domain.
  std::string DomainDirectory(grants::DomainId domain) const;
  // The value of --xen for a program in this domain.
  std::string XenOption(grants::DomainId domain) const;
  // XENSTORED_PATH for a program in this domain.
  std::string StoreSocket(grants::DomainId domain) const;
  absl::StatusOr<std::unique_ptr<grants::Platform>> OpenPlatform(grants::DomainId domain) const;

  pid_t pid() const { return pid_; }

 private:
  EmulatedXen() = default;
  absl::Status StartProcess(const std::vector<std::string>& options);

  std::string directory_;
  pid_t pid_ = -1;
  int stdin_ = -1;  // the child ends when it closes
  std::unique_ptr<emu::Control> control_;
};

}  // namespace vmsg::test
