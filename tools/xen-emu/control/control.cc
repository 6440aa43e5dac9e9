// SPDX-License-Identifier: Apache-2.0
#include "tools/xen-emu/control/control.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grants/emulated/protocol.h"
#include "tools/xen-emu/commands.h"

namespace vmsg::emu {

absl::StatusOr<Control> Control::Open(const std::string& directory) {
  auto connection = Connection::Open(absl::StrCat(directory, "/", kHypervisorSocket));
  if (!connection.ok()) return connection.status();
  return Control(*std::move(connection));
}

absl::StatusOr<std::string> Control::Run(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument.find(kArgumentSeparator) != std::string::npos) {
      return absl::InvalidArgumentError("an argument cannot have a line break");
    }
  }
  const std::string command = absl::StrJoin(arguments, absl::string_view(&kArgumentSeparator, 1));
  if (command.size() > kMaxCommandSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("a command has at most ", kMaxCommandSize, " bytes, not ", command.size()));
  }
  absl::StatusOr<Reply> reply =
      connection_->Call(Operation::kCommand, std::as_bytes(std::span(command)));
  if (!reply.ok()) return reply.status();
  return std::string(reinterpret_cast<const char*>(reply->body.data()), reply->body.size());
}

}  // namespace vmsg::emu
