// SPDX-License-Identifier: Apache-2.0
// The commands of vmsgctl. They return the program's exit status.
#pragma once

#include <ostream>

#include "absl/strings/string_view.h"
#include "text/foreign_text.h"
#include "tools/vmsgctl/arguments.h"
#include "xenstore/store.h"

namespace vmsg::ctl {

// Where results go, and what went wrong. Much of a line is from the store, where others write, so
// each is cleaned as a whole.
struct Console {
  std::ostream& out;
  std::ostream& err;

  void Say(absl::string_view line) const { out << CleanText(line) << "\n"; }
  void Complain(absl::string_view line) const { err << "vmsgctl: " << CleanText(line) << "\n"; }
};

int List(const Arguments& arguments, xenstore::Store& store, Console console);
int Attach(const Arguments& arguments, xenstore::Store& store, Console console);
int Detach(const Arguments& arguments, xenstore::Store& store, Console console);

}  // namespace vmsg::ctl
