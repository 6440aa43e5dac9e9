// SPDX-License-Identifier: Apache-2.0
#include "backend/virtqueue/guest_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace vmsg::backend {
namespace {

class GuestBytesTest : public ::testing::Test {
 protected:
  char first_[4] = {'a', 'b', 'c', 'd'};
  char second_[1] = {'e'};
  char third_[3] = {'f', 'g', 'h'};
  const grants::IoVector pieces_ = {{first_, 4}, {second_, 1}, {third_, 3}};

  std::string Read(uint64_t offset, size_t size) {
    std::string out(size, '?');
    out.resize(ReadGuest(pieces_, offset, std::as_writable_bytes(std::span(out))));
    return out;
  }
};

TEST_F(GuestBytesTest, ReadsAcrossPieces) {
  EXPECT_EQ(Read(0, 8), "abcdefgh");
  EXPECT_EQ(Read(3, 3), "def");
  EXPECT_EQ(Read(4, 1), "e");
}

TEST_F(GuestBytesTest, ReadsNoMoreThanThereIs) {
  EXPECT_EQ(Read(6, 10), "gh");
  EXPECT_EQ(Read(8, 1), "");
  EXPECT_EQ(Read(UINT64_MAX, 1), "");
}

TEST_F(GuestBytesTest, WritesAcrossPiecesAndNotBeyond) {
  const std::string text = "12345678";
  EXPECT_EQ(WriteGuest(pieces_, 3, std::as_bytes(std::span(text))), 5u);
  EXPECT_EQ(Read(0, 8), "abc12345");
}

TEST_F(GuestBytesTest, ZeroesARange) {
  ZeroGuest(pieces_, 2, 4);
  EXPECT_EQ(Read(0, 8), std::string("ab\0\0\0\0gh", 8));
}

TEST_F(GuestBytesTest, SlicesAtAnyPlace) {
  grants::IoVector slice;
  EXPECT_TRUE(SlicePieces(pieces_, 2, 5, &slice));
  ASSERT_EQ(slice.size(), 3u);
  EXPECT_EQ(slice[0].iov_base, first_ + 2);
  EXPECT_EQ(slice[0].iov_len, 2u);
  EXPECT_EQ(slice[1].iov_len, 1u);
  EXPECT_EQ(slice[2].iov_len, 2u);
  EXPECT_TRUE(SlicePieces(pieces_, 8, 0, &slice));
  EXPECT_TRUE(slice.empty());
  EXPECT_FALSE(SlicePieces(pieces_, 7, 2, &slice));
}

}  // namespace
}  // namespace vmsg::backend
