// SPDX-License-Identifier: Apache-2.0
#include "tests/end-to-end/machine.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmsg::test {

absl::StatusOr<std::unique_ptr<Machine>> Machine::Start(std::vector<std::string> service_options,
                                                        bool in_driver_domain) {
  std::unique_ptr<Machine> machine(new Machine);
  std::string pattern = (std::filesystem::temp_directory_path() / "vmsg-machine.XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return absl::ErrnoToStatus(errno, "mkdtemp");
  machine->directory_ = pattern;
  machine->service_options_ = std::move(service_options);
  absl::StatusOr<std::unique_ptr<EmulatedXen>> xen = EmulatedXen::Start();
  if (!xen.ok()) return xen.status();
  machine->xen_ = *std::move(xen);
  if (in_driver_domain) {
    absl::StatusOr<grants::DomainId> domain = machine->xen_->CreateDomain("driver");
    if (!domain.ok()) return domain.status();
    machine->service_domain_ = *domain;
  }
  if (absl::Status started = machine->StartService(); !started.ok()) return started;
  return machine;
}

Machine::~Machine() {
  // The service first, so that it still finds its Xen while it ends.
  service_ = ChildProcess();
  xen_.reset();
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

std::vector<std::string> Machine::ServiceCommand() const {
  // Not this machine's own configs, unless a test has some.
  std::vector<std::string> command = {
      VMSGD_PROGRAM, absl::StrCat("--xen=", xen_->XenOption(service_domain_)), "--config-dir="};
  command.insert(command.end(), service_options_.begin(), service_options_.end());
  return command;
}

absl::StatusOr<Finished> Machine::RunSecondService() { return RunProgram(ServiceCommand()); }

absl::Status Machine::StartService() {
  absl::StatusOr<ChildProcess> service = ChildProcess::Start(ServiceCommand(), log_path());
  if (!service.ok()) return service.status();
  service_ = *std::move(service);
  absl::StatusOr<std::string> line = service_.ReadLine();
  if (!line.ok() || *line != "ready") {
    return absl::InternalError(absl::StrCat("vmsgd did not become ready: ", service_log()));
  }
  return absl::OkStatus();
}

absl::StatusOr<grants::DomainId> Machine::CreateGuest(const std::string& name,
                                                      const std::vector<std::string>& entries) {
  absl::StatusOr<grants::DomainId> domain = xen_->CreateDomain(name);
  if (!domain.ok() || entries.empty()) return domain;
  std::vector<std::string> command = {"attach", name, absl::StrCat("--backend=", service_domain_)};
  command.insert(command.end(), entries.begin(), entries.end());
  absl::StatusOr<Finished> attached = Ctl(command);
  if (!attached.ok()) return attached.status();
  if (attached->exit_status != 0) {
    return absl::InternalError(absl::StrCat("vmsgctl attach: ", attached->err, service_log()));
  }
  return domain;
}

absl::StatusOr<Finished> Machine::Ctl(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(),
                   {VMSGCTL_PROGRAM, absl::StrCat("--xen=", xen_->XenOption(0))});
  return RunProgram(arguments);
}

std::vector<std::string> Machine::FrontendCommand(grants::DomainId domain,
                                                  std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(),
                   {VMSG_FRONTEND_PROGRAM, absl::StrCat("--xen=", xen_->XenOption(domain))});
  return arguments;
}

absl::StatusOr<Finished> Machine::Frontend(grants::DomainId domain,
                                           std::vector<std::string> arguments,
                                           const std::string& input) {
  return RunProgram(FrontendCommand(domain, std::move(arguments)), input);
}

absl::StatusOr<std::unique_ptr<frontend::BusConnection>> Machine::Connect(
    grants::DomainId domain, const frontend::ConnectOptions& options) {
  absl::StatusOr<std::unique_ptr<grants::Platform>> platform = xen_->OpenPlatform(domain);
  if (!platform.ok()) return platform.status();
  return frontend::BusConnection::Open(**platform, options);
}

std::string Machine::MakeFile(const std::string& name, const std::string& content) {
  std::ofstream(PathOf(name), std::ios::binary) << content;
  return PathOf(name);
}

std::string Machine::Pattern(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

std::string Machine::Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace vmsg::test
