// SPDX-License-Identifier: Apache-2.0
// A guest's share of the disk I/O: parts, limits, order, withdrawal, and what a copied transfer
// shows of the memory that it went through. The same bodies with and without copying.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "backend/devices/async_file_io.h"
#include "tests/devices/held_file_io.h"
#include "tests/devices/manual_loop.h"

namespace vmsg::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kMiB = 1 << 20;

class GuestFileIoTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr size_t kDisk = 12 * kMiB;

  // A request on a buffer of its own.
  struct Request : backend::FileOperation {
    Request(std::string content, const std::vector<size_t>& cuts) : bytes(std::move(content)) {
      size_t at = 0;
      for (const size_t cut : cuts) {
        vector.push_back({bytes.data() + at, cut});
        at += cut;
      }
      vector.push_back({bytes.data() + at, bytes.size() - at});
      done = [](backend::FileOperation* operation, int64_t result) {
        auto* const self = static_cast<Request*>(operation);
        self->result = result;
        self->ended->push_back(self->number);
      };
    }
    static constexpr int64_t kPending = INT64_MIN;
    std::string bytes;
    std::vector<iovec> vector;
    int64_t result = kPending;
    int number = 0;
    std::vector<int>* ended = nullptr;
  };

  void SetUp() override {
    auto share = backend::NewGuestFileIo(&disk_, &loop_, GetParam());
    ASSERT_TRUE(share.ok()) << share.status();
    io_ = *std::move(share);
    disk_.cached.clear();
    while (disk_.cached.size() < kDisk) disk_.cached += "a pattern of 23 bytes..";
    disk_.cached.resize(kDisk);
  }

  Request& Make(std::string content, const std::vector<size_t>& cuts = {}) {
    Request& request = requests_.emplace_back(std::move(content), cuts);
    request.number = static_cast<int>(requests_.size());
    request.ended = &ended_;
    return request;
  }
  Request& Read(size_t size, uint64_t offset, const std::vector<size_t>& cuts = {}) {
    Request& request = Make(std::string(size, '?'), cuts);
    io_->Readv(&request, 7, request.vector.data(), request.vector.size(), offset);
    return request;
  }
  Request& Write(std::string content, uint64_t offset, const std::vector<size_t>& cuts = {},
                 bool dsync = false) {
    Request& request = Make(std::move(content), cuts);
    io_->Writev(&request, 7, request.vector.data(), request.vector.size(), offset, dsync);
    return request;
  }
  size_t most_at_work() const {
    return GetParam() ? backend::GuestIoLimits::kBouncedBytes : backend::GuestIoLimits::kBytes;
  }
  size_t most_of_part() const {
    return GetParam() ? backend::GuestIoLimits::kBouncedBytesOfPart
                      : backend::GuestIoLimits::kBytesOfPart;
  }
  size_t AtWork() const {
    size_t bytes = 0;
    for (size_t i = 0; i < disk_.pending(); ++i) bytes += BytesOf(i);
    return bytes;
  }
  size_t BytesOf(size_t index) const {
    size_t bytes = 0;
    for (uint32_t i = 0; i < disk_.At(index).piece_count; ++i) {
      bytes += disk_.At(index).pieces[i].iov_len;
    }
    return bytes;
  }

  HeldFileIo disk_{kDisk};
  ManualLoop loop_;
  std::deque<Request> requests_;
  std::vector<int> ended_;
  std::unique_ptr<backend::AsyncFileIo> io_;
};

TEST_P(GuestFileIoTest, PiecesOfAnyLengthAreReadAndWritten) {
  Request& read = Read(5000, 300, {1, 511, 4000});
  disk_.CompleteAll();
  EXPECT_EQ(read.result, 5000);
  EXPECT_EQ(read.bytes, disk_.cached.substr(300, 5000));
  Request& write = Write(std::string(3000, 'W'), 100, {7, 2048}, /*dsync=*/true);
  ASSERT_EQ(disk_.pending(), 1u);
  EXPECT_TRUE(disk_.At(0).dsync);
  EXPECT_EQ(disk_.At(0).fd, 7);
  disk_.CompleteAll();
  EXPECT_EQ(write.result, 3000);
  EXPECT_EQ(disk_.stable.substr(100, 3000), std::string(3000, 'W'));
}

