// SPDX-License-Identifier: Apache-2.0
// Looks at what the entries of a config name before any of them is attached.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "xenstore/toolstack/attachment.h"

namespace vmsg::backend {

// InvalidArgument: the first entry that cannot be served, by its label, its key and the reason.
// Takes and makes nothing; waits for the disk as long as it takes.
absl::Status CheckItems(const std::vector<xenstore::AttachItem>& items);

// The same for a thread that others wait for: a path that does not answer within `patience` is let
// through, because opening it has a thread of its own. One thread at a time.
class PatientCheck {
 public:
  using Check = absl::AnyInvocable<absl::Status(const std::vector<xenstore::AttachItem>&) const>;

  explicit PatientCheck(absl::Duration patience, Check check = CheckItems);
  absl::Status operator()(const std::vector<xenstore::AttachItem>& items);

 private:
  struct Shared;
  const absl::Duration patience_;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace vmsg::backend
