// SPDX-License-Identifier: Apache-2.0
// An AsyncFileIo on a disk in memory whose completions a test lets go one by one. It has a cache: a
// write is volatile until a Sync that started after it was done, or until it is done itself with
// dsync.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "backend/devices/async_file_io.h"
#include "backend/devices/io/batch_listeners.h"

namespace vmsg::testing {

class HeldFileIo final : public backend::AsyncFileIo {
 public:
  using Operation = backend::FileOperation;

  explicit HeldFileIo(size_t bytes) : cached(bytes, '\0'), stable(bytes, '\0') {}

  // The disk has it: the test lets it go.
  bool Withdraw(Operation* operation) override {
    operation->withdrawn = true;
    return false;
  }
  void Submit() override { ++submits; }
  void NotifyAtBatchEnd(backend::BatchListener* listener) override { listeners_.Add(listener); }
  void ForgetBatchListener(backend::BatchListener* listener) override {
    listeners_.Remove(listener);
  }

  size_t pending() const { return pending_.size(); }
  const Operation& At(size_t index) const { return *pending_[index].operation; }

  // Ends the operation as a disk does, or with `error` (an errno) instead, or after `limit` bytes.
  void Complete(size_t index = 0, int error = 0, size_t limit = SIZE_MAX) {
    const Pending pending = pending_[index];
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
    Operation* const operation = pending.operation;
    int64_t result = error != 0 ? -error : Transfer(*operation, limit);
    if (error == 0 && operation->kind == Operation::Kind::kSync) {
      stable = pending.snapshot;
      result = 0;
    }
    operation->done(operation, result);
    listeners_.Run();
  }
  void CompleteAll() {
    while (pending() > 0) Complete();
  }

  std::string cached;
  std::string stable;  // what a power cut leaves
  int submits = 0;

 private:
  struct Pending {
    Operation* operation;
    std::string snapshot;  // kSync: what it makes stable at least
  };

  void Start(Operation* operation) override {
    const bool sync = operation->kind == Operation::Kind::kSync;
    pending_.push_back({operation, sync ? cached : std::string()});
  }

  int64_t Transfer(const Operation& operation, size_t limit) {
    uint64_t at = operation.offset;
    for (uint32_t i = 0; i < operation.piece_count; ++i) {
      const size_t length = operation.pieces[i].iov_len;
      const size_t here = std::min({length, cached.size() - std::min<size_t>(at, cached.size()),
                                    limit - static_cast<size_t>(at - operation.offset)});
      char* const guest = static_cast<char*>(operation.pieces[i].iov_base);
      if (operation.kind == Operation::Kind::kRead) {
        std::memcpy(guest, cached.data() + at, here);
      } else {
        std::memcpy(cached.data() + at, guest, here);
        if (operation.dsync) std::memcpy(stable.data() + at, guest, here);
      }
      at += here;
      if (here < length) break;
    }
    return static_cast<int64_t>(at - operation.offset);
  }

  std::deque<Pending> pending_;
  backend::BatchListeners listeners_;
};

}  // namespace vmsg::testing
