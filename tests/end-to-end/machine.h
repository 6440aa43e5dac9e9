// SPDX-License-Identifier: Apache-2.0
// A whole machine for a test: the emulated Xen, vmsgd in its Dom0, guests with devices.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "frontend-model/bus/bus_connection.h"
#include "tests/emulated-xen/emulated_xen.h"
#include "tests/end-to-end/child_process.h"

namespace vmsg::test {

// One thread at a time. Everything ends with it.
class Machine {
 public:
  // `service_options` go to vmsgd. It runs in Dom0, or in a domain "driver" of its own.
  static absl::StatusOr<std::unique_ptr<Machine>> Start(
      std::vector<std::string> service_options = {}, bool in_driver_domain = false);
  ~Machine();

  EmulatedXen& xen() { return *xen_; }
  ChildProcess& service() { return service_; }
  grants::DomainId service_domain() const { return service_domain_; }
  // After the service ended: starts it again.
  absl::Status StartService();
  // One more for the same Xen, to its end.
  absl::StatusOr<Finished> RunSecondService();

  // A new domain with these devices ("type=blk,path=..."), attached by vmsgctl.
  absl::StatusOr<grants::DomainId> CreateGuest(const std::string& name,
                                               const std::vector<std::string>& entries);
  absl::StatusOr<Finished> Ctl(std::vector<std::string> arguments);
  absl::StatusOr<Finished> Frontend(grants::DomainId domain, std::vector<std::string> arguments,
                                    const std::string& input = "");
  // The command line of vmsg-frontend as that guest, to be started in the background.
  std::vector<std::string> FrontendCommand(grants::DomainId domain,
                                           std::vector<std::string> arguments);
  // A frontend in this process.
  absl::StatusOr<std::unique_ptr<frontend::BusConnection>> Connect(
      grants::DomainId domain, const frontend::ConnectOptions& options = {});

  // A file in the machine's temporary directory with these bytes; its path.
  std::string MakeFile(const std::string& name, const std::string& content);
  // `size` bytes that look random and are the same for the same seed.
  static std::string Pattern(size_t size, uint32_t seed);
  static std::string Content(const std::string& path);
  std::string service_log() const { return Content(log_path()); }
  std::string PathOf(const std::string& name) const { return directory_ + "/" + name; }

 private:
  Machine() = default;
  std::vector<std::string> ServiceCommand() const;
  std::string log_path() const { return PathOf("vmsgd.log"); }

  std::string directory_;
  std::vector<std::string> service_options_;
  grants::DomainId service_domain_ = 0;
  std::unique_ptr<EmulatedXen> xen_;
  ChildProcess service_;
};

}  // namespace vmsg::test
