// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/capture.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace vmsg::wire {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kMagicNanoseconds = 0xa1b23c4d;
constexpr uint32_t kMagicMicroseconds = 0xa1b2c3d4;
constexpr uint32_t kMagicNanosecondsSwapped = 0x4d3cb2a1;
constexpr uint32_t kMagicMicrosecondsSwapped = 0xd4c3b2a1;
constexpr uint32_t kLinkTypeUser0 = 147;

struct FileHeader {
  uint32_t magic;
  uint16_t version_major, version_minor;
  int32_t this_zone;
  uint32_t sigfigs;
  uint32_t snap_length;
  uint32_t link_type;  // the upper half has other uses
};
static_assert(sizeof(FileHeader) == kCaptureFileHeaderSize);

struct PacketHeader {
  uint32_t seconds;
  uint32_t fraction;
  uint32_t captured_length;
  uint32_t original_length;
  uint8_t direction;
  uint8_t zero;
  uint16_t frontend;
  uint32_t bus;
};
static_assert(sizeof(PacketHeader) == kCapturePacketHeaderSize);

constexpr uint32_t kPseudoHeaderSize = 8;  // ours, counted in pcap's lengths

}  // namespace

std::array<std::byte, kCaptureFileHeaderSize> CaptureFileHeader() {
  return std::bit_cast<std::array<std::byte, kCaptureFileHeaderSize>>(FileHeader{
      kMagicNanoseconds, 2, 4, 0, 0, kPseudoHeaderSize + kMaxCapturedMessage, kLinkTypeUser0});
}

std::array<std::byte, kCapturePacketHeaderSize> CapturePacketHeader(
    const CapturedMessage& message) {
  const uint32_t length = kPseudoHeaderSize + static_cast<uint32_t>(std::min(message.message.size(),
                                                                             kMaxCapturedMessage));
  PacketHeader header{};
  header.seconds = static_cast<uint32_t>(message.time_ns / 1'000'000'000);
  header.fraction = static_cast<uint32_t>(message.time_ns % 1'000'000'000);
  header.captured_length = length;
  header.original_length = length;
  header.direction = static_cast<uint8_t>(message.direction);
  header.frontend = message.frontend;
  header.bus = message.bus;
  return std::bit_cast<std::array<std::byte, kCapturePacketHeaderSize>>(header);
}

absl::StatusOr<CaptureFormat> ParseCaptureFileHeader(
    std::span<const std::byte, kCaptureFileHeaderSize> bytes) {
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic == kMagicNanosecondsSwapped || header.magic == kMagicMicrosecondsSwapped) {
    return absl::InvalidArgumentError(
        "a capture in big-endian byte order: convert it to little-endian pcap first");
  }
  if (header.magic != kMagicNanoseconds && header.magic != kMagicMicroseconds) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a pcap file: it begins with 0x", absl::Hex(header.magic, absl::kZeroPad8),
                     ", a capture of vmsgd with 0x", absl::Hex(kMagicNanoseconds)));
  }
  if (header.version_major != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("pcap version ", header.version_major, ", only 2 is known"));
  }
  if ((header.link_type & 0xffff) != kLinkTypeUser0) {
    return absl::InvalidArgumentError(absl::StrCat("link type ", header.link_type & 0xffff,
                                                   ", a capture of messages has ", kLinkTypeUser0,
                                                   " (USER0)"));
  }
  return CaptureFormat{header.magic == kMagicNanoseconds};
}

absl::StatusOr<std::optional<CapturePacket>> ParseCapturePacket(const CaptureFormat& format,
                                                                std::span<const std::byte> bytes) {
  if (bytes.size() < kCapturePacketHeaderSize) return std::nullopt;
  PacketHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.captured_length < kPseudoHeaderSize ||
      header.captured_length > kPseudoHeaderSize + kMaxCapturedMessage) {
    return absl::InvalidArgumentError(absl::StrCat("packet of ", header.captured_length,
                                                   " bytes, expected ", kPseudoHeaderSize, " to ",
                                                   kPseudoHeaderSize + kMaxCapturedMessage));
  }
  if (header.direction > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("packet with direction ", header.direction, ", expected 0 or 1"));
  }
  const size_t message_size = header.captured_length - kPseudoHeaderSize;
  if (bytes.size() - kCapturePacketHeaderSize < message_size) return std::nullopt;

  CapturePacket packet;
  packet.size = kCapturePacketHeaderSize + message_size;
  packet.captured.time_ns = uint64_t{header.seconds} * 1'000'000'000 +
                            uint64_t{header.fraction} * (format.nanoseconds ? 1 : 1000);
  packet.captured.direction = static_cast<CaptureDirection>(header.direction);
  packet.captured.frontend = header.frontend;
  packet.captured.bus = header.bus;
  packet.captured.message = bytes.subspan(kCapturePacketHeaderSize, message_size);
  return packet;
}

}  // namespace vmsg::wire
