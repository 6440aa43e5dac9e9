// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated-xen/emulated_xen.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace vmsg::test {
namespace {

#ifndef XEN_EMU_PROGRAM
#error "XEN_EMU_PROGRAM: the path of xen-emu"
#endif

absl::Status Failed(absl::string_view what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(error)));
}

// Up to the end of the line, the end of the file, or a size that a first line never has.
std::string ReadLine(int fd) {
  std::string line;
  char c;
  while (line.size() < 4096 && read(fd, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmulatedXen>> EmulatedXen::Start(
    const std::vector<std::string>& options) {
  auto xen = std::unique_ptr<EmulatedXen>(new EmulatedXen());
  char directory[] = "/tmp/xen-emu.XXXXXX";
  if (mkdtemp(directory) == nullptr) return Failed("no temporary directory", errno);
  xen->directory_ = directory;
  if (absl::Status status = xen->StartProcess(options); !status.ok()) return status;
  auto control = emu::Control::Open(xen->directory_);
  if (!control.ok()) return control.status();
  xen->control_ = std::make_unique<emu::Control>(*std::move(control));
  return xen;
}

absl::Status EmulatedXen::StartProcess(const std::vector<std::string>& options) {
  int input[2];
  int output[2];
  if (pipe2(input, O_CLOEXEC) != 0) return Failed("no pipe", errno);
  stdin_ = input[1];
  if (pipe2(output, O_CLOEXEC) != 0) return Failed("no pipe", errno);
  std::vector<std::string> arguments = {XEN_EMU_PROGRAM, "serve", "--until-stdin-closes", "--dir",
                                        directory_};
  arguments.insert(arguments.end(), options.begin(), options.end());
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  const int error = posix_spawn(&pid_, XEN_EMU_PROGRAM, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(input[0]);
  close(output[1]);
  const std::string line = error == 0 ? ReadLine(output[0]) : "";
  close(output[0]);
  if (error != 0) {
    pid_ = -1;
    return Failed(XEN_EMU_PROGRAM, error);
  }
  if (line != "ready") return absl::InternalError(absl::StrCat("xen-emu did not start: ", line));
  return absl::OkStatus();
}

EmulatedXen::~EmulatedXen() {
  control_.reset();
  if (pid_ > 0) {
    kill(pid_, SIGTERM);
    int status = 0;
    waitpid(pid_, &status, 0);
    // A sanitizer's report, or a crash: no test may pass over it.
    const bool crashed = WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL;
    if (crashed || (WIFEXITED(status) && WEXITSTATUS(status) != 0)) {
      fprintf(stderr, "xen-emu ended badly: wait status %#x\n", status);
      abort();
    }
  }
  if (stdin_ >= 0) close(stdin_);
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

absl::StatusOr<grants::DomainId> EmulatedXen::CreateDomain(const std::string& name,
                                                           int memory_mib) {
  auto text = control_->Run({"create", name, absl::StrCat(memory_mib)});
  if (!text.ok()) return text.status();
  uint32_t domain = 0;
  if (!absl::SimpleAtoi(*text, &domain)) return absl::InternalError("xen-emu gave no domid");
  return static_cast<grants::DomainId>(domain);
}

absl::Status EmulatedXen::Destroy(grants::DomainId domain) {
  return control_->Run({"destroy", absl::StrCat(domain)}).status();
}

absl::Status EmulatedXen::ShutDown(grants::DomainId domain) {
  return control_->Run({"shutdown", absl::StrCat(domain)}).status();
}

absl::StatusOr<std::string> EmulatedXen::Fault(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"fault"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return control_->Run(command);
}

absl::StatusOr<std::string> EmulatedXen::Debug() { return control_->Run({"debug"}); }
absl::StatusOr<std::string> EmulatedXen::List() { return control_->Run({"list"}); }

absl::StatusOr<EmulatedXen::Counts> EmulatedXen::DomainCounts(grants::DomainId domain) {
  auto text = Debug();
  if (!text.ok()) return text.status();
  Counts counts;
  const std::string first = absl::StrCat("domain=", domain);
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    std::map<absl::string_view, absl::string_view> values;
    for (absl::string_view word : absl::StrSplit(line, ' ')) {
      values.insert(absl::StrSplit(word, absl::MaxSplits('=', 1)));
    }
    if (!values.contains("domain") || absl::StrCat("domain=", values["domain"]) != first) continue;
    counts.state = std::string(values["state"]);
    const std::pair<const char*, long*> numbers[] = {
        {"grants", &counts.grants},        {"deferred", &counts.deferred},
        {"pinned", &counts.pinned},        {"maps", &counts.maps},
        {"ports", &counts.ports},          {"bound", &counts.bound},
        {"used-pages", &counts.used_pages}};
    for (const auto& [name, number] : numbers) {
      if (!absl::SimpleAtoi(values[name], number)) {
        return absl::InternalError(absl::StrCat("xen-emu debug has no ", name));
      }
    }
  }
  return counts;
}

std::string EmulatedXen::DomainDirectory(grants::DomainId domain) const {
  return domain == 0 ? directory_ : absl::StrCat(directory_, "/domains/", domain);
}
std::string EmulatedXen::XenOption(grants::DomainId domain) const {
  return absl::StrCat("emulated:", DomainDirectory(domain));
}
std::string EmulatedXen::StoreSocket(grants::DomainId domain) const {
  return absl::StrCat(DomainDirectory(domain), "/xenstored");
}
absl::StatusOr<std::unique_ptr<grants::Platform>> EmulatedXen::OpenPlatform(
    grants::DomainId domain) const {
  return grants::OpenPlatform(XenOption(domain));
}

}  // namespace vmsg::test
