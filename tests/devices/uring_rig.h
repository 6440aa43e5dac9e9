// SPDX-License-Identifier: Apache-2.0
// io_uring on files of the test's own, turned by hand.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "backend/devices/async_file_io.h"
#include "backend/devices/unique_fd.h"
#include "tests/devices/manual_loop.h"
#include "tests/devices/temp_dir.h"

namespace vmsg::testing {

struct Operation : backend::FileOperation {
  Operation() {
    done = [](backend::FileOperation* operation, int64_t result) {
      static_cast<Operation*>(operation)->result = result;
    };
  }
  static constexpr int64_t kPending = INT64_MIN;
  int64_t result = kPending;
  bool ended() const { return result != kPending; }
};

class UringFileIoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto io = backend::NewUringFileIo(&loop_);
    if (!io.ok()) GTEST_SKIP() << io.status();
    io_ = *std::move(io);
  }
  void Await(const Operation& operation) {
    io_->Submit();
    ASSERT_TRUE(loop_.RunUntil([&] { return operation.ended(); }));
  }
  backend::UniqueFd Open(const std::string& path) {
    return backend::UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  }

  TempDir dir_;
  ManualLoop loop_;
  std::unique_ptr<backend::AsyncFileIo> io_;
};

}  // namespace vmsg::testing
