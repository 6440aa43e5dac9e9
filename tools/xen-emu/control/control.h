// SPDX-License-Identifier: Apache-2.0
// Dom0's administrator at a running xen-emu.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grants/emulated/connection.h"

namespace vmsg::emu {

// One thread at a time.
class Control {
 public:
  // `directory`: what `xen-emu serve --dir` was given.
  static absl::StatusOr<Control> Open(const std::string& directory);

  // A command and its arguments (tools/xen-emu/commands.h); returns what it prints.
  absl::StatusOr<std::string> Run(const std::vector<std::string>& arguments);

 private:
  explicit Control(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
  std::unique_ptr<Connection> connection_;
};

}  // namespace vmsg::emu
