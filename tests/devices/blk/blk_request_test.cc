// SPDX-License-Identifier: Apache-2.0
// Reading block requests out of chains, whatever the framing.
#include "backend/devices/blk/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "backend/virtqueue/guest_bytes.h"

namespace vmsg::backend {
namespace {

std::string Header(uint32_t type, uint64_t sector) {
  wire::BlkRequestHeader header{type, 0, sector};
  return std::string(reinterpret_cast<char*>(&header), sizeof header);
}

// Cuts bytes into pieces at random places.
void Cut(std::string& bytes, std::mt19937& random, grants::IoVector* pieces, uint64_t* total) {
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t length = 1 + random() % std::min<size_t>(bytes.size() - at, 700);
    pieces->push_back({bytes.data() + at, length});
    at += length;
  }
  *total = bytes.size();
}

// [device:Basic Facilities of a Virtio Device / Message Framing] no assumption about how a request
// is split over descriptors.
TEST(BlkRequestTest, AnyFramingGivesTheSameRequest) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    const bool out = (random() & 1) != 0;
    const uint64_t sector = random();
    std::string data(random() % 2048, '\0');
    for (char& c : data) c = static_cast<char>(random());
    std::string readable = Header(out ? wire::kBlkRequestOut : wire::kBlkRequestIn, sector);
    std::string writable;
    (out ? readable : writable) += data;
    writable += '?';

    DescriptorChain chain;
    Cut(readable, random, &chain.readable, &chain.readable_bytes);
    Cut(writable, random, &chain.writable, &chain.writable_bytes);
    BlkRequest request;
    ASSERT_EQ(ParseBlkRequest(chain, &request), BlkParse::kOk);
    ASSERT_EQ(request.type, out ? wire::kBlkRequestOut : wire::kBlkRequestIn);
    ASSERT_EQ(request.sector, sector);
    ASSERT_EQ(request.data_bytes, data.size());
    ASSERT_EQ(request.status, reinterpret_cast<std::byte*>(&writable.back()));
    std::string seen(data.size(), '\0');
    ASSERT_EQ(ReadGuest(request.data, 0, std::as_writable_bytes(std::span(seen))), data.size());
    ASSERT_EQ(seen, data);
    std::byte more;
    ASSERT_EQ(ReadGuest(request.data, data.size(), std::span(&more, 1)), 0u);
  }
}

TEST(BlkRequestTest, ShortHeader) {
  std::string readable = Header(wire::kBlkRequestIn, 0).substr(0, 15);
  std::string writable(1, '?');
  DescriptorChain chain;
  chain.readable = {{readable.data(), 15}};
  chain.readable_bytes = 15;
  chain.writable = {{writable.data(), 1}};
  chain.writable_bytes = 1;
  BlkRequest request;
  EXPECT_EQ(ParseBlkRequest(chain, &request), BlkParse::kNoHeader);
  EXPECT_EQ(request.status, reinterpret_cast<std::byte*>(writable.data()));
}

TEST(BlkRequestTest, NoStatusByte) {
  std::string readable = Header(wire::kBlkRequestOut, 0) + std::string(512, 'x');
  DescriptorChain chain;
  chain.readable = {{readable.data(), readable.size()}};
  chain.readable_bytes = readable.size();
  BlkRequest request;
  EXPECT_EQ(ParseBlkRequest(chain, &request), BlkParse::kNoStatus);
  EXPECT_EQ(request.status, nullptr);
}

TEST(BlkRequestTest, RangesAreCheckedWithoutOverflow) {
  constexpr uint64_t kDisk = 100 * 512;
  const auto inside = [](uint64_t sector, uint64_t bytes) {
    BlkRequest request;
    request.sector = sector;
    request.data_bytes = bytes;
    return CheckInsideDisk(request, kDisk).ok();
  };
  EXPECT_TRUE(inside(0, kDisk));
  EXPECT_TRUE(inside(99, 512));
  EXPECT_TRUE(inside(100, 0));
  EXPECT_FALSE(inside(100, 512));
  EXPECT_FALSE(inside(99, 1024));
  EXPECT_FALSE(inside(0, kDisk + 512));
  EXPECT_FALSE(inside(0, 511)) << "part of a sector";
  EXPECT_FALSE(inside(UINT64_MAX, 512));
  EXPECT_FALSE(inside(UINT64_MAX / 512, 1024)) << "sector * 512 would wrap";
  EXPECT_FALSE(inside(uint64_t{1} << 55, 512));
}

}  // namespace
}  // namespace vmsg::backend