// What the end of the process, or of the window, would leave pinned.
TEST_P(GuestFileIoTest, ACopiedRequestNamesNoMemoryOfTheGuests) {
  EXPECT_EQ(io_->copies(), GetParam());
  Request& read = Read(8192, 0, {1000});
  Request& write = Write(std::string(8192, 'w'), 8192, {1000});
  for (size_t i = 0; i < 2; ++i) {
    const Request& request = i == 0 ? read : write;
    const auto* const base = static_cast<const char*>(disk_.At(i).pieces[0].iov_base);
    const bool names_it =
        base >= request.bytes.data() && base < request.bytes.data() + request.bytes.size();
    EXPECT_EQ(names_it, !GetParam());
    EXPECT_EQ(disk_.At(i).piece_count, GetParam() ? 1u : 2u);
    if (GetParam()) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(base) % 4096, 0u);
    }
  }
  disk_.CompleteAll();
}

TEST_P(GuestFileIoTest, LargeTransfersGoInPartsBehindWhatOthersBegan) {
  const size_t size = 2 * most_of_part() + 5;
  const std::vector<size_t> cuts = {most_of_part() + 3, 512};
  Request& large = Read(size, 11, cuts);
  ASSERT_EQ(disk_.pending(), 1u);
  EXPECT_EQ(BytesOf(0), most_of_part());
  Request& other = Read(512, 0);
  EXPECT_EQ(disk_.pending(), 2u);
  disk_.CompleteAll();
  EXPECT_EQ(large.result, static_cast<int64_t>(size));
  EXPECT_EQ(other.result, 512);
  EXPECT_TRUE(large.bytes == disk_.cached.substr(11, size)) << "too long to be shown";

  std::string content;
  while (content.size() < size) content += "another of 19 bytes";
  content.resize(size);
  Request& write = Write(content, 11, cuts);
  disk_.CompleteAll();
  EXPECT_EQ(write.result, static_cast<int64_t>(size));
  EXPECT_TRUE(disk_.cached.substr(11, size) == content) << "too long to be shown";
}

TEST_P(GuestFileIoTest, WhatIsOverTheLimitWaitsAndNothingFails) {
  const size_t count = 2 * most_at_work() / kMiB;
  std::vector<int> in_order;
  for (size_t i = 0; i < count; ++i) {
    in_order.push_back(static_cast<int>(i + 1));
    Read(kMiB, 0);
  }
  EXPECT_EQ(AtWork(), most_at_work());
  Request& small = Read(512, 0);
  EXPECT_EQ(AtWork(), most_at_work()) << "a small one does not overtake";
  in_order.push_back(small.number);
  while (disk_.pending() > 0) {
    disk_.Complete();
    ASSERT_LE(AtWork(), most_at_work());
  }
  EXPECT_EQ(ended_, in_order);
  for (const Request& request : requests_) {
    ASSERT_EQ(request.result, static_cast<int64_t>(request.bytes.size()));
  }
}

TEST_P(GuestFileIoTest, TwoGuestsDoNotShareALimit) {
  auto other = backend::NewGuestFileIo(&disk_, &loop_, GetParam());
  ASSERT_TRUE(other.ok());
  for (size_t i = 0; i < 2 * most_at_work() / kMiB; ++i) Read(kMiB, 0);
  const size_t before = disk_.pending();
  Request& request = Make(std::string(512, '?'));
  (*other)->Readv(&request, 7, request.vector.data(), 1, 0);
  ASSERT_EQ(disk_.pending(), before + 1);
  disk_.Complete(before);
  EXPECT_EQ(request.result, 512);
  disk_.CompleteAll();
}

