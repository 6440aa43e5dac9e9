// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <memory>
#include <string>

#include "grants/native/domain_type.h"
#include "grants/native/native_devices.h"
#include "grants/platform.h"

namespace vmsg::grants {
namespace {

// Stateless: each device is opened when it is asked for, so a frontend needs no gntdev and a
// backend no gntalloc.
class NativePlatform final : public Platform {
 public:
  absl::StatusOr<std::unique_ptr<GrantMapper>> OpenGrantMapper() override {
    return OpenNativeGrantMapper();
  }
  absl::StatusOr<std::unique_ptr<GrantSharer>> OpenGrantSharer() override {
    return OpenNativeGrantSharer();
  }
  absl::StatusOr<std::unique_ptr<EventChannels>> OpenEventChannels() override {
    return OpenNativeEventChannels();
  }
  absl::StatusOr<std::unique_ptr<DomainList>> OpenDomainList() override {
    return OpenNativeDomainList();
  }
  bool unmapping_is_unsafe_during_io() const override {
    std::ifstream file("/sys/hypervisor/guest_type");
    std::string type;
    std::getline(file, type);
    return !IsTranslatedDomain(type);
  }
  std::string store_socket() const override { return ""; }
  // The one inode of it, whatever a program sees of the file system otherwise.
  std::string lock_path() const override { return "/dev/xen/evtchn"; }
  std::string name() const override { return "native"; }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Platform>> OpenNativePlatform() {
  return std::make_unique<NativePlatform>();
}

}  // namespace vmsg::grants
