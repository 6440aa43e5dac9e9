// SPDX-License-Identifier: Apache-2.0
#include "grants/platform.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/handles.h"
#include "grants/emulated/protocol.h"

namespace vmsg::grants {
namespace {

class EmulatedPlatform final : public Platform {
 public:
  explicit EmulatedPlatform(std::string directory) : directory_(std::move(directory)) {}

  absl::StatusOr<std::unique_ptr<GrantMapper>> OpenGrantMapper() override {
    return emu::OpenGrantMapper(directory_);
  }
  absl::StatusOr<std::unique_ptr<GrantSharer>> OpenGrantSharer() override {
    return emu::OpenGrantSharer(directory_);
  }
  absl::StatusOr<std::unique_ptr<EventChannels>> OpenEventChannels() override {
    return emu::OpenEventChannels(directory_);
  }
  std::string store_socket() const override {
    return absl::StrCat(directory_, "/", emu::kStoreSocket);
  }
  std::string name() const override { return absl::StrCat("emulated:", directory_); }

 private:
  const std::string directory_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Platform>> OpenEmulatedPlatform(absl::string_view dir) {
  while (dir.size() > 1 && absl::ConsumeSuffix(&dir, "/")) {
  }
  if (dir.empty()) {
    return absl::InvalidArgumentError(
        "--xen=emulated: needs the directory that xen-emu serves: --xen=emulated:<dir>");
  }
  const std::string directory(dir);
  // Connecting once tells now, and not at the first grant, that nobody serves there.
  auto probe = emu::Connection::Open(absl::StrCat(directory, "/", emu::kHypervisorSocket));
  if (!probe.ok()) return probe.status();
  return std::make_unique<EmulatedPlatform>(directory);
}

}  // namespace vmsg::grants
