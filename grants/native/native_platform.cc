// SPDX-License-Identifier: Apache-2.0
#include <memory>

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
  std::string store_socket() const override { return ""; }
  std::string name() const override { return "native"; }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Platform>> OpenNativePlatform() {
  return std::make_unique<NativePlatform>();
}

}  // namespace vmsg::grants
