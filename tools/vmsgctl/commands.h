// SPDX-License-Identifier: Apache-2.0
// The commands of vmsgctl. Results go to `out`, and what went wrong to `err`, a line each. They
// return the program's exit status.
#pragma once

#include <ostream>

#include "tools/vmsgctl/arguments.h"
#include "xenstore/store.h"

namespace vmsg::ctl {

struct Console {
  std::ostream& out;
  std::ostream& err;
};

int List(const Arguments& arguments, xenstore::Store& store, Console console);
int Attach(const Arguments& arguments, xenstore::Store& store, Console console);
int Detach(const Arguments& arguments, xenstore::Store& store, Console console);

}  // namespace vmsg::ctl
