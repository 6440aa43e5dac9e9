// SPDX-License-Identifier: Apache-2.0
#include "backend/service/toolstack/toolstack_threads.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/runtime/rate_limited_log.h"
#include "backend/service/toolstack/entry_check.h"
#include "xenstore/introduction/introductions.h"
#include "xenstore/standalone/disk_claims.h"

namespace vmsg::backend {
namespace {

// xl is building the domain meanwhile.
constexpr absl::Duration kCheckPatience = absl::Seconds(2);

class IntroductionLog final : public xenstore::IntroductionListener {
 public:
  void OnAttached(uint16_t domain, const std::string& name, const std::string& config,
                  size_t devices) override {
    Log(LogLevel::kInfo, absl::StrCat("guest ", domain, " (", name, "): ", devices,
                                      " devices attached from ", config));
  }
  void OnRefused(uint16_t domain, const std::string& name, const absl::Status& reason) override {
    Log(LogLevel::kError,
        absl::StrCat("guest ", domain, " (", name, "): nothing attached: ", reason.message()));
  }
  void OnNoConfig(uint16_t domain, const std::string& name,
                  const std::string& surroundings) override {
    Log(LogLevel::kInfo,
        absl::StrCat("guest ", domain, " (", name, "): nothing to attach: ", surroundings));
  }
  void OnWarning(uint16_t domain, const std::string& name, const std::string& text) override {
    Log(LogLevel::kWarning, absl::StrCat("guest ", domain, " (", name, "): ", text));
  }
  void OnComplaint(const std::string& text) override { Log(LogLevel::kWarning, text); }
};

StoreThread::Make FollowConfigs(std::vector<std::string> directories, uint16_t self) {
  return [directories = std::move(directories),
          self](xenstore::Store& store) -> absl::StatusOr<StoreThread::Process> {
    auto listener = std::make_unique<IntroductionLog>();
    absl::StatusOr<std::unique_ptr<xenstore::Introductions>> introductions =
        xenstore::Introductions::Start(&store, listener.get(), xenstore::ConfigCatalog(directories),
                                       self, PatientCheck(kCheckPatience));
    if (!introductions.ok()) return introductions.status();
    return StoreThread::Process(
        [listener = std::move(listener), introductions = *std::move(introductions)] {
          return introductions->Process();
        });
  };
}

StoreThread::Make ClaimDisks(uint16_t self) {
  return [self](xenstore::Store& store) -> absl::StatusOr<StoreThread::Process> {
    absl::StatusOr<std::unique_ptr<xenstore::DiskClaims>> claims =
        xenstore::DiskClaims::Start(&store, self, [](bool error, const std::string& text) {
          Log(error ? LogLevel::kError : LogLevel::kInfo, text);
        });
    if (!claims.ok()) return claims.status();
    return StoreThread::Process([claims = *std::move(claims)] { return claims->Process(); });
  };
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<StoreThread>>> StartToolstackThreads(
    grants::Platform& platform, const ToolstackOptions& options, uint16_t self) {
  std::vector<std::unique_ptr<StoreThread>> threads;
  const auto start = [&](const std::string& name, StoreThread::Make make) -> absl::Status {
    absl::StatusOr<std::unique_ptr<xenstore::Store>> store =
        xenstore::OpenStore(platform.store_socket());
    if (!store.ok()) return store.status();
    absl::StatusOr<std::unique_ptr<StoreThread>> thread =
        StoreThread::Start(name, *std::move(store), std::move(make));
    if (!thread.ok()) return thread.status();
    threads.push_back(*std::move(thread));
    return absl::OkStatus();
  };
  if (!options.config_directories.empty()) {
    absl::Status status =
        start("following xl's configs", FollowConfigs(options.config_directories, self));
    if (!status.ok()) return status;
  }
  if (options.claim_standalone_disks) {
    if (absl::Status status = start("claiming standalone disks", ClaimDisks(self)); !status.ok()) {
      return status;
    }
  }
  return threads;
}

}  // namespace vmsg::backend
