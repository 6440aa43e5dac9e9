// SPDX-License-Identifier: Apache-2.0
// The listeners that wait for the end of a batch of completions.
#pragma once

#include <algorithm>
#include <vector>

#include "backend/devices/async_file_io.h"

namespace vmsg::backend {

class BatchListeners {
 public:
  void Add(BatchListener* listener) {
    if (std::find(waiting_.begin(), waiting_.end(), listener) == waiting_.end()) {
      waiting_.push_back(listener);
    }
  }

  void Remove(BatchListener* listener) {
    std::erase(waiting_, listener);
    std::replace(running_.begin(), running_.end(), listener, static_cast<BatchListener*>(nullptr));
  }

  // Tells each once. A listener may add and remove any, itself included.
  // True when there was one.
  bool Run() {
    if (waiting_.empty()) return false;
    running_.swap(waiting_);
    for (size_t i = 0; i < running_.size(); ++i) {
      if (running_[i] != nullptr) running_[i]->OnBatchEnd();
    }
    running_.clear();
    return true;
  }

 private:
  std::vector<BatchListener*> waiting_;
  std::vector<BatchListener*> running_;
};

}  // namespace vmsg::backend
