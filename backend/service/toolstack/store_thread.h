// SPDX-License-Identifier: Apache-2.0
// A thread with a store connection of its own, for what may wait on the disk while it follows the
// store: nobody who is served waits with it.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "xenstore/store.h"

namespace vmsg::backend {

class StoreThread {
 public:
  // Takes what the store has to say; true: there is more to do, call again. An error: the store is
  // lost, and the thread ends.
  using Process = absl::AnyInvocable<absl::StatusOr<bool>()>;
  // Makes a Process on that connection, which outlives it. Called once, on the new thread; an error
  // ends the thread.
  using Make = absl::AnyInvocable<absl::StatusOr<Process>(xenstore::Store&)>;

  // `name`: for the log.
  static absl::StatusOr<std::unique_ptr<StoreThread>> Start(const std::string& name,
                                                            std::unique_ptr<xenstore::Store> store,
                                                            Make make);
  // Waits for its end, but not for a disk that does not answer: then the thread is left to the end
  // of the program.
  ~StoreThread();

 private:
  struct Shared;
  explicit StoreThread(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  const std::shared_ptr<Shared> shared_;
};

}  // namespace vmsg::backend
