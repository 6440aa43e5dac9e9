// SPDX-License-Identifier: Apache-2.0
// What becomes of an operation that nobody waits for any more.
#include <cerrno>
#include <string>

#include "tests/devices/uring_rig.h"

namespace vmsg::testing {
namespace {

using UringWithdrawalTest = UringFileIoTest;

TEST_F(UringWithdrawalTest, AWithdrawnTransferHasNoFurtherPart) {
  constexpr size_t kBytes = 9 << 20;
  const backend::UniqueFd fd = Open(dir_.File("f", kBytes));
  std::string bytes(kBytes, '?');
  iovec piece{bytes.data(), kBytes};
  Operation read;
  io_->Readv(&read, fd.get(), &piece, 1, 0);
  io_->Submit();
  EXPECT_FALSE(io_->Withdraw(&read));
  EXPECT_FALSE(read.ended()) << "not from within the call";
  ASSERT_TRUE(loop_.RunUntil([&] { return read.ended(); }));
  EXPECT_EQ(read.result, -ECANCELED);
  EXPECT_LE(read.transferred, 4 << 20);
  EXPECT_TRUE(loop_.Settle());
  EXPECT_EQ(bytes.back(), '?');
}

TEST_F(UringWithdrawalTest, WhatIsWithdrawnBeforeItIsSubmittedDoesNotBegin) {
  const std::string path = dir_.File("f", 512);
  const std::string before = TempDir::Content(path);
  const backend::UniqueFd fd = Open(path);
  std::string bytes(512, 'w');
  iovec pieces[] = {{bytes.data(), 256}, {bytes.data() + 256, 256}};
  Operation withdrawn, other;
  io_->Writev(&withdrawn, fd.get(), &pieces[0], 1, 0, false);
  io_->Writev(&other, fd.get(), &pieces[1], 1, 256, false);
  EXPECT_FALSE(io_->Withdraw(&withdrawn));
  Await(withdrawn);
  Await(other);
  EXPECT_EQ(withdrawn.result, -ECANCELED);
  EXPECT_EQ(other.result, 256);
  EXPECT_EQ(TempDir::Content(path), before.substr(0, 256) + std::string(256, 'w'));
  EXPECT_TRUE(loop_.Settle());
}

}  // namespace
}  // namespace vmsg::testing
