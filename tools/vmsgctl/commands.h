// SPDX-License-Identifier: Apache-2.0
// The commands of vmsgctl. They return the program's exit status.
#pragma once

#include <ostream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "text/foreign_text.h"
#include "tools/vmsgctl/arguments.h"
#include "tools/vmsgctl/facts/servers.h"
#include "xenstore/store.h"
#include "xenstore/toolstack/attachment.h"

namespace vmsg::ctl {

// Where results go, and what went wrong. Much of a line is from the store, where others write, so
// each is cleaned as a whole.
class Console {
 public:
  Console(std::ostream& out, std::ostream& err) : out_(out), err_(err) {}
  void Say(absl::string_view line) const { out_ << CleanText(line) << "\n"; }
  void Complain(absl::string_view line) const { err_ << "vmsgctl: " << CleanText(line) << "\n"; }
  // For whole texts of which every part is clean.
  void Print(absl::string_view clean) const { out_ << clean; }

 private:
  std::ostream& out_;
  std::ostream& err_;
};

int List(const Arguments& arguments, xenstore::Store& store, Console console,
         const AskLiveness& ask);

// What is wrong with entries that can be seen before the first is attached; null: nothing is looked
// at.
using Check = absl::Status (*)(const std::vector<xenstore::AttachItem>& items);
int Attach(const Arguments& arguments, xenstore::Store& store, Console console,
           const AskLiveness& ask, Check check);
int Detach(const Arguments& arguments, xenstore::Store& store, Console console,
           const AskLiveness& ask);

}  // namespace vmsg::ctl