TEST_P(GuestFileIoTest, ErrorsEndATransferAndMakeRoom) {
  Request& failing = Read(3 * most_of_part(), 0);
  for (size_t i = 0; i < most_at_work() / kMiB; ++i) Read(kMiB, 0);
  ASSERT_EQ(AtWork(), most_at_work());
  disk_.Complete(0, EIO);
  EXPECT_EQ(AtWork(), most_at_work()) << "another has its place";
  EXPECT_EQ(failing.result, -EIO);
  disk_.CompleteAll();
  EXPECT_EQ(ended_.size(), requests_.size());
}

// A later request gets the memory of an earlier one, with what that left in it.
TEST_P(GuestFileIoTest, WhatAReadDidNotFillStaysAsItWas) {
  Write(std::string(8192, 'S'), 0);  // a secret, in the memory that comes next
  disk_.CompleteAll();
  Request& early = Read(8192, 0);
  disk_.Complete(0, 0, 1000);  // the file ends
  EXPECT_EQ(early.result, 1000);
  EXPECT_EQ(early.bytes.substr(1000), std::string(7192, '?'));
  Request& failed = Read(8192, 0);
  disk_.Complete(0, EIO);
  EXPECT_EQ(failed.result, -EIO);
  EXPECT_EQ(failed.bytes, std::string(8192, '?'));
}

TEST_P(GuestFileIoTest, AWriteIsOfTheBytesAtItsBegin) {
  Request& write = Write(std::string(4096, 'b'), 0);
  write.bytes.assign(4096, 'a');  // the guest changes them meanwhile
  disk_.CompleteAll();
  EXPECT_EQ(disk_.cached.substr(0, 4096), std::string(4096, GetParam() ? 'b' : 'a'));
}

TEST_P(GuestFileIoTest, WhatWaitsEndsWhenItIsWithdrawn) {
  for (size_t i = 0; i < most_at_work() / kMiB; ++i) Read(kMiB, 0);
  Request& first = Read(kMiB, 0);
  Request& second = Read(kMiB, 0);
  Request& third = Read(kMiB, 0);
  EXPECT_TRUE(io_->Withdraw(&second));
  EXPECT_TRUE(io_->Withdraw(&third));
  Request& fourth = Read(kMiB, 0);
  EXPECT_TRUE(io_->Withdraw(&first));
  disk_.CompleteAll();
  for (const Request* withdrawn : {&first, &second, &third}) {
    EXPECT_EQ(withdrawn->result, Request::kPending) << "not told";
    EXPECT_EQ(withdrawn->bytes, std::string(kMiB, '?'));
  }
  EXPECT_EQ(fourth.result, static_cast<int64_t>(kMiB));
}

TEST_P(GuestFileIoTest, AWithdrawnTransferEndsWithThePartThatIsAtWork) {
  Request& large = Read(3 * most_of_part(), 0);
  EXPECT_FALSE(io_->Withdraw(&large));
  EXPECT_TRUE(disk_.At(0).withdrawn) << "the disk's own queue knows, too";
  ASSERT_EQ(disk_.pending(), 1u);
  disk_.Complete();
  EXPECT_EQ(disk_.pending(), 0u);
  EXPECT_EQ(large.result, -ECANCELED);
  Request& last = Read(512, 0);
  EXPECT_FALSE(io_->Withdraw(&last));
  disk_.Complete();
  EXPECT_EQ(last.result, 512) << "nothing was left of it";
}

TEST_P(GuestFileIoTest, NothingWakesAGuestThatIsIdle) {
  Read(512, 0);
  disk_.CompleteAll();
  Read(512, 0);
  disk_.CompleteAll();
  loop_.Advance(2 * backend::GuestIoLimits::kIdle);
  loop_.Advance(2 * backend::GuestIoLimits::kIdle);
  EXPECT_EQ(loop_.timers(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Bounce, GuestFileIoTest, ::testing::Bool());

}  // namespace
}  // namespace vmsg::testing
