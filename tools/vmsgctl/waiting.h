// SPDX-License-Identifier: Apache-2.0
// Waiting for the store to say something, for a bounded time.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "xenstore/store.h"

namespace vmsg::ctl {

// Watches `path` and asks `condition` whenever something changed there or below, until it is true
// or `limit` has passed. False: the time is over. Errors of the store or the condition are
// returned.
absl::StatusOr<bool> WaitFor(xenstore::Store& store, const std::string& path, absl::Duration limit,
                             absl::FunctionRef<absl::StatusOr<bool>()> condition);

}  // namespace vmsg::ctl
