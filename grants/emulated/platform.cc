// SPDX-License-Identifier: Apache-2.0
#include "grants/platform.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "grants/emulated/connection.h"
#include "grants/emulated/handles.h"
#include "grants/emulated/protocol.h"

namespace vmsg::grants {
namespace {

class EmulatedDomainList final : public DomainList {
 public:
  explicit EmulatedDomainList(std::unique_ptr<emu::Connection> connection)
      : connection_(std::move(connection)) {}

  absl::StatusOr<std::vector<DomainInfo>> List() override {
    absl::StatusOr<emu::Reply> reply = connection_->Call(emu::Operation::kListDomains, {});
    if (!reply.ok()) return reply.status();
    std::vector<emu::ListedDomain> listed;
    if (absl::Status status =
            reply->GetArray(0, reply->body.size() / sizeof(emu::ListedDomain), &listed);
        !status.ok()) {
      return status;
    }
    std::vector<DomainInfo> domains;
    domains.reserve(listed.size());
    for (const emu::ListedDomain& domain : listed) {
      domains.push_back(
          {.id = domain.id, .dying = domain.dying != 0, .shut_down = domain.shut_down != 0});
    }
    return domains;
  }

 private:
  const std::unique_ptr<emu::Connection> connection_;
};

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
  absl::StatusOr<std::unique_ptr<DomainList>> OpenDomainList() override {
    auto connection = emu::Connection::Open(absl::StrCat(directory_, "/", emu::kHypervisorSocket));
    if (!connection.ok()) return connection.status();
    return std::make_unique<EmulatedDomainList>(*std::move(connection));
  }
  bool unmapping_is_unsafe_during_io() const override { return false; }
  std::string store_socket() const override {
    return absl::StrCat(directory_, "/", emu::kStoreSocket);
  }
  std::string lock_path() const override { return absl::StrCat(directory_, "/", emu::kServerLock); }
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
